"""Adds to a unit what the model and the thresholds say: embeddings, errors, decisions and event verdicts."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rmsai_ray.detection.decisions import decide
from rmsai_ray.detection.detector_set import DetectorSet
from rmsai_ray.detection.detectors import DETECTORS, Measured
from rmsai_ray.detection.rows import rhythm_of, scores_column
from rmsai_ray.detection.thresholds import ThresholdProfile
from rmsai_ray.detection.verdicts import event_verdict
from rmsai_ray.encoding.encoder import WindowEncoder
from rmsai_ray.tables import schemas
from rmsai_ray.tables.blocks import UnitTables


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """The rules of a run; small enough to travel with every task."""

    profile: ThresholdProfile
    detector: str
    """Whose score is the anomaly score."""
    verdict_rule: str
    detector_set: str | None = None
    """Id of the fitted detectors; they lie in the lake."""


def score_unit(
    unit: UnitTables, encoder: WindowEncoder, scoring: Scoring, detectors: DetectorSet | None = None
) -> UnitTables:
    """Encodes and scores the windows of a unit; the signals end here."""
    started = time.perf_counter()
    windows = _score_windows(unit.windows, encoder, scoring, detectors)
    events = _judge_events(unit.events, windows, scoring)
    seconds = {**unit.seconds, "encode": time.perf_counter() - started}
    return replace(unit, windows=windows, events=events, seconds=seconds)


def _score_windows(
    windows: pa.Table, encoder: WindowEncoder, scoring: Scoring, detectors: DetectorSet | None
) -> pa.Table:
    schema = schemas.windows(encoder.bundle.spec.embedding_dim)
    if windows.num_rows == 0:
        return schema.empty_table()
    signal = windows["signal"].combine_chunks()
    signals_NT = signal.flatten().to_numpy().reshape(len(signal), -1)
    leads = windows["lead"].to_pylist()
    encoded = encoder.encode(signals_NT, windows["num_samples"].to_numpy(), leads)
    measured = Measured(
        embedding_NE=encoded.embedding_NE,
        mse_N=encoded.mse_N,
        worst_mse_N=encoded.worst_mse_N,
        mae_N=encoded.mae_N,
        rhythm=rhythm_of(windows),
        leads_N=np.array(leads),
    )
    scores = _scores(measured, scoring.detector, detectors)
    score_N = scores[scoring.detector]
    decisions = decide(
        score_N, leads, windows["condition"].to_pylist(), windows["heart_rate"].to_pylist(), scoring.profile
    )
    embedding_type = schema.field("embedding").type
    embedding = pa.FixedSizeListArray.from_arrays(encoded.embedding_NE.ravel(), type=embedding_type)
    columns: dict[str, Any] = {
        **{name: windows[name] for name in windows.column_names},
        "embedding": embedding,
        "norm_offset": encoded.offset_N,
        "norm_scale": encoded.scale_N,
        "beats": encoded.beats_N,
        "reconstruction_error": encoded.mse_N,
        "worst_error": encoded.worst_mse_N,
        "mae": encoded.mae_N,
        "mse_raw": encoded.mse_raw_N,
        "detector_set": pa.repeat(pa.scalar(scoring.detector_set, pa.string()), len(signal)),
        "scores": scores_column(scores, len(signal)),
        "detector": pa.repeat(scoring.detector, len(signal)),
        "anomaly_score": score_N,
        "threshold_profile": pa.repeat(scoring.profile.name, len(signal)),
        "threshold_version": pa.repeat(scoring.profile.version, len(signal)),
        **vars(decisions),
    }
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _scores(
    measured: Measured, detector: str, detectors: DetectorSet | None
) -> dict[str, npt.NDArray[np.float32]]:
    """Scores by every detector of the set and the ensemble, and by ``detector`` where it is none of them."""
    scores = detectors.scores(measured) if detectors else {}
    if detector not in scores:
        scores[detector] = DETECTORS.get(detector)().anomaly_score(measured)
    return scores


def _judge_events(events: pa.Table, windows: pa.Table, scoring: Scoring) -> pa.Table:
    """One verdict per event, from its windows; an event without windows is not judged."""
    needed = ["archive_id", "event_id", "anomaly_type", "is_anomaly", "is_anomaly_condition", "quality_score"]
    by_event: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in windows.select(needed).to_pylist():
        by_event[row["archive_id"], row["event_id"]].append(row)
    judged = []
    for event in events.to_pylist():
        rows = by_event[event["archive_id"], event["event_id"]]
        verdict, support = event_verdict([row["anomaly_type"] for row in rows], scoring.verdict_rule)
        judged.append(
            event
            | {
                "quality_score": float(np.mean([row["quality_score"] for row in rows])) if rows else None,
                "num_anomalous": sum(row["is_anomaly"] for row in rows),
                "num_anomalous_condition": sum(row["is_anomaly_condition"] for row in rows),
                "verdict": verdict if rows else "Unknown",
                "verdict_support": support,
                "verdict_rule": scoring.verdict_rule,
            }
        )
    return pa.Table.from_pylist(judged, schemas.EVENTS)
