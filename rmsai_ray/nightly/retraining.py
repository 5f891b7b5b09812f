"""A model learns further on recent normal windows, and its child takes over where it is better.

Nobody who decides between the two has trained either, or chose a threshold: some patients who are new to
the model are held out of everything. The declared figure is the mean error of their normal windows; patients
are drawn again for its interval.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rmsai_ray.archives.sources import open_source
from rmsai_ray.detection.detector_set import DetectorSet, fit_detector_set, load_detector_set
from rmsai_ray.detection.shelf import DETECTORS_FOLDER
from rmsai_ray.errors import ConfigError
from rmsai_ray.evaluation.measuring import Measurer
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.checkpoint import load_model
from rmsai_ray.monitoring.features import COMMITTED, Slice
from rmsai_ray.nightly.comparison import FEWEST_PATIENTS, compare
from rmsai_ray.nightly.config import NightlyConfig
from rmsai_ray.nightly.state import Result, results_before, time_of
from rmsai_ray.registry import CHALLENGER, CHAMPION, Lineage, ModelRegistry
from rmsai_ray.storage import Store
from rmsai_ray.tables.audit import read_audit
from rmsai_ray.tables.lake import Lake, open_lake
from rmsai_ray.training.data import WindowSet, read_windows
from rmsai_ray.training.finetune import FinetuneConfig, finetune, known_parts, lineage

log = logging.getLogger(__name__)

MOST_ARCHIVES = 400
"""Of the patients who decide, and of those whom detectors are fitted on; more are sampled by their names."""
NORMAL = "Normal"

PATIENTS = f"SELECT DISTINCT patient_id FROM events {COMMITTED} WHERE {{condition}} AND condition = $normal"
URIS = f"""
SELECT DISTINCT uri FROM events {COMMITTED}
JOIN (SELECT archive_id, unit_id, uri FROM archives WHERE status = 'committed') AS places
USING (archive_id, unit_id)
WHERE {{condition}} AND patient_id IN (SELECT unnest($patients)) ORDER BY md5(uri) LIMIT {MOST_ARCHIVES}
"""


@dataclass(frozen=True, kw_only=True)
class Occasion:
    """What a night knows when it comes to retraining."""

    night: date
    rows: Slice
    """Of this night."""
    model_id: str
    model_age_days: float | None
    drift: dict[str, Any] | None
    """The drift report, where the check ended well."""


@dataclass(frozen=True, kw_only=True)
class Patients:
    """Who takes part, all new to the model."""

    learning: tuple[str, ...]
    held_out: tuple[str, ...]


def consider(config: NightlyConfig, store: Store, occasion: Occasion) -> Result:
    """Whether there is a reason to train, what speaks against it, and if nothing does, all of it."""
    options = config.retraining
    if options.mode == "off":
        return {"status": "off", "reasons": [], "against": []}
    lake = open_lake(config.lake, occasion.model_id)
    reasons = _reasons(config, store, lake, occasion)
    if not reasons:
        return {"status": "no_reason", "reasons": [], "against": []}
    rows = _rows(config, store, lake, occasion, is_drift="drift" in reasons)
    with tempfile.TemporaryDirectory() as folder:
        registry = ModelRegistry(str(config.registry))
        champion_path = registry.fetch(registry.resolve(str(config.model)).version, Path(folder) / "champion")
        champion = load_model(champion_path)
        detectors = _detectors_beside(champion_path)
        patients = _choose(config, lake, rows, champion, detectors, occasion.night)
        against = _against(config, store, occasion, patients)
        found: Result = {
            "reasons": list(reasons.values()),
            "against": against,
            "patients": {"learning": len(patients.learning), "held_out": len(patients.held_out)},
        }
        if against or options.mode == "dry":
            return {"status": "refused" if against else "dry", **found}
        return {
            **found,
            **_train(config, lake, rows, champion_path, champion, detectors, patients, occasion.night),
        }


def _reasons(config: NightlyConfig, store: Store, lake: Lake, occasion: Occasion) -> dict[str, str]:
    """Kind → in words."""
    options, found = config.retraining, dict[str, str]()
    if options.on_drift and occasion.drift and occasion.drift["severity"] == "critical":
        found["drift"] = f"drift: {', '.join(occasion.drift['drifted'])}"
    age = occasion.model_age_days
    if options.after_days is not None and age is not None and age > options.after_days:
        found["age"] = f"age: {age:.0f} days are more than {options.after_days:g}"
    if options.after_patients is not None:
        last = _last_trained(store, occasion.night)
        since = time_of(last[1]["until"]) if last else None
        num = len(_patients_of(lake, Slice(since=since, until=occasion.rows.until)))
        if num >= options.after_patients:
            found["volume"] = f"volume: {num} patients since the last training"
    return found


def _against(config: NightlyConfig, store: Store, occasion: Occasion, patients: Patients) -> list[str]:
    options, found = config.retraining, []
    last = _last_trained(store, occasion.night)
    if last and (days := (occasion.night - date.fromisoformat(last[0])).days) < options.every_days:
        found.append(f"the last training was {days} days ago, and there is one in {options.every_days} days")
    num = len(patients.learning) + len(patients.held_out)
    if num < options.min_patients:
        found.append(f"{num} new patients are fewer than {options.min_patients}")
    if min(len(patients.learning), len(patients.held_out)) < FEWEST_PATIENTS:
        found.append(f"both parts need {FEWEST_PATIENTS} patients")
    return found


def _last_trained(store: Store, night: date) -> tuple[str, Result] | None:
    earlier = results_before(store, night.isoformat(), "retraining", most=10_000)
    trained = [(name, row["result"]) for name, row in earlier.items() if row["result"].get("challenger")]
    return trained[-1] if trained else None


def _rows(config: NightlyConfig, store: Store, lake: Lake, occasion: Occasion, *, is_drift: bool) -> Slice:
    """This night's rows after a drift, else those of some nights; none whose labels chose a threshold."""
    since = occasion.rows.since
    if not is_drift:
        begun = results_before(store, occasion.night.isoformat(), "begin", most=config.retraining.nights - 1)
        since = time_of(next(iter(begun.values()))["since"]) if begun else since
    labelled = _last_labels_used(lake)
    times = [time for time in (since, labelled) if time is not None]
    return Slice(since=max(times, default=None), until=occasion.rows.until)


def _last_labels_used(lake: Lake) -> datetime | None:
    """When reported conditions last chose a threshold of the lake."""
    makers = lake.rows("SELECT DISTINCT coalesce(detector_set, model_id) AS scorer FROM windows")
    audits = [read_audit(lake.uri, row["scorer"]).to_pylist() for row in makers]
    times = [
        row["time"] for rows in audits for row in rows if row["applied"] and row["samples"] == "reported"
    ]
    return max(times, default=None)


def _choose(
    config: NightlyConfig,
    lake: Lake,
    rows: Slice,
    champion: ModelBundle,
    detectors: DetectorSet | None,
    night: date,
) -> Patients:
    """New patients with normal events, divided by a hash of night and patient."""
    known = set(known_parts(lineage(champion)))
    if detectors:
        known.update(*detectors.facts.get("patients", {}).values())
    new = [patient for patient in _patients_of(lake, rows) if patient not in known]
    ranked = sorted(new, key=lambda name: hashlib.sha256(f"{night}/{name}".encode()).hexdigest())
    num_held_out = round(config.retraining.held_out_share * len(ranked))
    return Patients(
        learning=tuple(sorted(ranked[num_held_out:])), held_out=tuple(sorted(ranked[:num_held_out]))
    )


def _patients_of(lake: Lake, rows: Slice) -> list[str]:
    condition, parameters = rows.sql("events")
    found = lake.rows(PATIENTS.format(condition=condition), {**parameters, "normal": NORMAL})
    return sorted(row["patient_id"] for row in found)


def _train(
    config: NightlyConfig,
    lake: Lake,
    rows: Slice,
    champion_path: Path,
    champion: ModelBundle,
    detectors: DetectorSet | None,
    patients: Patients,
    night: date,
) -> Result:
    """Trains, fits detectors, compares, registers, and promotes what is better."""
    options = config.retraining
    output = Path(config.work) / night.isoformat() / "challenger"
    calibrated_on = detectors.facts.get("patients", {}).get("validation", ()) if detectors else ()
    child = finetune(
        FinetuneConfig(
            archives=(config.archives,),
            output=str(output),
            model=str(champion_path),
            lake=config.lake,
            lake_model=lake.model_id,
            cohort=_cohort(rows),
            cohort_archives_only=True,
            leads=config.leads,
            leave_out=tuple(sorted({*patients.held_out, *calibrated_on})),
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            freeze=options.freeze,
            workers=options.workers,
            gpu=options.gpu,
        )
    )
    splits = child.facts["splits"]
    measurer = Measurer(_read(config, lake, rows, patients, child), seed=0)
    own = _fit_detectors(measurer, child, splits)
    own.save(output / DETECTORS_FOLDER)
    held_out_N = _rows_of(measurer.windows, patients.held_out)
    comparison = compare(
        measurer.windows.take(held_out_N),
        champion=(measurer.measured(champion).take(held_out_N), detectors),
        challenger=(measurer.measured(child).take(held_out_N), own),
    )
    registry = ModelRegistry(str(config.registry))
    version = registry.register(
        str(config.name), output, alias=CHALLENGER, lineage=Lineage(parent=champion.model_id)
    )
    if comparison["is_better"]:
        registry.promote(f"{config.name}@{version.version}", CHAMPION)
    return {
        "status": "promoted" if comparison["is_better"] else "kept_as_challenger",
        "champion": champion.model_id,
        "challenger": child.model_id,
        "version": version.version,
        "until": rows.until,
        "epochs": child.facts["training"]["epochs_run"],
        "splits": {part: len(names) for part, names in splits.items()},
        "comparison": comparison,
    }


def _cohort(rows: Slice) -> str:
    """The normal events of the slice, as an SQL condition; the two times are our own."""
    bounds = [
        f"committed_time {sign} TIMESTAMPTZ '{time.isoformat()}'"
        for sign, time in ((">", rows.since), ("<=", rows.until))
        if time is not None
    ]
    committed = " AND ".join(["status = 'committed'", *bounds])
    return f"condition = '{NORMAL}' AND archive_id IN (SELECT archive_id FROM archives WHERE {committed})"


def _read(
    config: NightlyConfig, lake: Lake, rows: Slice, patients: Patients, model: ModelBundle
) -> WindowSet:
    """The windows of those who learned and of those held out; of at most so many archives of each."""
    condition, parameters = rows.sql("events")
    left_out: Counter[str] = Counter()
    parts = []
    for names in (patients.learning, patients.held_out):
        found = lake.rows(URIS.format(condition=condition), {**parameters, "patients": list(names)})
        source = open_source(config.archives)
        parts += [
            read[1]
            for row in found
            if (read := read_windows(source, row["uri"], model.spec, left_out=left_out)) is not None
        ]
    if not parts:
        raise ConfigError("archives", config.archives, f"hold no window: {dict(left_out)}", "Look at them.")
    return WindowSet.concatenate(parts)


def _fit_detectors(measurer: Measurer, model: ModelBundle, splits: dict[str, list[str]]) -> DetectorSet:
    """On the patients who trained the model, calibrated on those who validated it."""
    windows, measured = measurer.windows, measurer.measured(model)
    rows = {part: _rows_of(windows, splits[part]) & windows.is_normal_N for part in ("train", "validation")}
    return fit_detector_set(
        measured.take(rows["train"]),
        measured.take(rows["validation"]),
        model_id=model.model_id,
        seed=0,
        facts={"patients": {part: splits[part] for part in rows}, "data_hash": model.facts["data_hash"]},
        validation_patients_N=windows.patients_N[rows["validation"]],
    )


def _rows_of(windows: WindowSet, patients: Sequence[str]) -> npt.NDArray[np.bool_]:
    return np.isin(windows.patients_N, list(patients))


def _detectors_beside(model: Path) -> DetectorSet | None:
    folder = model / DETECTORS_FOLDER
    return load_detector_set(folder) if folder.is_dir() else None
