"""Archives → columns of windows, events and rejects: what is known of them before a model has seen them.

Shapes: N windows, T samples of a window, C leads that windows were cut from.
"""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rmsai_ray import ids
from rmsai_ray.archives.records import Archive, Event, Signal
from rmsai_ray.backfill.event_rows import EventRows
from rmsai_ray.detection.rows import rhythm_columns
from rmsai_ray.models.bundle import ModelSpec
from rmsai_ray.signals.leads import LEAD_NUMBERS
from rmsai_ray.signals.quality import FLAGS, assess, fill_gaps
from rmsai_ray.signals.resampling import resample, resample_mask
from rmsai_ray.signals.rhythm import rhythm
from rmsai_ray.signals.windows import WindowPlaces, copy_windows, count_in_windows, window_places
from rmsai_ray.tables import schemas

SCORED_WINDOW_COLUMNS = (
    "embedding", "norm_offset", "norm_scale", "beats",
    "reconstruction_error", "worst_error", "mae", "mse_raw",
    "detector_set", "scores", "detector", "anomaly_score",
    "threshold", "threshold_condition", "threshold_profile", "threshold_version",
    "is_anomaly", "is_anomaly_condition", "anomaly_status", "anomaly_type", "rhythm_class", "rate_class",
)  # fmt: skip
"""Columns of the final table that encoding and scoring add."""

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]

MAX_MISSING_FRACTION = 0.5
"""A window of which more was interpolated is rejected."""

LARGEST_SAMPLE = 1e15
"""In any unit; what is larger counts as missing, for float32 has no room for its square."""

LOST_LEADS = ("unreadable_lead", "empty_signal")
"""Problems that cost all windows of a lead that the archive holds."""


@dataclass(slots=True)
class _Cut:
    """The windows of one lead of one event."""

    event: int
    """Row of the event."""
    lead: str
    unit: str
    names: tuple[str, str, str, str]
    """Seed chunk id; what stands before the start in the chunk id, before and after it in the window id."""
    signal_T: FloatArray
    """At the model's rate, without gaps."""
    places: WindowPlaces
    kept_N: BoolArray | None = None
    """None for all of them."""
    missing_N: IntArray | None = None
    """Samples of each window that were interpolated; None for none."""

    def kept(self, values_N: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Those of the windows that were kept."""
        return values_N if self.kept_N is None else values_N[self.kept_N]

    def __len__(self) -> int:
        return len(self.places) if self.kept_N is None else int(self.kept_N.sum())


class UnitRows:
    """Collects the rows of one unit, archive by archive."""

    def __init__(self, run_id: str, model_id: str, unit_id: str, spec: ModelSpec, code_version: str) -> None:
        self.unit_id = unit_id
        self._spec = spec
        self._code_version = code_version
        self._common = {"model_id": model_id, "run_id": run_id, "unit_id": unit_id}
        self._cuts: list[_Cut] = []
        self._events = EventRows()
        self._rejects: list[dict[str, Any]] = []

    def add_archive(
        self, archive: Archive, uri: str, leads: tuple[str, ...], *, tail: bool
    ) -> dict[str, Any]:
        """Adds an archive's events and windows; returns what its manifest row learns from them."""
        rejects_before, num_windows = len(self._rejects), 0
        for problem in archive.problems:
            if problem.severity == "fatal":
                self.reject(uri, archive.archive_id, "event", problem.where, problem.code, problem.detail)
        codes = [problem.code for problem in archive.problems]
        for event in archive.events:
            for problem in event.problems:
                if problem.code in LOST_LEADS and problem.where.rpartition("/")[2] in leads:
                    self.reject(uri, archive.archive_id, "lead", problem.where, problem.code, problem.detail)
            of_event = sum(
                self._add_lead(archive, event, lead, uri, tail=tail) for lead in leads if lead in event.leads
            )
            self._events.add(archive, event, codes, of_event)
            num_windows += of_event
        return {
            "patient_id": archive.patient_id,
            "period": archive.period,
            "variant": archive.variant,
            "degraded": archive.status == "degraded",
            "num_events": len(archive.events),
            "num_windows": num_windows,
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
        """(windows without scores but with signals, events without verdicts, rejects).

        The windows of an event follow each other, in the order of the events.
        """
        events = self._events.table(self._common)
        rejects = pa.Table.from_pylist(self._rejects, schemas.REJECTS)
        return self._windows_table(events), events, rejects

    def _add_lead(self, archive: Archive, event: Event, lead: str, uri: str, *, tail: bool) -> int:
        """Adds the windows of one lead; returns how many were kept."""
        signal, spec = event.leads[lead], self._spec
        signal_T, missing_T = self._at_model_rate(signal)
        places = window_places(len(signal_T), spec.window_samples, spec.stride_samples, tail=tail)
        place = f"{event.event_id}/ecg/{lead}"
        if len(places) == 0:
            self.reject(uri, archive.archive_id, "lead", place, "empty_signal", "no samples")
            return 0
        missing_N, kept_N = None, None
        if missing_T is not None:
            missing_N = count_in_windows(missing_T, places)
            kept_N = missing_N <= MAX_MISSING_FRACTION * places.num_samples_N
            for lost in np.flatnonzero(~kept_N).tolist():
                start = int(places.starts_N[lost])
                where = f"{place}[{start}:{start + spec.window_samples}]"
                detail = f"{missing_N[lost]} samples are not finite"
                self.reject(uri, archive.archive_id, "window", where, "nan_samples", detail)
        names = _names(archive, event, lead)
        cut = _Cut(len(self._events), lead, signal.unit, names, signal_T, places, kept_N, missing_N)
        self._cuts.append(cut)
        return len(cut)

    def _at_model_rate(self, signal: Signal) -> tuple[FloatArray, BoolArray | None]:
        """The signal without gaps, and which of its samples had to be interpolated: None for none of them."""
        samples_T, missing_T, fs = signal.samples, None, self._spec.sampling_rate_hz
        with np.errstate(over="ignore"):
            is_usual = np.dot(samples_T, samples_T) < LARGEST_SAMPLE**2  # of NaN nothing is true
        if not is_usual:
            samples_T, missing_T = fill_gaps(np.where(abs(samples_T) <= LARGEST_SAMPLE, samples_T, np.nan))
            missing_T = resample_mask(missing_T, signal.fs, fs) if missing_T.any() else None
        if signal.fs != fs:
            samples_T = resample(samples_T, signal.fs, fs)
        return samples_T.astype(np.float32), missing_T

    def _windows_table(self, events: pa.Table) -> pa.Table:
        schema = read_windows_schema(self._spec.window_samples)
        counts_C = np.array([len(cut) for cut in self._cuts], np.int64)
        if not counts_C.sum():
            return schema.empty_table()
        signals_NT = self._signals(counts_C)
        num_samples_N = self._of_windows("num_samples_N")
        common = {**self._common, "code_version": self._code_version}
        columns = {
            **{name: pa.repeat(value, len(signals_NT)) for name, value in common.items()},
            **self._event_columns(events, counts_C),
            **self._identity(counts_C),
            "num_samples": num_samples_N,
            "is_tail": self._of_windows("is_tail_N"),
            **self._quality(signals_NT, num_samples_N, counts_C),
            **rhythm_columns(rhythm(signals_NT, num_samples_N, self._spec.sampling_rate_hz)),
            "signal": pa.FixedSizeListArray.from_arrays(signals_NT.ravel(), self._spec.window_samples),
        }
        return pa.table({name: columns[name] for name in schema.names}, schema=schema)

    def _signals(self, counts_C: npt.NDArray[np.int64]) -> FloatArray:
        signals_NT = np.empty((counts_C.sum(), self._spec.window_samples), np.float32)
        first = 0
        for cut, count in zip(self._cuts, counts_C.tolist(), strict=True):
            rows_NT = signals_NT[first : first + count]
            if cut.kept_N is None:
                copy_windows(cut.signal_T, self._spec.stride_samples, rows_NT)
            else:
                all_NT = np.empty((len(cut.kept_N), signals_NT.shape[1]), np.float32)
                copy_windows(cut.signal_T, self._spec.stride_samples, all_NT)
                rows_NT[:] = all_NT[cut.kept_N]
            first += count
        return signals_NT

    def _of_windows(self, name: str) -> npt.NDArray[Any]:
        """A field of :class:`WindowPlaces` for all windows."""
        return np.concatenate([cut.kept(getattr(cut.places, name)) for cut in self._cuts])

    def _event_columns(self, events: pa.Table, counts_C: npt.NDArray[np.int64]) -> dict[str, Any]:
        """What a window takes from its event."""
        names = (
            "archive_id", "patient_id", "event_id", "event_uuid", "event_time", "condition", "heart_rate",
        )  # fmt: skip
        event_N = pa.array(np.repeat([cut.event for cut in self._cuts], counts_C))
        return {name: events[name].combine_chunks().take(event_N) for name in names}

    def _identity(self, counts_C: npt.NDArray[np.int64]) -> dict[str, Any]:
        """What names a window, and the lead that it comes from."""
        cut_N = pa.array(np.repeat(np.arange(len(counts_C)), counts_C))
        starts_N = pa.array(self._of_windows("starts_N"))
        text_N = starts_N.cast(pa.string())
        seeds, chunks, before, after = (
            pa.array(column, pa.string()).take(cut_N)
            for column in zip(*(cut.names for cut in self._cuts), strict=True)
        )
        chunk_id = pc.binary_join_element_wise(chunks, text_N, "")
        return {
            "window_id": pc.binary_join_element_wise(before, text_N, after, ""),
            "chunk_id": chunk_id,
            "seed_chunk_id": seeds,
            "vector_id": pc.binary_join_element_wise("vec_", chunk_id, ""),
            "start_sample": starts_N,
            "lead": pa.array([cut.lead for cut in self._cuts]).take(cut_N),
            "lead_number": pa.array([LEAD_NUMBERS[cut.lead] for cut in self._cuts], pa.int8()).take(cut_N),
            "unit": pa.array([cut.unit for cut in self._cuts]).take(cut_N),
        }

    def _quality(
        self, signals_NT: FloatArray, num_samples_N: IntArray, counts_C: npt.NDArray[np.int64]
    ) -> dict[str, Any]:
        """Quality score and flags of every window; what counts as flat depends on the unit."""
        score_N = np.empty(len(signals_NT), np.float32)
        raised_NF = np.empty((len(signals_NT), len(FLAGS)), np.bool_)
        missing_N = np.concatenate(
            [
                np.zeros(count, np.int32) if cut.missing_N is None else cut.kept(cut.missing_N)
                for cut, count in zip(self._cuts, counts_C.tolist(), strict=True)
            ]
        )
        units = [cut.unit for cut in self._cuts]
        for unit in sorted(set(units)):
            rows = _rows(np.repeat([other == unit for other in units], counts_C))
            quality = assess(
                signals_NT[rows],
                num_samples_N[rows],
                self._spec.sampling_rate_hz,
                unit,
                num_missing_N=missing_N[rows],
            )
            score_N[rows], raised_NF[rows] = quality.score_N, quality.raised_NF
        return {"quality_score": score_N, "quality_flags": _flags_column(raised_NF)}


def _names(archive: Archive, event: Event, lead: str) -> tuple[str, str, str, str]:
    number = LEAD_NUMBERS[lead]
    return (
        ids.seed_chunk_id(event.event_id, number),
        ids.chunk_id_before_start(archive.stem, event.event_id, number),
        *ids.window_id_around_start(
            archive.patient_id, archive.period, event.event_id, lead, archive.archive_id
        ),
    )


def _rows(is_wanted_N: BoolArray) -> slice | npt.NDArray[np.int64]:
    """A slice, which copies nothing, where all are wanted."""
    return slice(None) if is_wanted_N.all() else np.flatnonzero(is_wanted_N)


def _flags_column(raised_NF: BoolArray) -> pa.Array:
    """The names of the raised flags of each window."""
    _, flags = np.nonzero(raised_NF)
    ends_N = np.cumsum(np.count_nonzero(raised_NF, axis=1), dtype=np.int32)
    names = pa.array(FLAGS).take(pa.array(flags))
    return pa.ListArray.from_arrays(np.concatenate([np.zeros(1, np.int32), ends_N]), names)


def read_windows_schema(window_samples: int) -> pa.Schema:
    """Columns of ``windows`` that are known before encoding, and ``signal``, float32[window_samples]."""
    final = schemas.windows(1)
    known = [field for field in final if field.name not in SCORED_WINDOW_COLUMNS]
    return pa.schema([*known, pa.field("signal", pa.list_(pa.float32(), window_samples), nullable=False)])
