"""Threshold profiles as files: one JSON object each, and the history of a named profile in a lake.

<lake>/thresholds/model=<scorer>/<name>/00000007.json      the highest number is the profile as it is now

The scorer is what the scores come from: a model, or a detector set of it. Thresholds mean nothing elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rmsai_ray.detection.thresholds import (
    CALIBRATED,
    LITERAL_PROFILES,
    ThresholdProfile,
    check_metric,
    resolve_profile,
)
from rmsai_ray.errors import ConfigError, StorageError
from rmsai_ray.ids import config_hash
from rmsai_ray.revisions import Document, Revisions
from rmsai_ray.runs import now
from rmsai_ray.storage import Store, split_object_uri
from rmsai_ray.tables.audit import scorer_folder

FOLDER = "thresholds"
SET_HASH = re.compile(r"_([0-9a-f]{8})$")
"""What a plus sign stood before in the id of a detector set."""
FORMAT_VERSION = 1
SUFFIX = ".json"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
HASH_LENGTH = 8


@dataclass(frozen=True, kw_only=True)
class Revision:
    """One step in the history of a named profile."""

    number: int
    time: str
    action: str
    """What was done: start, adapt, import or rollback."""
    profile: ThresholdProfile


def find_profile(
    reference: str,
    lake_uri: str,
    calibration: Mapping[str, Any] | None,
    *,
    scorer: str,
    detector: str = "reconstruction_error",
    quantiles: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    false_alarm_rate: float | None = None,
) -> ThresholdProfile:
    """As :func:`rmsai_ray.detection.thresholds.resolve_profile`, and profiles that somebody made.

    Args:
        reference: a built-in profile; a ``.json`` file or object; a name in the lake (its present state), or
            ``name@3`` (its third revision).
        lake_uri: where named profiles lie.
        calibration: of the model.
        scorer: id of the detector set, or of the model where there is none.
        detector: what the scores come from.
        quantiles: of the detector set.
        false_alarm_rate: of ``calibrated``.

    Raises:
        ConfigError: there is none, or it is not for these scores.
    """
    if reference in LITERAL_PROFILES or reference == CALIBRATED:
        return resolve_profile(
            reference, calibration, detector=detector, quantiles=quantiles, false_alarm_rate=false_alarm_rate
        )
    if false_alarm_rate is not None:
        rule, fix = f"profile {reference!r} has thresholds of its own", "Leave the rate out."
        raise ConfigError("false_alarm_rate", false_alarm_rate, rule, fix)
    if reference.endswith(SUFFIX):
        return check_metric(read_profile(reference, scorer), detector)
    return check_metric(NamedProfiles(lake_uri, scorer).load(reference), detector)


def read_profile(uri: str, scorer: str) -> ThresholdProfile:
    """The profile in one file or object.

    Raises:
        ConfigError: there is none, it is not well-formed, or it says that it was made for another scorer.
    """
    folder, key = split_object_uri(uri)
    content = Store(folder).find(key)
    if content is None:
        raise ConfigError("threshold_profile", uri, "does not exist", "Export one: rmsai thresholds export.")
    try:
        values = json.loads(content)
    except ValueError as error:
        raise ConfigError(
            "threshold_profile", uri, f"is no JSON: {error}", "Export one as a start."
        ) from error
    profile = profile_from_json(values, uri)
    if values.get("made_for", scorer) != scorer:
        rule = f"was made for scores of {values['made_for']}, and these are of {scorer}"
        raise ConfigError("threshold_profile", uri, rule, "Make one for these, or choose calibrated.")
    return profile


def profile_to_json(profile: ThresholdProfile, *, made_for: str | None = None) -> dict[str, Any]:
    """As plain JSON values; with the scorer that it was made for where it is to leave its lake."""
    return {
        "format_version": FORMAT_VERSION,
        "name": profile.name,
        "version": profile.version,
        **({"made_for": made_for} if made_for else {}),
        **_content(profile),
    }


def profile_from_json(values: Mapping[str, Any], where: str) -> ThresholdProfile:
    """The inverse of :func:`profile_to_json`.

    A version that ends in a hash of the numbers has to fit them. One that was left out is made from them.

    Raises:
        ConfigError: a field is missing, a number is none, or numbers were changed and the version was not.
    """
    try:
        if values["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format_version {values['format_version']!r}, expected {FORMAT_VERSION}")
        profile = ThresholdProfile(
            name=str(values["name"]),
            version=str(values.get("version", "")),
            metric=str(values["metric"]),
            base={str(lead): float(number) for lead, number in values["base"].items()},
            conditions={
                str(name): {str(lead): float(number) for lead, number in table.items()}
                for name, table in values["conditions"].items()
            },
            status_by_condition=bool(values.get("status_by_condition", False)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        rule = f"is no threshold profile: {error!r}"
        raise ConfigError("threshold_profile", where, rule, "Export one as a start.") from error
    if not profile.version:
        return versioned(profile, "file")
    if profile.version != versioned(profile, profile.version.rpartition("-")[0]).version:
        rule = f"has version {profile.version}, which was made for other numbers"
        raise ConfigError("threshold_profile", where, rule, "Remove its version, and it gets one of its own.")
    return profile


def versioned(profile: ThresholdProfile, label: str) -> ThresholdProfile:
    """The profile with the version ``<label>-<hash of its numbers>``."""
    return replace(profile, version=f"{label}-{config_hash(_content(profile))[:HASH_LENGTH]}")


def list_scorers(lake_uri: str) -> list[str]:
    """What the named profiles of a lake were made for, sorted."""
    keys = (info.key.split("/") for info in Store(lake_uri).list(FOLDER))
    folders = {key[1].removeprefix("model=") for key in keys if len(key) == 4}
    return sorted(SET_HASH.sub(r"+\1", folder) for folder in folders)


class NamedProfiles:
    """The named profiles of a lake for the scores of one scorer: every state that one was in is kept."""

    def __init__(self, lake_uri: str, scorer: str) -> None:
        self._store, self._folder = Store(lake_uri), scorer_folder(FOLDER, scorer)

    def names(self) -> list[str]:
        """All of them, sorted."""
        return sorted({info.key.split("/")[2] for info in self._store.list(self._folder)})

    def load(self, reference: str) -> ThresholdProfile:
        """The profile called ``name`` as it is now, or as revision 3 left it (``name@3``).

        Raises:
            ConfigError: there is none; says which there are.
        """
        name, _, number = reference.partition("@")
        found = None
        if NAME.fullmatch(name) and (not number or number.isdecimal()):
            found = self._revisions(name).read(int(number) if number else None)
        if found is None:
            newest = f"{name}@1 to {name}@{self._revisions(name).newest()}" if name in self.names() else ""
            known = newest or ", ".join([*LITERAL_PROFILES, CALIBRATED, *self.names()])
            rule = f"is no profile of {self._store.child_uri(self._folder)}"
            raise ConfigError(
                "threshold_profile", reference, rule, f"Choose from {known}, or name a .json file."
            )
        return profile_from_json(found["profile"], reference)

    def history(self, name: str) -> list[Revision]:
        """Every step, the oldest first; none where there is no such profile."""
        revisions = self._revisions(name)
        numbers = range(1, revisions.newest() + 1)
        return [_revision(number, revisions.read(number), name) for number in numbers]

    def save(self, profile: ThresholdProfile, action: str, *, instead_of: str | None = None) -> None:
        """Makes ``profile`` the present state of its name.

        Args:
            profile: with a version of its own (:func:`versioned`).
            action: for the history.
            instead_of: the version that it was made from, where that has to be the present one still.

        Raises:
            ConfigError: a name that cannot be one or is a built-in profile's, or the present one is another.
        """
        name = profile.name
        if not NAME.fullmatch(name) or name in (*LITERAL_PROFILES, CALIBRATED) or name.endswith(SUFFIX):
            rule = f"cannot be the name of a profile: it is built in, or does not match {NAME.pattern}"
            raise ConfigError("name", name, rule, "Choose another, e.g. adaptive.")

        def apply(present: Document | None) -> Document:
            version = present["profile"]["version"] if present else None
            if instead_of is not None and version != instead_of:
                rule = f"was changed to version {version} meanwhile"
                raise ConfigError("threshold_profile", name, rule, "Run the same command again.")
            return _step(profile, action)

        self._revisions(name).change(apply)

    def rollback(self, name: str, number: int | None = None) -> ThresholdProfile:
        """Makes an earlier revision the present state again, under the version that it had.

        Args:
            name: of the profile.
            number: of the revision; the one before the present thresholds were first there where None.

        Raises:
            ConfigError: there is no such profile, or none before.
        """
        profile = self._before(name) if number is None else self.load(f"{name}@{number}")
        self._revisions(name).change(lambda _: _step(profile, "rollback"))
        return profile

    def _before(self, name: str) -> ThresholdProfile:
        present, before = self.load(name), None
        for step in self.history(name):
            if step.profile == present:
                break
            before = step.profile
        if before is None:
            rule = "had no other thresholds before its present ones"
            raise ConfigError("threshold_profile", name, rule, f"Name a revision: {name}@NUMBER.")
        return before

    def _revisions(self, name: str) -> Revisions:
        return Revisions(self._store, f"{self._folder}/{name}")


def _step(profile: ThresholdProfile, action: str) -> Document:
    return {"time": now().isoformat(), "action": action, "profile": profile_to_json(profile)}


def _content(profile: ThresholdProfile) -> dict[str, Any]:
    return {
        "metric": profile.metric,
        "base": dict(profile.base),
        "conditions": {name: dict(table) for name, table in profile.conditions.items()},
        "status_by_condition": profile.status_by_condition,
    }


def _revision(number: int, found: Document | None, name: str) -> Revision:
    if found is None:
        raise StorageError(f"revision {number} of threshold profile {name} is gone")
    profile = profile_from_json(found["profile"], f"{name}@{number}")
    return Revision(number=number, time=found["time"], action=found["action"], profile=profile)
