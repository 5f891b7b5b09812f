"""Writes an archive: the one place that knows how upstream's current HDF5 schema (v3) is laid out on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from rmsai_ray.archives.records import Event, Signal, Vital

GZIP_LEVEL = 4
ECG_CHUNK_SAMPLES = 1200
MAX_VITAL_HISTORY = 30
DEFAULT_RATES_HZ = {"ecg": 200.0, "ppg": 75.0, "resp": 33.33}

_UTF8 = h5py.string_dtype("utf-8")
_ASCII = h5py.string_dtype("ascii")
"""Upstream flags units and extras as ASCII although they hold UTF-8; readers must decode them as UTF-8."""


def write_archive(
    events: Sequence[Event], *, patient_id: str, metadata: Mapping[str, Any] | None = None
) -> bytes:
    """One archive in upstream's v3 schema, as the bytes of an HDF5 file.

    The same input gives the same bytes. Leads, PPG, RESP and vitals that an event lacks are not written; a
    vital without a value is left out too, because the schema has no way to say "unknown".

    Args:
        events: written in this order, each under its own ``event_id``; samples of ECG in mV.
        patient_id: ASCII, as in the file name.
        metadata: scalars that replace or extend the defaults of ``metadata/``; None leaves a default out.

    Raises:
        ValueError: two events share an id, or signals of one kind differ in their sampling rate.
    """
    with h5py.File("archive.h5", "w", driver="core", backing_store=False) as file:
        _write_scalars(file.create_group("metadata"), _metadata(events, patient_id) | dict(metadata or {}))
        for event in events:
            _write_event(file.create_group(event.event_id), event)
        file.flush()
        return bytes(file.id.get_file_image())


def _metadata(events: Sequence[Event], patient_id: str) -> dict[str, Any]:
    first_time_s = next((event.time_s for event in events if event.time_s is not None), 0.0)
    return {
        "patient_id": patient_id,
        "sampling_rate_ecg": _rate([s for event in events for s in event.leads.values()], "ecg"),
        "sampling_rate_ppg": _rate([event.ppg for event in events if event.ppg], "ppg"),
        "sampling_rate_resp": _rate([event.resp for event in events if event.resp], "resp"),
        "alarm_time_epoch": float(first_time_s),
        "alarm_offset_seconds": 6.0,
        "seconds_before_event": 6.0,
        "seconds_after_event": 6.0,
        "data_quality_score": 0.95,
        "device_info": "RMSAI-SimDevice-v1.0",
        "max_vital_history": MAX_VITAL_HISTORY,
    }


def _rate(signals: Sequence[Signal], kind: str) -> float:
    rates = {signal.fs for signal in signals} or {DEFAULT_RATES_HZ[kind]}
    if len(rates) > 1:
        raise ValueError(f"signals of kind {kind} have several sampling rates: {sorted(rates)} Hz")
    return float(rates.pop())


def _write_scalars(group: h5py.Group, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if value is not None:
            group[name] = np.bytes_(value.encode()) if isinstance(value, str) else np.asarray(value)[()]


def _write_event(group: h5py.Group, event: Event) -> None:
    group.attrs["condition"] = event.condition
    group.attrs["uuid"] = event.uuid
    if event.heart_rate_bpm is not None:
        group.attrs["heart_rate"] = float(event.heart_rate_bpm)
    if event.time_s is not None:
        group.attrs["event_timestamp"] = float(event.time_s)
        group["timestamp"] = np.float64(event.time_s)
    _write_text(group, "uuid", event.uuid, _UTF8)
    _write_ecg(group.create_group("ecg"), event)
    for kind, signal in (("ppg", event.ppg), ("resp", event.resp)):
        if signal is not None:
            _write_pulse(group.create_group(kind), kind, signal)
    if event.vitals:
        vitals = group.create_group("vitals")
        for name, vital in event.vitals.items():
            if vital.value is not None:
                _write_vital(vitals.create_group(name), name, vital)


def _write_ecg(group: h5py.Group, event: Event) -> None:
    for name, signal in event.leads.items():
        _write_samples(group, name, signal.samples.astype(np.float64, copy=False), ECG_CHUNK_SAMPLES)
    extras = {"pacer_info": event.pacer_info, "pacer_offset": event.pacer_offset}
    known = {name: value for name, value in extras.items() if value is not None}
    _write_text(group, "extras", _json(known | event.ecg_extras), _ASCII)


def _write_pulse(group: h5py.Group, kind: str, signal: Signal) -> None:
    dtype = np.float32 if kind == "resp" else np.float64
    _write_samples(group, kind.upper(), signal.samples.astype(dtype, copy=False), None)
    _write_text(group, "extras", "{}", _ASCII)


def _write_samples(
    group: h5py.Group, name: str, samples: npt.NDArray[np.floating[Any]], chunk_samples: int | None
) -> None:
    chunks = True if chunk_samples is None else (max(1, min(chunk_samples, len(samples))),)
    group.create_dataset(name, data=samples, chunks=chunks, compression="gzip", compression_opts=GZIP_LEVEL)


def _write_vital(group: h5py.Group, name: str, vital: Vital) -> None:
    assert vital.value is not None
    group["value"] = np.float64(vital.value) if name == "Temp" else np.int64(round(vital.value))
    _write_text(group, "units", vital.units, _ASCII)
    if vital.time_s is not None:
        group["timestamp"] = np.float64(vital.time_s)
    _write_text(group, "extras", _json(_vital_extras(name, vital)), _ASCII)


def _vital_extras(name: str, vital: Vital) -> dict[str, Any]:
    thresholds = {"upper_threshold": vital.upper_threshold, "lower_threshold": vital.lower_threshold}
    known = {key: _number(name, value) for key, value in thresholds.items() if value is not None}
    history = [{"value": _number(name, value), "timestamp": time_s} for time_s, value in vital.history]
    return known | vital.extras | {"history": history}


def _number(vital_name: str, value: float) -> float:
    """Upstream writes temperatures as decimals and everything else as integers."""
    return int(value) if vital_name != "Temp" and float(value).is_integer() else float(value)


def _write_text(group: h5py.Group, name: str, text: str, dtype: np.dtype[Any]) -> None:
    group.create_dataset(name, data=text.encode(), dtype=dtype)


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False)
