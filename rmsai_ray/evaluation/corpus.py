"""Archives as an evaluation needs them: windows of all leads, the moments that they show, and their labels.

Shapes: N windows, U moments (a stretch of time of one event, seen by one window per lead), T samples.
"""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rmsai_ray.archives.labels import BEAT_SYMBOLS, normal_windows
from rmsai_ray.archives.reader import ReadOptions, read_archive
from rmsai_ray.archives.records import Archive, Event
from rmsai_ray.archives.sources import open_source
from rmsai_ray.errors import ArchiveError, ConfigError
from rmsai_ray.ids import digest
from rmsai_ray.models.bundle import ModelSpec
from rmsai_ray.signals.quality import fill_gaps
from rmsai_ray.signals.resampling import resample
from rmsai_ray.signals.windows import Windows, cut_windows
from rmsai_ray.training.data import WindowSet

VITALS = ("HR", "Pulse", "SpO2", "Systolic", "Diastolic", "RespRate", "Temp")


@dataclass(frozen=True)
class Beats:
    """Annotated beats of one moment."""

    places: npt.NDArray[np.float64]
    """Samples from the start of the moment's windows, at the model's rate."""
    symbols: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """Everything that one evaluation reads."""

    windows: WindowSet
    moment_N: npt.NDArray[np.int64]
    """Row of ``moments`` that each window belongs to."""
    moments: pd.DataFrame
    """One row a moment, in order of archive and time: ``patient record event_id condition is_normal start_s
    duration_s facts`` and the vital signs, NaN where there are none."""
    beats: tuple[Beats, ...]
    """By moment."""
    data_hash: str
    left_out: dict[str, int]
    """Archives by reason code; leads without a single sample as ``empty_lead``."""

    def of_moments(self, keep_U: npt.NDArray[Any]) -> Corpus:
        """The moments that a mask selects, with their windows."""
        kept = np.flatnonzero(keep_U)
        new_place_U = np.full(len(self.moments), -1)
        new_place_U[kept] = np.arange(len(kept))
        rows = new_place_U[self.moment_N] >= 0
        return Corpus(
            windows=self.windows.take(rows),
            moment_N=new_place_U[self.moment_N[rows]],
            moments=self.moments.iloc[kept].reset_index(drop=True),
            beats=tuple(self.beats[u] for u in kept),
            data_hash=self.data_hash,
            left_out=self.left_out,
        )

    def of_patients(self, patients: Sequence[str]) -> Corpus:
        """The moments of these patients."""
        return self.of_moments(self.moments["patient"].isin(patients).to_numpy())

    @property
    def patients(self) -> list[str]:
        """Sorted."""
        return sorted(set(self.moments["patient"]))


def read_corpus(archive_uris: Sequence[str], spec: ModelSpec) -> Corpus:
    """Every window of every archive below the URIs; none is left out for being odd, flat or noisy.

    Args:
        archive_uris: folders, prefixes or archives.
        spec: the model's window, stride, rate and leads.

    Raises:
        ConfigError: no window at all.
    """
    left_out: Counter[str] = Counter()
    hashes: set[str] = set()
    moments: list[_Moment] = []
    for archive in _read_archives(archive_uris, left_out, hashes):
        for event in archive.events:
            moments += _moments_of(archive, event, spec, spec.leads, left_out)
    if not moments:
        raise ConfigError("archives", list(archive_uris), f"hold no window: {dict(left_out)}", "Name others.")
    return _assemble(moments, digest(sorted(hashes)), dict(left_out))


@dataclass(frozen=True)
class _Moment:
    signals_LT: npt.NDArray[np.float32]
    num_samples: int
    leads: tuple[str, ...]
    row: dict[str, Any]
    beats: Beats


def _read_archives(
    archive_uris: Sequence[str], left_out: Counter[str], hashes: set[str]
) -> Iterator[Archive]:
    """Each content once, in order of names."""
    for uri in archive_uris:
        source = open_source(uri)
        for ref in sorted(source.list_archives(), key=lambda ref: ref.key):
            try:
                archive = read_archive(source.read(ref.uri), ref.uri, options=ReadOptions(vitals=True))
            except ArchiveError as error:
                left_out[error.reason] += 1
                continue
            if archive.archive_id not in hashes:
                hashes.add(archive.archive_id)
                yield archive


def _moments_of(
    archive: Archive, event: Event, spec: ModelSpec, leads: Sequence[str], left_out: Counter[str]
) -> Iterator[_Moment]:
    cut = {lead: _cut(event, lead, spec) for lead in leads if lead in event.leads}
    left_out["empty_lead"] += sum(windows is None for windows in cut.values())
    present = {lead: windows for lead, windows in cut.items() if windows is not None}
    if not present:
        return
    first_lead, first = next(iter(present.items()))
    rate_ratio = event.leads[first_lead].fs / spec.sampling_rate_hz
    is_normal_N = normal_windows(
        event.condition, event.ecg_extras, first.starts_N, first.starts_N + first.num_samples_N, rate_ratio
    )
    for i, (start, num_samples) in enumerate(zip(first.starts_N, first.num_samples_N, strict=True)):
        same = {lead: windows for lead, windows in present.items() if len(windows.starts_N) > i}
        yield _Moment(
            signals_LT=np.stack([windows.samples_NT[i] for windows in same.values()]),
            num_samples=int(num_samples),
            leads=tuple(same),
            row=_row(archive, event, bool(is_normal_N[i]), int(start), int(num_samples), spec),
            beats=_beats(event, int(start), int(start) + int(num_samples), rate_ratio),
        )


def _cut(event: Event, lead: str, spec: ModelSpec) -> Windows | None:
    signal = event.leads[lead]
    if not np.isfinite(signal.samples).any():
        return None
    filled_T, _ = fill_gaps(signal.samples)
    resampled_T = resample(filled_T, signal.fs, spec.sampling_rate_hz)
    return cut_windows(resampled_T, spec.window_samples, spec.stride_samples)


def _row(
    archive: Archive, event: Event, is_normal: bool, start: int, num_samples: int, spec: ModelSpec
) -> dict[str, Any]:
    facts = event.ecg_extras.get("source") or {}
    vitals = {name: event.vitals[name].value if name in event.vitals else None for name in VITALS}
    return {
        "patient": archive.patient_id,
        "record": archive.archive_id,
        "event": f"{archive.archive_id}/{event.event_id}",
        "event_id": event.event_id,
        "stem": archive.stem,
        "condition": event.condition,
        "is_normal": is_normal,
        "start_s": float(facts.get("start_s", 0.0)) + start / spec.sampling_rate_hz,
        "duration_s": num_samples / spec.sampling_rate_hz,
        "facts": facts,
        **{name: np.nan if value is None else float(value) for name, value in vitals.items()},
    }


def _beats(event: Event, start: int, end: int, rate_ratio: float) -> Beats:
    annotations = event.ecg_extras.get("annotations") or {}
    marks = zip(annotations.get("samples", ()), annotations.get("symbols", ()), strict=True)
    kept = [
        (sample / rate_ratio - start, symbol)
        for sample, symbol in marks
        if symbol in BEAT_SYMBOLS and start <= sample / rate_ratio < end
    ]
    return Beats(np.array([place for place, _ in kept], np.float64), tuple(symbol for _, symbol in kept))


def _assemble(moments: Sequence[_Moment], data_hash: str, left_out: dict[str, int]) -> Corpus:
    num_leads = [len(moment.leads) for moment in moments]
    frame = pd.DataFrame([moment.row for moment in moments])
    moment_N = np.repeat(np.arange(len(moments)), num_leads)
    windows = WindowSet(
        signals_NT=np.concatenate([moment.signals_LT for moment in moments]),
        num_samples_N=np.repeat([moment.num_samples for moment in moments], num_leads).astype(np.int32),
        leads_N=np.array([lead for moment in moments for lead in moment.leads]),
        patients_N=frame["patient"].to_numpy(np.str_)[moment_N],
        conditions_N=frame["condition"].to_numpy(np.str_)[moment_N],
        is_normal_N=frame["is_normal"].to_numpy(np.bool_)[moment_N],
    )
    return Corpus(
        windows=windows,
        moment_N=moment_N,
        moments=frame,
        beats=tuple(moment.beats for moment in moments),
        data_hash=data_hash,
        left_out={reason: count for reason, count in left_out.items() if count},
    )
