"""Archives → columns of windows, events and rejects: what is known of them before a model has seen them.

Shapes: N windows, T samples of a window.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rmsai_ray import ids
from rmsai_ray.archives.records import Archive, Event, Signal, Vital
from rmsai_ray.detection.rows import rhythm_columns
from rmsai_ray.models.bundle import ModelSpec
from rmsai_ray.signals.leads import LEAD_NUMBERS
from rmsai_ray.signals.quality import assess, fill_gaps
from rmsai_ray.signals.resampling import resample, resample_mask
from rmsai_ray.signals.rhythm import rhythm
from rmsai_ray.signals.windows import Windows, count_in_windows, cut_windows
from rmsai_ray.tables import schemas

SCORED_WINDOW_COLUMNS = (
    "embedding", "norm_offset", "norm_scale", "beats",
    "reconstruction_error", "worst_error", "mae", "mse_raw",
    "detector_set", "scores", "detector", "anomaly_score",
    "threshold", "threshold_condition", "threshold_profile", "threshold_version",
    "is_anomaly", "is_anomaly_condition", "anomaly_status", "anomaly_type", "rhythm_class", "rate_class",
)  # fmt: skip
SCORED_EVENT_COLUMNS = (
    "num_anomalous", "num_anomalous_condition", "verdict", "verdict_support", "verdict_rule",
)  # fmt: skip
"""Columns of the final tables that encoding and scoring add."""

FloatArray = npt.NDArray[np.float32]

MAX_MISSING_FRACTION = 0.5
"""A window of which more was interpolated is rejected."""

LOST_LEADS = ("unreadable_lead", "empty_signal")
"""Problems that cost all windows of a lead that the archive holds."""

LAST_EPOCH_S = 253_402_300_800.0
"""The year 10000."""


class UnitRows:
    """Collects the rows of one unit, archive by archive."""

    def __init__(self, run_id: str, model_id: str, unit_id: str, spec: ModelSpec, code_version: str) -> None:
        self.unit_id = unit_id
        self._spec = spec
        self._code_version = code_version
        self._common = {"model_id": model_id, "run_id": run_id, "unit_id": unit_id}
        self._windows: dict[str, list[Any]] = defaultdict(list)
        self._signals: list[FloatArray] = []
        self._missing: list[npt.NDArray[np.int32]] = []
        self._events: list[dict[str, Any]] = []
        self._rejects: list[dict[str, Any]] = []

    def add_archive(
        self, archive: Archive, uri: str, leads: tuple[str, ...], *, tail: bool
    ) -> dict[str, Any]:
        """Adds an archive's events and windows; returns what its manifest row learns from them."""
        rejects_before, windows_before = len(self._rejects), len(self._windows["window_id"])
        for problem in archive.problems:
            if problem.severity == "fatal":
                self.reject(uri, archive.archive_id, "event", problem.where, problem.code, problem.detail)
        codes = [problem.code for problem in archive.problems]
        for event in archive.events:
            for problem in event.problems:
                if problem.code in LOST_LEADS and problem.where.rpartition("/")[2] in leads:
                    self.reject(uri, archive.archive_id, "lead", problem.where, problem.code, problem.detail)
            num_windows = sum(
                self._add_lead(archive, event, lead, uri, tail=tail) for lead in leads if lead in event.leads
            )
            self._events.append(self._event_row(archive, event, codes, num_windows))
        return {
            "patient_id": archive.patient_id,
            "period": archive.period,
            "variant": archive.variant,
            "degraded": archive.status == "degraded",
            "num_events": len(archive.events),
            "num_windows": len(self._windows["window_id"]) - windows_before,
            "num_rejects": len(self._rejects) - rejects_before,
        }

    def reject(
        self, uri: str, archive_id: str | None, level: str, place: str, reason: str, detail: str
    ) -> None:
        """Adds a row for something that is lost."""
        row = {
            "uri": uri,
            "archive_id": archive_id,
            "level": level,
            "place": place,
            "reason": reason,
            "detail": detail[:1000],
        }
        self._rejects.append(row | self._common)

    def tables(self) -> tuple[pa.Table, pa.Table, pa.Table]:
        """(windows without scores but with signals, events without verdicts, rejects)."""
        events = pa.Table.from_pylist(self._events, read_events_schema())
        rejects = pa.Table.from_pylist(self._rejects, schemas.REJECTS)
        return self._windows_table(), events, rejects

    def _add_lead(self, archive: Archive, event: Event, lead: str, uri: str, *, tail: bool) -> int:
        """Adds the windows of one lead; returns how many were kept."""
        signal = event.leads[lead]
        windows, missing_N = self._cut(signal, tail=tail)
        kept_N = missing_N <= MAX_MISSING_FRACTION * windows.num_samples_N
        if len(kept_N) == 0:
            self.reject(
                uri, archive.archive_id, "lead", f"{event.event_id}/ecg/{lead}", "empty_signal", "no samples"
            )
        for start, num_missing in zip(
            windows.starts_N[~kept_N].tolist(), missing_N[~kept_N].tolist(), strict=True
        ):
            place = f"{event.event_id}/ecg/{lead}[{start}:{start + self._spec.window_samples}]"
            detail = f"{num_missing} samples are not finite"
            self.reject(uri, archive.archive_id, "window", place, "nan_samples", detail)
        self._signals.append(windows.samples_NT[kept_N])
        self._missing.append(missing_N[kept_N])
        self._add_identity(archive, event, lead, signal.unit, windows, kept_N)
        return int(kept_N.sum())

    def _cut(self, signal: Signal, *, tail: bool) -> tuple[Windows, npt.NDArray[np.int32]]:
        """Windows at the model's rate, and how many samples of each had to be interpolated."""
        spec = self._spec
        filled_T, missing_T = fill_gaps(signal.samples)
        resampled_T = resample(filled_T, signal.fs, spec.sampling_rate_hz)
        windows = cut_windows(resampled_T, spec.window_samples, spec.stride_samples, tail=tail)
        if not missing_T.any():
            return windows, np.zeros(len(windows.starts_N), np.int32)
        missing_T = resample_mask(missing_T, signal.fs, spec.sampling_rate_hz)
        return windows, count_in_windows(missing_T, windows)

    def _add_identity(
        self,
        archive: Archive,
        event: Event,
        lead: str,
        unit: str,
        windows: Windows,
        kept_N: npt.NDArray[np.bool_],
    ) -> None:
        number = LEAD_NUMBERS[lead]
        starts = windows.starts_N[kept_N].tolist()
        chunks = [ids.chunk_id(archive.stem, event.event_id, number, start) for start in starts]
        varying = {
            "window_id": [
                ids.window_id(
                    archive.patient_id, archive.period, event.event_id, lead, start, archive.archive_id
                )
                for start in starts
            ],
            "chunk_id": chunks,
            "vector_id": [f"vec_{chunk}" for chunk in chunks],
            "start_sample": starts,
            "num_samples": windows.num_samples_N[kept_N].tolist(),
            "is_tail": windows.is_tail_N[kept_N].tolist(),
        }
        constant = {
            "seed_chunk_id": ids.seed_chunk_id(event.event_id, number),
            "archive_id": archive.archive_id,
            "patient_id": archive.patient_id,
            "event_id": event.event_id,
            "event_uuid": event.uuid,
            "event_time": to_time(event.time_s),
            "lead": lead,
            "lead_number": number,
            "unit": unit,
            "condition": event.condition,
            "heart_rate": event.heart_rate_bpm,
        }
        for name, values in varying.items():
            self._windows[name].extend(values)
        for name, value in constant.items():
            self._windows[name].extend([value] * len(starts))

    def _windows_table(self) -> pa.Table:
        schema = read_windows_schema(self._spec.window_samples)
        if not self._windows["window_id"]:
            return schema.empty_table()
        signals_NT = np.concatenate(self._signals)
        quality_score_N, quality_flags_N = self._assess(signals_NT)
        common = {**self._common, "code_version": self._code_version}
        columns = {
            **self._windows,
            **{name: pa.repeat(value, len(signals_NT)) for name, value in common.items()},
            "quality_score": quality_score_N,
            "quality_flags": quality_flags_N,
            **self._rhythm(signals_NT),
            "signal": pa.FixedSizeListArray.from_arrays(signals_NT.ravel(), self._spec.window_samples),
        }
        return pa.table({name: columns[name] for name in schema.names}, schema=schema)

    def _rhythm(self, signals_NT: FloatArray) -> dict[str, Any]:
        num_samples_N = np.asarray(self._windows["num_samples"], np.int32)
        return rhythm_columns(rhythm(signals_NT, num_samples_N, self._spec.sampling_rate_hz))

    def _assess(self, signals_NT: FloatArray) -> tuple[FloatArray, list[list[str]]]:
        """Quality score and flags of every window; what counts as flat depends on the unit."""
        score_N = np.empty(len(signals_NT), np.float32)
        flags_N: list[list[str]] = [[] for _ in signals_NT]
        units_N = np.asarray(self._windows["unit"])
        num_samples_N = np.asarray(self._windows["num_samples"], np.int32)
        missing_N = np.concatenate(self._missing)
        for unit in np.unique(units_N):
            of_unit = np.flatnonzero(units_N == unit)
            quality = assess(
                signals_NT[of_unit],
                num_samples_N[of_unit],
                self._spec.sampling_rate_hz,
                str(unit),
                num_missing_N=missing_N[of_unit],
            )
            score_N[of_unit] = quality.score_N
            for row, names in zip(of_unit.tolist(), quality.flag_names(), strict=True):
                flags_N[row] = names
        return score_N, flags_N

    def _event_row(
        self, archive: Archive, event: Event, archive_codes: list[str], num_windows: int
    ) -> dict[str, Any]:
        pacer = event.pacer_info
        return self._common | {
            "event_uid": ids.event_uid(archive.archive_id, event.event_id),
            "archive_id": archive.archive_id,
            "patient_id": archive.patient_id,
            "event_id": event.event_id,
            "event_uuid": event.uuid,
            "event_time": to_time(event.time_s),
            "condition": event.condition,
            "heart_rate": event.heart_rate_bpm,
            "leads": list(event.leads),
            "vitals": [_vital_row(name, vital) for name, vital in event.vitals.items()],
            "pacer_type": None if pacer is None else pacer & 0xFF,
            "pacer_rate": None if pacer is None else pacer >> 8 & 0xFF,
            "pacer_amplitude": None if pacer is None else pacer >> 16 & 0xFF,
            "pacer_flags": None if pacer is None else pacer >> 24 & 0xFF,
            "pacer_offset": event.pacer_offset,
            "ecg_extras": json.dumps(event.ecg_extras) if event.ecg_extras else None,
            "problems": sorted({*archive_codes, *(problem.code for problem in event.problems)}),
            "quality_score": None,
            "num_windows": num_windows,
        }


def read_windows_schema(window_samples: int) -> pa.Schema:
    """Columns of ``windows`` that are known before encoding, and ``signal``, float32[window_samples]."""
    final = schemas.windows(1)
    known = [field for field in final if field.name not in SCORED_WINDOW_COLUMNS]
    return pa.schema([*known, pa.field("signal", pa.list_(pa.float32(), window_samples), nullable=False)])


def read_events_schema() -> pa.Schema:
    """Columns of ``events`` that are known before encoding."""
    return pa.schema([field for field in schemas.EVENTS if field.name not in SCORED_EVENT_COLUMNS])


def to_time(epoch_s: float | None) -> int | None:
    """Epoch seconds as the microseconds of Arrow's timestamps; None for None and for what is no date."""
    return round(epoch_s * 1e6) if epoch_s is not None and abs(epoch_s) < LAST_EPOCH_S else None


def _vital_row(name: str, vital: Vital) -> dict[str, Any]:
    return {
        "name": name,
        "value": vital.value,
        "units": vital.units,
        "time": to_time(vital.time_s),
        "lower_threshold": vital.lower_threshold,
        "upper_threshold": vital.upper_threshold,
        "history": _history_rows(vital.history),
        "extras": json.dumps(vital.extras) if vital.extras else None,
    }


def _history_rows(history: Iterable[tuple[float, float]]) -> list[dict[str, Any]]:
    return [{"time": to_time(time_s), "value": value} for time_s, value in history]
