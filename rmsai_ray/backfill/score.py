"""Adds to a unit what the model and the thresholds say: embeddings, errors, decisions and event verdicts."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rmsai_ray.detection.decisions import UNKNOWN, decide
from rmsai_ray.detection.detector_set import DetectorSet
from rmsai_ray.detection.detectors import DETECTORS, Measured
from rmsai_ray.detection.rows import rhythm_of, scores_column
from rmsai_ray.detection.thresholds import ThresholdProfile
from rmsai_ray.detection.verdicts import KINDS, event_verdicts
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
    signal = _whole(windows["signal"])
    signals_NT = signal.flatten().to_numpy().reshape(len(signal), -1)
    lead_N, leads = _whole(windows["lead"]), windows["lead"].to_pylist()
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
        score_N,
        lead_N,
        _whole(windows["condition"]),
        windows["heart_rate"].to_numpy(),
        scoring.profile,
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
    """One verdict per event, from its windows; an event without windows is not judged.

    The windows of an event follow each other, in the order of the events.
    """
    num_windows_E = events["num_windows"].to_numpy()
    event_N = np.repeat(np.arange(len(events)), num_windows_E)
    kind_N = pc.index_in(windows["anomaly_type"], pa.array(KINDS)).fill_null(0).to_numpy()
    support_EK = np.bincount(event_N * len(KINDS) + kind_N, minlength=len(events) * len(KINDS))
    verdicts, support_E = event_verdicts(support_EK.reshape(-1, len(KINDS)), scoring.verdict_rule)
    is_judged_E = num_windows_E > 0
    columns: dict[str, Any] = {
        **{name: events[name] for name in events.column_names},
        "quality_score": pa.array(
            _totals(windows["quality_score"], event_N, len(events)) / np.maximum(num_windows_E, 1),
            mask=~is_judged_E,
        ).cast(pa.float32()),
        "num_anomalous": _totals(windows["is_anomaly"], event_N, len(events)).astype(np.int32),
        "num_anomalous_condition": _totals(windows["is_anomaly_condition"], event_N, len(events)).astype(
            np.int32
        ),
        "verdict": np.where(is_judged_E, verdicts, UNKNOWN),
        "verdict_support": support_E,
        "verdict_rule": pa.repeat(scoring.verdict_rule, len(events)),
    }
    return pa.table({name: columns[name] for name in schemas.EVENTS.names}, schema=schemas.EVENTS)


def _totals(
    values: pa.ChunkedArray, event_N: npt.NDArray[np.int64], num_events: int
) -> npt.NDArray[np.float64]:
    """Sums over the windows of each event."""
    totals = np.bincount(event_N, weights=values.to_numpy().astype(np.float64), minlength=num_events)
    return np.asarray(totals, np.float64)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """As one array; without a copy where it is one already."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
