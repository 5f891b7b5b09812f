"""A small lake with known contents, written with pyarrow and lancedb alone; changes when the schemas do.

Nothing of the writing side of the package is used, so that what the queries read is checked against the
schemas and not against the writer. Every archive starts at ``event_1001``; one patient has two archives.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rmsai_ray.tables import schemas

MODEL_A, MODEL_B = "tiny-8x4-aaaaaaaaaaaa", "tiny-8x8-bbbbbbbbbbbb"
DIMS = {MODEL_A: 4, MODEL_B: 8}
ARCHIVES = (("PT1000", "2025-08"), ("PT1000", "2025-09"), ("PT2000", "2025-09"), ("PT3000", "2025-09"))
EVENTS = ("event_1001", "event_1002")
LEADS = (("ECG1", 1), ("ECG2", 2), ("vVX", 7))
STARTS = (0, 70)
CONDITIONS = ("Normal", "Atrial Fibrillation (PTB-XL)", "Tachycardia", "Bradycardia")
TYPES = (None, "Atrial Fibrillation", "Tachycardia", None, "Ventricular Tachycardia")
COMMITTED = datetime(2025, 10, 1, 12, tzinfo=UTC)
RUN_ID = "backfill-0123456789abcdef"
PLANTED = ("PT1000_2025-08/event_1001/ECG2/0", "PT3000_2025-09/event_1002/vVX/70")
"""Two windows of MODEL_A, up to ``@``, whose embeddings point nearly the same way."""


@dataclass(frozen=True, kw_only=True)
class BuiltLake:
    """What was written, for recounts."""

    uri: str
    windows: dict[str, pd.DataFrame]
    """Committed rows by model."""
    events: dict[str, pd.DataFrame]


def build_lake(root: Path, models: tuple[str, ...] = (MODEL_A, MODEL_B)) -> BuiltLake:
    """Writes the lake under ``root``, with one unit that never finished in it."""
    windows: dict[str, pd.DataFrame] = {}
    events: dict[str, pd.DataFrame] = {}
    for model in models:
        rows = [_archive(model, number) for number in range(len(ARCHIVES))]
        for archive_windows, archive_events, period in rows:
            _write(root, "windows", model, period, archive_windows)
            _write(root, "events", model, period, archive_events)
        _write(root, "archives", model, None, _manifest(model), name="manifest")
        _write(root, "rejects", model, None, _rejects(model))
        _write_unfinished(root, model, rows[0][0])
        table = pa.concat_tables([archive_windows for archive_windows, _, _ in rows])
        lancedb.connect(root / "lance").create_table("windows_" + model.replace("-", "_"), table)
        windows[model] = table.to_pandas()
        events[model] = pa.concat_tables([archive_events for _, archive_events, _ in rows]).to_pandas()
    return BuiltLake(uri=str(root), windows=windows, events=events)


def archive_id(number: int) -> str:
    return hashlib.sha256(f"archive {number}".encode()).hexdigest()[:32]


def _archive(model: str, number: int) -> tuple[pa.Table, pa.Table, str]:
    """Windows, events and period of one archive."""
    _, period = ARCHIVES[number]
    windows = [
        _window(model, number, event, lead, start)
        for event in range(len(EVENTS))
        for lead in range(len(LEADS))
        for start in STARTS
    ]
    events = [_event(model, number, event, windows) for event in range(len(EVENTS))]
    return (
        pa.Table.from_pylist(windows, schemas.windows(DIMS[model])),
        pa.Table.from_pylist(events, schemas.EVENTS),
        period,
    )


def _window(model: str, number: int, event: int, lead: int, start: int) -> dict[str, Any]:
    patient, period = ARCHIVES[number]
    (lead_name, lead_number), event_id = LEADS[lead], EVENTS[event]
    rng = np.random.default_rng([DIMS[model], number, event, lead, start])
    prefix = f"{patient}_{period}/{event_id}/{lead_name}/{start}"
    error = round(float(rng.uniform(0.01, 0.3)), 3)
    is_anomaly = error > 0.15
    score = round(error * 10 + lead, 3)  # another order than that of the errors
    chunk = f"chunk_{patient}_{period}_{event_id[6:]}{lead_number}_{start}"
    return {
        "window_id": f"{prefix}@{archive_id(number)[:12]}",
        "model_id": model,
        "chunk_id": chunk,
        "seed_chunk_id": f"chunk_{event_id[6:]}{lead_number}",
        "vector_id": f"vec_{chunk}",
        **_event_key(number, event),
        "lead": lead_name,
        "lead_number": lead_number,
        "start_sample": start,
        "num_samples": 8,
        "is_tail": start > 0,
        "unit": "mV",
        "embedding": _embedding(model, prefix, rng),
        "norm_offset": 0.1,
        "norm_scale": 0.5,
        "beats": [3, 9],
        "reconstruction_error": error,
        "worst_error": error * 4,
        "mae": error / 2,
        "mse_raw": error * 0.25,
        "num_beats": 0 if start else 3,
        "ecg_rate": None if start else 72.0,
        "rr_irregularity": None if start else 0.02,
        "rr_sd": None if start else 0.01,
        "signal_rms": 0.4,
        "detector_set": f"{model}+0a1b2c3d",
        "scores": [
            {"detector": "worst_error", "score": error * 4},
            {"detector": "ensemble", "score": score},
        ],
        "detector": "ensemble",
        "anomaly_score": score,
        "threshold": 1.5 + lead,
        "threshold_condition": 1.0,
        "threshold_profile": "seed",
        "threshold_version": "1",
        "is_anomaly": is_anomaly,
        "is_anomaly_condition": error > 0.1,
        "anomaly_status": "anomaly" if is_anomaly else "normal",
        "anomaly_type": TYPES[int(rng.integers(len(TYPES)))] if is_anomaly else None,
        "rhythm_class": "Normal",
        "rate_class": "Normal",
        "quality_score": 90.0,
        "quality_flags": ["noise"] if start else [],
        **_versions(number),
        "code_version": "0.1.0+test",
    }


def _embedding(model: str, prefix: str, rng: np.random.Generator) -> list[float]:
    if model == MODEL_A and prefix in PLANTED:
        return [[3.0, -2.0, 1.0, 0.5], [6.0, -4.0, 2.0, 1.01]][PLANTED.index(prefix)]
    return [float(value) for value in rng.normal(size=DIMS[model])]


def _event(model: str, number: int, event: int, windows: list[dict[str, Any]]) -> dict[str, Any]:
    own = [window for window in windows if window["event_id"] == EVENTS[event]]
    time = _event_key(number, event)["event_time"]
    return {
        "event_uid": f"{archive_id(number)}/{EVENTS[event]}",
        "model_id": model,
        **_event_key(number, event),
        "leads": [lead for lead, _ in LEADS],
        "vitals": [
            {
                "name": "HR",
                "value": 80.0,
                "units": "bpm",
                "time": time,
                "history": [{"time": time, "value": 79.0}],
            },
            {"name": "SpO2", "value": None, "units": "%", "time": None, "history": []},
        ],
        "pacer_type": 1 if number == 0 else None,
        "problems": ["missing_lead"],
        "quality_score": 90.0,
        "num_windows": len(own),
        "num_anomalous": sum(window["is_anomaly"] for window in own),
        "num_anomalous_condition": sum(window["is_anomaly_condition"] for window in own),
        "verdict": "Tachycardia" if event else "Normal",
        "verdict_support": 2,
        "verdict_rule": "severity",
        **_versions(number),
    }


def _event_key(number: int, event: int) -> dict[str, Any]:
    """The columns that windows and events share."""
    patient, period = ARCHIVES[number]
    time = datetime.fromisoformat(f"{period}-10T08:00:00+00:00") + timedelta(hours=event, minutes=number)
    return {
        "archive_id": archive_id(number),
        "patient_id": patient,
        "event_id": EVENTS[event],
        "event_uuid": f"uuid-{number}-{event}",
        "event_time": None if (number, event) == (3, 1) else time,
        "condition": CONDITIONS[(number + event) % len(CONDITIONS)],
        "heart_rate": None if number == 2 else 60.0 + 10 * number,
    }


def _versions(number: int) -> dict[str, str]:
    return {"run_id": RUN_ID, "unit_id": f"unit-{number}"}


def _manifest(model: str) -> pa.Table:
    base = {"model_id": model, "size": 1000, "etag": "e", "modified_time": COMMITTED, "attempts": 1}
    counts = {"degraded": False, "num_events": 2, "num_windows": 12, "num_rejects": 0, "run_id": RUN_ID}
    rows: list[dict[str, Any]] = [
        {
            **base,
            **counts,
            "uri": f"/archives/{patient}_{period}.h5",
            "archive_id": archive_id(number),
            "status": "committed",
            "patient_id": patient,
            "period": period,
            "variant": "v3",
            "unit_id": f"unit-{number}",
            "committed_time": COMMITTED + timedelta(minutes=number),
        }
        for number, (patient, period) in enumerate(ARCHIVES)
    ]
    copy = {**rows[0], "uri": "/archives/copy.h5", "status": "skipped", "unit_id": "unit-9"}
    broken = {
        **rows[0],
        "uri": "/archives/broken.h5",
        "archive_id": None,
        "status": "quarantined",
        "error": "not_hdf5: no signature",
        "unit_id": "unit-9",
    }
    return pa.Table.from_pylist([*rows, copy, broken], schemas.ARCHIVES)


def _rejects(model: str) -> pa.Table:
    def row(uri: str, level: str, place: str, reason: str, unit: str) -> dict[str, Any]:
        run = {"run_id": RUN_ID, "unit_id": unit, "model_id": model, "detail": "…"}
        return {**run, "uri": uri, "level": level, "place": place, "reason": reason}

    rows = [
        row("/archives/broken.h5", "archive", "", "not_hdf5", "unit-9"),
        row("/archives/PT1000_2025-08.h5", "window", "event_1001/ecg/aVL", "missing_lead", "unit-0"),
        row("/archives/PT1000_2025-08.h5", "window", "event_1002/ecg/aVL", "missing_lead", "unit-0"),
        row("/archives/PT1000_2025-08.h5", "window", "event_1002/ecg/aVF", "missing_lead", "unit-killed"),
    ]
    return pa.Table.from_pylist(rows, schemas.REJECTS)


def _write(
    root: Path, table: str, model: str, period: str | None, rows: pa.Table, name: str | None = None
) -> None:
    folder = root / table / f"model={model}" / ("" if period is None else f"period={period}")
    folder.mkdir(parents=True, exist_ok=True)
    unit = name or (rows["unit_id"][0].as_py() if period else "unit-9")
    pq.write_table(rows, folder / f"{unit}.parquet", compression="zstd")


def _write_unfinished(root: Path, model: str, windows: pa.Table) -> None:
    """A part that a killed unit left: rows of a committed archive, of a unit that is in no manifest."""
    place = windows.schema.get_field_index("unit_id")
    unit = pa.array(["unit-killed"] * windows.num_rows, pa.string())
    _write(root, "windows", model, "2025-08", windows.set_column(place, windows.schema.field(place), unit))
