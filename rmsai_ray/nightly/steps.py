"""The steps of a night. Each says what it did as plain JSON, which the later ones and the report read."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.fit_detectors import FitDetectorsConfig, fit_detectors
from rmsai_ray.backfill.flow import backfill
from rmsai_ray.backfill.maintain import MaintainConfig, maintain
from rmsai_ray.backfill.plan import list_archives, name_archives
from rmsai_ray.backfill.resolve import find_todo, resolve
from rmsai_ray.errors import RejectLimitError
from rmsai_ray.models.shelf import load_shelved_model
from rmsai_ray.monitoring.alerts import apply_findings, opened_in, worst
from rmsai_ray.monitoring.delivery import deliver
from rmsai_ray.monitoring.drift import DriftReport, check_drift, no_reference
from rmsai_ray.monitoring.features import Slice, read_values
from rmsai_ray.monitoring.reference import fit_reference, load_reference, save_reference
from rmsai_ray.nightly import retraining
from rmsai_ray.nightly.config import NightlyConfig
from rmsai_ray.nightly.figures import night_figures
from rmsai_ray.nightly.findings import findings_of
from rmsai_ray.nightly.state import Result, previous_night, time_of
from rmsai_ray.registry import CHALLENGER, ModelRegistry
from rmsai_ray.runs import now
from rmsai_ray.storage import Store, is_s3
from rmsai_ray.tables.alerts import RESOLVED, change_alerts
from rmsai_ray.tables.lake import Lake, list_models, open_lake
from rmsai_ray.tables.units import preview

log = logging.getLogger(__name__)

UNKNOWN_GROWTH = 1.0
"""Bytes of tables per byte of archives, before a backfill has measured it."""
TWICE = 2
"""What is compacted lies there twice for a while."""


@dataclass(frozen=True, kw_only=True)
class Night:
    """What every step may look at."""

    config: NightlyConfig
    store: Store
    date: date
    run_id: str
    since: datetime | None
    """End of the backfill of the night before; None for the first."""
    results: dict[str, Result]
    """Of the steps that have ended well."""
    failed: dict[str, str]
    """Step → error of those that have not."""

    @property
    def model_id(self) -> str:
        """Of the model that made tonight's rows."""
        return str(self.results["inventory"]["model_id"])

    @property
    def lake(self) -> Lake | None:
        """The model's tables; None where nothing was ever committed."""
        return (
            open_lake(self.store.uri, self.model_id) if self.model_id in list_models(self.store.uri) else None
        )

    @property
    def rows(self) -> Slice:
        """What this night committed."""
        return Slice(since=self.since, until=time_of(self.results["backfill"]["until"]))


def inventory(night: Night) -> Result:
    """What there is, what of it is new, what was expected and did not come, and whether there is room."""
    config, options = night.config, night.config.of_backfill(night.date)
    run = resolve(options)
    listing = list_archives(options)
    arrived = _arrived(night, options, listing.to_pylist())
    todo = find_todo(run, name_archives(listing, run.door), preview(run.lake, run.bundle.model_id))
    todo_bytes = sum(todo["size"].to_pylist())
    local = None if is_s3(night.store.uri) else _existing(Path(night.store.uri))
    return {
        "model_id": run.bundle.model_id,
        "model_name": config.name or config.model or run.bundle.spec.profile,
        "registered": run.registered.get("model"),
        "model_age_days": _age_days(night),
        "detector": run.scoring.detector,
        "detector_set": run.scoring.detector_set,
        "backfill_run": run.run_id,
        "listed": listing.num_rows,
        "todo": todo.num_rows,
        "todo_bytes": todo_bytes,
        "need_bytes": round(TWICE * todo_bytes * _growth(night.store, run.run_id)),
        "free_bytes": shutil.disk_usage(local).free if local else None,
        "arrived": arrived,
    }


def backfill_step(night: Night) -> Result:
    """Everything new, into the lake; and what that was."""
    too_many = None
    try:
        backfill(night.config.of_backfill(night.date))
    except RejectLimitError as error:
        too_many = str(error)
    until = now()
    lake = night.lake
    figures: dict[str, Any] = {
        "archives": {}, "archive_bytes": 0, "quarantine_reasons": {}, "patients": 0, "windows": 0, "rates": {}
    }  # fmt: skip
    if lake is not None:
        figures = night_figures(lake, Slice(since=night.since, until=until))
    return {
        "model_id": night.model_id,
        "run": night.results["inventory"]["backfill_run"],
        "until": until.isoformat(),
        "too_many_rejects": too_many,
        "figures": figures,
    }


def detectors(night: Night) -> Result:
    """Says which detectors score; or fits them anew, for a person to promote."""
    config, found = night.config, night.results["inventory"]
    said = {"detector": found["detector"], "detector_set": found["detector_set"], "fitted": None}
    if not config.refit_detectors or night.lake is None:
        return said
    output = Path(config.work) / night.date.isoformat() / "detectors"
    run_id = fit_detectors(FitDetectorsConfig(lake=config.lake, model=night.model_id, output=str(output)))
    version = ModelRegistry(str(config.registry)).register(
        f"{config.name}-detectors", output, alias=CHALLENGER
    )
    fitted = {"name": version.name, "version": version.version, "set_id": version.content_id}
    return said | {"fitted": fitted, "run": run_id}


def drift(night: Night) -> Result:
    """Compares the night's rows with the reference; makes one of the first nights where there is none."""
    config, lake = night.config, night.lake
    if lake is None:
        return {"model_id": night.model_id, "report": no_reference("the lake is empty").to_json()}
    reference = load_reference(night.store, night.model_id, config.reference)
    if reference is None:
        report = _begin_reference(night, lake)
    else:
        report = check_drift(reference, read_values(lake, night.rows), config.drift)
    return {"model_id": night.model_id, "report": report.to_json()}


def alerts(night: Night) -> Result:
    """Findings become rows, and rows are told to those who are to know."""
    bounds = night.config.alerts
    findings = findings_of(night.results, night.failed, bounds)
    name = night.date.isoformat()

    def apply(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return apply_findings(
            rows, findings, night=name, time=now(), run_id=night.run_id, resolve_after=bounds.resolve_after
        )

    rows = change_alerts(night.store, apply)
    not_delivered = deliver(night.store, bounds.messengers())
    opened = opened_in(rows, name)
    return {
        "checked": len(findings),
        "opened": opened,
        "worst": worst(opened),
        "unresolved": [row for row in rows if row["state"] != RESOLVED],
        "resolved": [row for row in rows if row["state"] == RESOLVED and row["clear_night"] == name],
        "not_delivered": not_delivered,
    }


def maintenance(night: Night) -> Result:
    """Few large files, an index that is up to date."""
    config = night.config
    if not config.maintenance or night.lake is None:
        return {"done": False}
    run_id = maintain(
        MaintainConfig(
            lake=config.lake,
            model=night.model_id,
            keep_versions_days=config.keep_versions_days,
            archive_older_than_months=config.archive_older_than_months,
        )
    )
    return {"done": True, "run": run_id}


def retrain(night: Night) -> Result:
    """Trains the model further, if there is reason to and nothing speaks against it."""
    if night.lake is None:
        return {"status": "off", "reasons": [], "against": []}
    occasion = retraining.Occasion(
        night=night.date,
        rows=night.rows,
        model_id=night.model_id,
        model_age_days=night.results["inventory"]["model_age_days"],
        drift=night.results["drift"]["report"] if "drift" in night.results else None,
    )
    return retraining.consider(night.config, night.store, occasion)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step, and the earlier ones without which it cannot be done."""

    name: str
    run: Callable[[Night], Result]
    needs: tuple[str, ...] = ()


STEPS = (
    Step(name="inventory", run=inventory),
    Step(name="backfill", run=backfill_step, needs=("inventory",)),
    Step(name="detectors", run=detectors, needs=("backfill",)),
    Step(name="drift", run=drift, needs=("backfill",)),
    Step(name="alerts", run=alerts),
    Step(name="maintenance", run=maintenance, needs=("backfill",)),
    Step(name="retraining", run=retrain, needs=("backfill",)),
)
"""In this order; the report comes after them. Alerts and report need nothing: they tell of failures, too."""


def _arrived(night: Night, options: BackfillConfig, listing: list[dict[str, Any]]) -> dict[str, int]:
    """Prefix → archives modified since the night before, as the listing has them."""
    before = previous_night(night.store, night.date.isoformat())
    first = date.fromisoformat(before.night) + timedelta(days=1) if before else date.min
    new = [row["uri"] for row in listing if row["modified_time"].astimezone(UTC).date() >= first]
    root = f"{options.archives.rstrip('/')}/"
    keys = [uri.rpartition(root)[2] if root in uri else uri for uri in new]
    return {prefix: sum(key.startswith(prefix) for key in keys) for prefix in night.config.alerts.expect}


def _age_days(night: Night) -> float | None:
    """Of the registered model, at the end of the night's day."""
    config = night.config
    if not config.name:
        return None
    version = ModelRegistry(str(config.registry)).resolve(str(config.model)).version
    registered = datetime.fromisoformat(version.time)
    return max(0.0, (now() - registered) / timedelta(days=1))


def _growth(store: Store, run_id: str) -> float:
    """Bytes of tables per byte of archives, as the last backfill of the same options has measured it."""
    content = store.find(f"runs/{run_id}/run.json")
    num_bytes = json.loads(content)["counts"].get("bytes", {}) if content else {}
    read, kept = num_bytes.get("read", 0), num_bytes.get("parquet", 0) + num_bytes.get("lance", 0)
    return kept / read if read and kept else UNKNOWN_GROWTH


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def _begin_reference(night: Night, lake: Lake) -> DriftReport:
    """Makes the reference of all rows so far, as soon as they have enough patients."""
    splits = load_shelved_model(night.store, night.model_id).facts.get("splits") or {}
    known = frozenset(splits.get("train", ()))
    rows = Slice(until=night.rows.until)
    num = len(read_values(lake, rows, without=known).patients)
    needed = night.config.baseline_patients
    if num < needed:
        return no_reference(f"the lake has {num} of the {needed} patients that make a reference")
    reference = fit_reference(
        lake, rows, train_patients=known, source=f"the first nights, up to {night.date.isoformat()}"
    )
    save_reference(night.store, reference)
    return no_reference(f"made of this night and those before it: {reference.num_patients} patients")
