"""Windows of archives, with what training has to know of each.

Shapes: N windows, T samples of a window.
"""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from rmsai_ray.archives.labels import normal_windows
from rmsai_ray.archives.reader import ReadOptions, read_archive
from rmsai_ray.archives.records import Event
from rmsai_ray.archives.sources import ArchiveSource, open_source
from rmsai_ray.errors import ArchiveError, ConfigError
from rmsai_ray.ids import digest, event_uid
from rmsai_ray.models.bundle import ModelSpec
from rmsai_ray.signals.quality import fill_gaps
from rmsai_ray.signals.resampling import resample
from rmsai_ray.signals.windows import Windows, cut_windows

log = logging.getLogger(__name__)

MAX_MISSING_FRACTION = 0.05
"""A lead of which more had to be interpolated teaches interpolation."""
SMALLEST_STD_MV = 0.02
"""A flat line teaches nothing, and scaled to unit variance it is noise."""


@dataclass(frozen=True)
class WindowLabels:
    """What is known of N windows beside their signals."""

    leads_N: npt.NDArray[np.str_]
    patients_N: npt.NDArray[np.str_]
    conditions_N: npt.NDArray[np.str_]
    is_normal_N: npt.NDArray[np.bool_]
    """As :func:`rmsai_ray.archives.labels.normal_windows` has it."""

    def __len__(self) -> int:
        return len(self.leads_N)

    def take(self, rows: npt.NDArray[Any]) -> Self:
        """The windows that a mask or an index array selects."""
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def of_patients(self, patients: Sequence[str]) -> Self:
        """The windows of these patients."""
        return self.take(np.isin(self.patients_N, patients))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """All windows of all parts, in order; at least one part."""
        return cls(
            **{
                field.name: np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(cls)
            }
        )


@dataclass(frozen=True, kw_only=True)
class WindowSet(WindowLabels):
    """N windows with what training has to know of each."""

    signals_NT: npt.NDArray[np.float32]
    """In the signal's unit."""
    num_samples_N: npt.NDArray[np.int32]
    """Real samples; the rest is padding."""


@dataclass(frozen=True)
class TrainingData:
    """Everything that was read for a training."""

    windows: WindowSet
    patients_by_source: dict[str, tuple[str, ...]]
    """Patients with windows, sorted, by archive URI."""
    data_hash: str
    """Over the contents of all archives, whatever their names and order."""
    left_out: dict[str, int]
    """Archives by reason code; leads and windows as ``missing_samples`` and ``flat``."""


def read_training_data(archive_uris: Sequence[str], spec: ModelSpec) -> TrainingData:
    """The windows of all archives below the URIs; archives that cannot be used are counted and left out.

    Raises:
        ConfigError: no window at all.
    """
    parts: list[WindowSet] = []
    left_out: Counter[str] = Counter()
    patients_by_source, hashes = {}, set()
    for uri in archive_uris:
        patients = set()
        for content_id, windows in _read_source(uri, spec, left_out):
            if content_id not in hashes:
                hashes.add(content_id)
                parts.append(windows)
                patients.update(windows.patients_N.tolist())
        patients_by_source[uri] = tuple(sorted(patients))
    if not sum(map(len, parts)):
        raise ConfigError("archives", list(archive_uris), f"hold no window: {dict(left_out)}", "Name others.")
    if left_out:
        log.warning("left out: %s", dict(left_out))
    return TrainingData(
        windows=WindowSet.concatenate(parts),
        patients_by_source=patients_by_source,
        data_hash=digest(sorted(hashes)),
        left_out=dict(left_out),
    )


def _read_source(uri: str, spec: ModelSpec, left_out: Counter[str]) -> Iterator[tuple[str, WindowSet]]:
    """(content hash, windows) of every archive, in order of their names."""
    source = open_source(uri)
    for ref in sorted(source.list_archives(), key=lambda ref: ref.key):
        read = read_windows(source, ref.uri, spec, left_out=left_out)
        if read is not None:
            yield read


def read_windows(
    source: ArchiveSource,
    uri: str,
    spec: ModelSpec,
    *,
    cohort: Set[str] | None = None,
    left_out: Counter[str],
) -> tuple[str, WindowSet] | None:
    """Content hash and windows of one archive in a fixed order; None where it has none.

    Args:
        source: where the archive is.
        uri: which one.
        spec: which windows of which leads.
        cohort: :func:`~rmsai_ray.ids.event_uid` of the events to take; None for all.
        left_out: counts by reason, added to.
    """
    try:
        archive = read_archive(source.read(uri), uri, options=ReadOptions(vitals=False))
    except ArchiveError as error:
        left_out[error.reason] += 1
        return None
    left_out.update(problem.code for problem in archive.problems if problem.severity == "fatal")
    parts = [
        part
        for event in archive.events
        if cohort is None or event_uid(archive.archive_id, event.event_id) in cohort
        for lead in spec.leads
        if lead in event.leads and (part := _windows_of(event, lead, archive.patient_id, spec, left_out))
    ]
    return (archive.archive_id, WindowSet.concatenate(parts)) if parts else None


def _windows_of(
    event: Event, lead: str, patient_id: str, spec: ModelSpec, left_out: Counter[str]
) -> WindowSet | None:
    signal = event.leads[lead]
    filled_T, missing_T = fill_gaps(signal.samples)
    if len(missing_T) == 0 or missing_T.mean() > MAX_MISSING_FRACTION:
        left_out["missing_samples"] += 1
        return None
    resampled_T = resample(filled_T, signal.fs, spec.sampling_rate_hz)
    windows = cut_windows(resampled_T, spec.window_samples, spec.stride_samples)
    num_windows = len(windows.starts_N)
    window_set = WindowSet(
        signals_NT=windows.samples_NT,
        num_samples_N=windows.num_samples_N,
        leads_N=np.full(num_windows, lead),
        patients_N=np.full(num_windows, patient_id),
        conditions_N=np.full(num_windows, event.condition),
        is_normal_N=normal_windows(
            event.condition,
            event.ecg_extras,
            windows.starts_N,
            windows.starts_N + windows.num_samples_N,
            signal.fs / spec.sampling_rate_hz,
        ),
    )
    is_flat_N = _std(windows) < SMALLEST_STD_MV
    left_out.update({"flat": int(is_flat_N.sum())} if is_flat_N.any() else {})
    return window_set.take(~is_flat_N)


def _std(windows: Windows) -> npt.NDArray[np.float32]:
    return np.array(
        [row[:n].std() for row, n in zip(windows.samples_NT, windows.num_samples_N, strict=True)], np.float32
    )
