"""One round of adaptive thresholds over a lake: read recent scores, apply the rules, audit, save.

The audit is written before the profile: no threshold changes without a row that says why.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rmsai_ray import ids
from rmsai_ray.archives.labels import NORMAL, normal_windows
from rmsai_ray.detection.adaptive import CellAudit, Recent, adapt_profile
from rmsai_ray.detection.profiles import NamedProfiles, find_profile, versioned
from rmsai_ray.detection.shelf import load_shelved_detector_set
from rmsai_ray.detection.thresholds import CALIBRATED, ThresholdProfile, check_metric, condition_class
from rmsai_ray.errors import ConfigError, LakeError
from rmsai_ray.runs import RunRecord, command_line, now
from rmsai_ray.storage import Store
from rmsai_ray.tables.audit import write_audit
from rmsai_ray.tables.lake import Lake, open_lake

UNREPORTED = ("", "unknown", "auto-generated")
"""Conditions that say nothing, in small letters."""
ANCHORS = ("start", "import")
"""Steps of a profile's history that later ones are bounded by."""

RECENT = """
SELECT lead, condition, anomaly_score AS score, archive_id, event_id
FROM windows
WHERE detector = $detector AND coalesce(detector_set, model_id) = $scorer
  AND event_time > (SELECT max(event_time) FROM windows) - to_days($days)
QUALIFY row_number() OVER (PARTITION BY lead, condition ORDER BY event_time DESC, window_id) <= $max_windows
"""
"""Nothing of what a threshold decided (is_anomaly, anomaly_status, anomaly_type) is read."""

NEWEST = """
SELECT detector, coalesce(detector_set, model_id) AS scorer, detector_set
FROM windows WHERE event_time IS NOT NULL ORDER BY event_time DESC, window_id LIMIT 1
"""

ANNOTATED = """
SELECT archive_id, event_id, ecg_extras FROM events WHERE contains(ecg_extras, '"annotations"')
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """Moves the thresholds of a named profile towards the recent scores of a lake, within bounds."""

    lake: str
    """Folder or s3://bucket/prefix."""
    model: str | None = None
    """Model id; needed where the lake holds several."""
    profile: str = "adaptive"
    """Name of the profile, which jobs/backfill.py takes as --threshold-profile."""
    start: str = "calibrated"
    """What the first round starts from, and later ones are bounded by: a profile or a .json file."""
    false_alarm_rate: float = 0.05
    """Share of normal windows that may lie above the percentile's threshold."""
    days: int = 30
    """Windows of events in so many days before the newest event are recent."""
    max_windows: int = 1000
    """At most so many per lead and condition, the newest."""
    dry_run: bool = False
    """Say what would change, and write nothing."""

    def __post_init__(self) -> None:
        if not 0 < self.false_alarm_rate < 0.5:
            rule = "is no rate of false alarms"
            raise ConfigError("false_alarm_rate", self.false_alarm_rate, rule, "Give a value like 0.05.")
        for name in ("days", "max_windows"):
            if getattr(self, name) <= 0:
                raise ConfigError(name, getattr(self, name), "must be positive", "Give a larger value.")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Whose scores the newest windows of a lake carry."""

    detector: str
    scorer: str
    """The detector set, or the model where there is none."""
    detector_set: str | None


def adapt(config: AdaptConfig) -> list[CellAudit]:
    """One round; returns what became of each threshold, and why.

    Raises:
        ConfigError: no such lake, model or start; or somebody changed the profile meanwhile.
    """
    lake = open_lake(config.lake, config.model)
    scored = newest_scores(lake)
    recent = read_recent(lake, scored, config)
    present, anchor = find_present(config, lake, scored)
    changed, audits = adapt_profile(present, anchor, recent, false_alarm_rate=config.false_alarm_rate)
    is_changed = any(audit.applied for audit in audits)
    new = versioned(changed, f"{now():%Y%m%d}") if is_changed else present
    if not config.dry_run:
        commit(config, lake, scored, present, new, audits)
    report(audits, present, new, dry_run=config.dry_run)
    return audits


def newest_scores(lake: Lake) -> Scored:
    """Detector and scorer of the newest event's windows; scores of others are not comparable with these.

    Raises:
        LakeError: no window has a time.
    """
    rows = lake.rows(NEWEST)
    if not rows:
        raise LakeError(f"{lake.uri} has no windows of {lake.model_id} with a time: nothing is recent")
    return Scored(**rows[0])


def read_recent(lake: Lake, scored: Scored, config: AdaptConfig) -> Recent:
    """The recent scores of a lake with what monitors and annotations say of them."""
    chosen = {"detector": scored.detector, "scorer": scored.scorer}
    table = lake.table(RECENT, chosen | {"days": config.days, "max_windows": config.max_windows})
    contradicted = _contradicted_events(lake)
    events = zip(table["archive_id"].to_pylist(), table["event_id"].to_pylist(), strict=True)
    is_contradicted_N = np.array([event in contradicted for event in events], np.bool_)
    conditions = table["condition"].to_pylist()
    class_N = np.array([condition_class(condition) or "" for condition in conditions], np.str_)
    is_reported_N = np.array([text.lower() not in UNREPORTED for text in conditions], np.bool_)
    is_normal_N = (class_N == NORMAL) & ~is_contradicted_N
    return Recent(
        score_N=table["score"].to_numpy().astype(np.float64),
        lead_N=np.array(table["lead"].to_pylist(), np.str_),
        class_N=class_N,
        is_normal_N=is_normal_N,
        is_abnormal_N=(is_reported_N | is_contradicted_N) & ~is_normal_N,
    )


def find_present(
    config: AdaptConfig, lake: Lake, scored: Scored
) -> tuple[ThresholdProfile, ThresholdProfile]:
    """(profile in force, profile that bounds refer to); the first time both are what ``start`` names."""
    profiles = NamedProfiles(config.lake, scored.scorer)
    history = profiles.history(config.profile)
    if history:
        present = history[-1].profile
        made = next(step.number for step in history if step.profile == present)  # before any roll back to it
        anchors = [step.profile for step in history[:made] if step.action in ANCHORS]
        return check_metric(present, scored.detector), (anchors or [history[0].profile])[-1]
    start = versioned(replace(_start(config, lake, scored), name=config.profile), "start")
    if not config.dry_run:
        profiles.save(start, "start")
    return start, start


def commit(
    config: AdaptConfig,
    lake: Lake,
    scored: Scored,
    present: ThresholdProfile,
    new: ThresholdProfile,
    audits: Sequence[CellAudit],
) -> None:
    """Writes run record, audit, and last the profile, where it changed."""
    store, time = Store(config.lake), now()
    versions = {"old_version": present.version, "new_version": new.version}
    record = RunRecord(
        run_id=ids.run_id("adapt-thresholds", {**asdict(config), "model": lake.model_id}),
        job="adapt_thresholds",
        argv=command_line(),
        config=asdict(config),
        facts={**asdict(scored), **versions},
    )
    record.begin(store)
    record.counts = {"thresholds": len(audits), "applied": sum(audit.applied for audit in audits)}
    common = {
        "time": time,
        "run_id": record.run_id,
        "scorer": scored.scorer,
        "detector": scored.detector,
        "profile": config.profile,
        **versions,
    }
    try:
        write_audit(store, scored.scorer, config.profile, time, [asdict(audit) | common for audit in audits])
        if new != present:
            profiles = NamedProfiles(config.lake, scored.scorer)
            profiles.save(new, "adapt", instead_of=present.version)
    except BaseException as error:
        record.finish(store, "failed", repr(error))
        raise
    record.finish(store, "done")


def report(
    audits: Sequence[CellAudit], old: ThresholdProfile, new: ThresholdProfile, *, dry_run: bool
) -> None:
    """One line per threshold for people, and what to do with the profile."""
    for audit in audits:
        log.info(
            "%-5s %-7s %5d windows (%s)  %.4g -> %.4g  %s",
            audit.lead, audit.condition, audit.num_samples, audit.samples,
            audit.old_threshold, audit.new_threshold, audit.reason,
        )  # fmt: skip
    if old == new:
        log.info("Profile %s stays at version %s.", old.name, old.version)
    elif dry_run:
        log.info("Profile %s would go from version %s to other numbers.", old.name, old.version)
    else:
        log.info(
            "Profile %s goes from version %s to %s: jobs/backfill.py --threshold-profile %s takes it.",
            old.name, old.version, new.version, new.name,
        )  # fmt: skip


def _start(config: AdaptConfig, lake: Lake, scored: Scored) -> ThresholdProfile:
    store = Store(config.lake)
    quantiles: Mapping[str, Mapping[str, Sequence[float]]] = {}
    if config.start == CALIBRATED and scored.detector_set is not None:
        quantiles = load_shelved_detector_set(store, lake.model_id, scored.detector_set).calibration
    return find_profile(
        config.start,
        config.lake,
        _model_thresholds(store, lake.model_id),
        scorer=scored.scorer,
        detector=scored.detector,
        quantiles=quantiles,
        false_alarm_rate=config.false_alarm_rate if scored.detector in quantiles else None,
    )


def _model_thresholds(store: Store, model_id: str) -> dict[str, Any] | None:
    """The calibration that the lake's copy of the model brings."""
    content = store.find(f"models/{model_id}/model.json")
    found: dict[str, Any] | None = json.loads(content)["thresholds"] if content else None
    return found


def _contradicted_events(lake: Lake) -> set[tuple[str, str]]:
    """Events, by archive and id, in which an annotation marks a beat or rhythm that is not normal."""
    whole = np.array([0.0]), np.array([np.inf])
    return {
        (row["archive_id"], row["event_id"])
        for row in lake.rows(ANNOTATED)
        if not normal_windows(NORMAL, json.loads(row["ecg_extras"]), *whole, 1.0).all()
    }
