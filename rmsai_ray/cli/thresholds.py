"""``rmsai thresholds``: list, show, export, import and roll back the named threshold profiles of a lake."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import tyro

from rmsai_ray.cli.options import DEFAULT_LAKE, LAKE_VARIABLE
from rmsai_ray.cli.output import Answer, VerbGroup
from rmsai_ray.detection.profiles import NamedProfiles, list_scorers, profile_to_json, read_profile
from rmsai_ray.detection.thresholds import ThresholdProfile
from rmsai_ray.errors import ConfigError, StorageError
from rmsai_ray.tables.audit import read_audit

AUDIT_COLUMNS = (
    "time", "lead", "condition", "num_samples", "samples", "target", "confidence", "old_threshold",
    "new_threshold", "applied", "reason",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """Which lake and scores, and how to answer."""

    lake: str = field(default_factory=lambda: os.environ.get(LAKE_VARIABLE, DEFAULT_LAKE))
    """Folder or s3://bucket/prefix. The environment variable RMSAI_LAKE sets the default."""
    scorer: str | None = None
    """Detector set or model that the profiles are for; needed where the lake has profiles for several."""
    json: bool = False
    """Answer with JSON."""
    csv: Path | None = None
    """Write the rows to this file, - for standard output."""

    def find_scorer(self) -> str:
        """The scorer that was chosen, or the only one.

        Raises:
            ConfigError: there are none or several, and none was chosen.
        """
        if self.scorer is not None:
            return self.scorer
        known = list_scorers(self.lake)
        if len(known) != 1:
            rule = f"the lake has threshold profiles for {len(known)} scorers"
            fix = f"Choose one of {', '.join(known)}." if known else "Run jobs/adapt_thresholds.py first."
            raise ConfigError("scorer", None, rule, fix)
        return known[0]

    def open(self) -> NamedProfiles:
        """The profiles of the lake."""
        return NamedProfiles(self.lake, self.find_scorer())


@dataclass(frozen=True, kw_only=True)
class ListProfiles(ProfileOptions):
    """Every named profile and every step of its history."""

    def answer(self) -> Answer:
        """One row a step."""
        profiles = self.open()
        rows = [
            {
                "profile": f"{name}@{step.number}",
                "version": step.profile.version,
                "action": step.action,
                "time": step.time,
            }
            for name in profiles.names()
            for step in profiles.history(name)
        ]
        frame = pd.DataFrame(rows, columns=["profile", "version", "action", "time"])
        return Answer(data={"profiles": frame}, rows=frame, tables={f"profiles ({len(frame)})": frame})


@dataclass(frozen=True, kw_only=True)
class ShowProfile(ProfileOptions):
    """The thresholds of a profile, by lead and condition."""

    profile: tyro.conf.Positional[str]
    """NAME as it is now, or NAME@NUMBER as that step left it."""

    def answer(self) -> Answer:
        """One row a lead."""
        return _profile_answer(self.open().load(self.profile))


@dataclass(frozen=True, kw_only=True)
class ExportProfile(ProfileOptions):
    """Writes a profile to a JSON file, which --threshold-profile and import take."""

    profile: tyro.conf.Positional[str]
    """NAME or NAME@NUMBER."""
    file: tyro.conf.Positional[Path]
    """The file to write; an older one is replaced."""

    def answer(self) -> Answer:
        """The profile."""
        scorer = self.find_scorer()
        profile = NamedProfiles(self.lake, scorer).load(self.profile)
        try:
            self.file.write_text(json.dumps(profile_to_json(profile, made_for=scorer), indent=1) + "\n")
        except OSError as error:
            raise StorageError(f"cannot write {self.file}: {error}") from error
        return _profile_answer(profile)


@dataclass(frozen=True, kw_only=True)
class ImportProfile(ProfileOptions):
    """Makes a JSON file the present state of a named profile; later rounds are bounded by it."""

    file: tyro.conf.Positional[str]
    """The .json file."""
    name: str = "adaptive"
    """The profile to set."""

    def answer(self) -> Answer:
        """The profile."""
        scorer = self.find_scorer()
        profile = replace(read_profile(self.file, scorer), name=self.name)
        NamedProfiles(self.lake, scorer).save(profile, "import")
        return _profile_answer(profile)


@dataclass(frozen=True, kw_only=True)
class RollbackProfile(ProfileOptions):
    """Makes an earlier step the present state of a profile again."""

    name: tyro.conf.Positional[str]
    """A named profile."""
    to: int | None = None
    """Number of the step. Default: the one before the present thresholds."""

    def answer(self) -> Answer:
        """The profile as it is now."""
        return _profile_answer(self.open().rollback(self.name, self.to))


@dataclass(frozen=True, kw_only=True)
class Audit(ProfileOptions):
    """What every round of adaptation made of every threshold, and why."""

    limit: int = 200
    """How many rows at most, the newest."""

    def answer(self) -> Answer:
        """One row a threshold and round."""
        rows = read_audit(self.lake, self.find_scorer()).to_pandas().tail(self.limit)
        return Answer(
            data={"audit": rows}, rows=rows, tables={f"audit ({len(rows)})": rows[list(AUDIT_COLUMNS)]}
        )


@dataclass(frozen=True, kw_only=True)
class Thresholds(VerbGroup):
    """Threshold profiles of a lake: list, show, export, import, roll back, audit."""

    verb: (
        Annotated[ListProfiles, tyro.conf.subcommand("list", prefix_name=False)]
        | Annotated[ShowProfile, tyro.conf.subcommand("show", prefix_name=False)]
        | Annotated[ExportProfile, tyro.conf.subcommand("export", prefix_name=False)]
        | Annotated[ImportProfile, tyro.conf.subcommand("import", prefix_name=False)]
        | Annotated[RollbackProfile, tyro.conf.subcommand("rollback", prefix_name=False)]
        | Annotated[Audit, tyro.conf.subcommand("audit", prefix_name=False)]
    )


def _profile_answer(profile: ThresholdProfile) -> Answer:
    tables: Mapping[str, Any] = {"base": profile.base, **profile.conditions}
    leads = sorted({lead for table in tables.values() for lead in table})
    rows = [{"lead": lead} | {name: table.get(lead) for name, table in tables.items()} for lead in leads]
    frame = pd.DataFrame(rows)
    title = f"{profile.name}, version {profile.version}, of {profile.metric}"
    return Answer(data=profile_to_json(profile), rows=frame, tables={title: frame})
