"""The archive format as data: groups, datasets, attributes, units, rates; changes when the format does.

Paths are relative to an event's group unless they begin with ``metadata/``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from rmsai_ray.signals.leads import LEADS

Kind = Literal["text", "number", "integer", "json", "signal"]

EVENT_KEY: Final = re.compile(r"event_([0-9]{1,18})")
"""The generator counts from ``event_1001``, the VDX converter from ``event_001``."""

FILE_STEM: Final = re.compile(r"(?P<patient>.+)_(?P<period>[0-9]{4}-(?:0[1-9]|1[0-2]))")
"""``PT1234_2025-09``: patient and month."""

EVENT_SECONDS: Final = 12.0
"""Six before the alarm and six after it."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One dataset of the format."""

    path: str
    kind: Kind
    dtype: str
    """As stored: a numpy dtype, ``S`` for fixed bytes, ``vlen`` for strings of variable length."""
    unit: str = ""
    strict: bool = True
    """The original validator insists on it."""
    lenient: bool = False
    """Its absence is worth a problem; every generation of writers has it."""


@dataclass(frozen=True, kw_only=True)
class SignalItem:
    """One waveform of an event."""

    path: str
    dtype: str
    unit: str
    fs: float
    num_samples: int
    chunk_samples: int
    rate_field: str
    """The metadata field with its sampling rate."""
    strict: bool = True
    lenient: bool = True


@dataclass(frozen=True, kw_only=True)
class VitalItem:
    """One vital sign of an event: the group ``vitals/<name>``."""

    name: str
    dtype: str
    units: str
    thresholds: tuple[float, float] | None
    """Lower, upper."""
    zero_is_missing: bool = True
    """The VDX converter writes 0 where the monitor had nothing."""


METADATA: Final = (
    Item(path="metadata/patient_id", kind="text", dtype="S", lenient=True),
    Item(path="metadata/sampling_rate_ecg", kind="number", dtype="f8", unit="Hz", lenient=True),
    Item(path="metadata/sampling_rate_ppg", kind="number", dtype="f8", unit="Hz", lenient=True),
    Item(path="metadata/sampling_rate_resp", kind="number", dtype="f8", unit="Hz"),
    Item(path="metadata/alarm_time_epoch", kind="number", dtype="f8", unit="s", lenient=True),
    Item(path="metadata/alarm_offset_seconds", kind="number", dtype="f8", unit="s", lenient=True),
    Item(path="metadata/seconds_before_event", kind="number", dtype="f8", unit="s", lenient=True),
    Item(path="metadata/seconds_after_event", kind="number", dtype="f8", unit="s", lenient=True),
    Item(path="metadata/data_quality_score", kind="number", dtype="f8", lenient=True),
    Item(path="metadata/device_info", kind="text", dtype="S", lenient=True),
    Item(path="metadata/max_vital_history", kind="integer", dtype="i8", strict=False),
)

EVENT: Final = (
    Item(path="timestamp", kind="number", dtype="f8", unit="s", lenient=True),
    Item(path="uuid", kind="text", dtype="vlen", lenient=True),
    Item(path="ecg/extras", kind="json", dtype="vlen", strict=False),
    Item(path="ppg/extras", kind="json", dtype="vlen", strict=False),
    Item(path="resp/extras", kind="json", dtype="vlen", strict=False),
)

ECG_SIGNALS: Final = {
    lead: SignalItem(
        path=f"ecg/{lead}",
        dtype="f8",
        unit="mV",
        fs=200.0,
        num_samples=2400,
        chunk_samples=1200,
        rate_field="sampling_rate_ecg",
    )
    for lead in LEADS
}
PPG: Final = SignalItem(
    path="ppg/PPG",
    dtype="f8",
    unit="",
    fs=75.0,
    num_samples=900,
    chunk_samples=900,
    rate_field="sampling_rate_ppg",
)
RESP: Final = SignalItem(
    path="resp/RESP",
    dtype="f4",
    unit="",
    fs=33.33,
    num_samples=399,
    chunk_samples=399,
    rate_field="sampling_rate_resp",
    lenient=False,
)
SIGNALS: Final = (*ECG_SIGNALS.values(), PPG, RESP)

VITALS: Final = {
    vital.name: vital
    for vital in (
        VitalItem(name="HR", dtype="i8", units="bpm", thresholds=(60, 100)),
        VitalItem(name="Pulse", dtype="i8", units="bpm", thresholds=(60, 100)),
        VitalItem(name="SpO2", dtype="i8", units="%", thresholds=(90, 100)),
        VitalItem(name="Systolic", dtype="i8", units="mmHg", thresholds=(90, 140)),
        VitalItem(name="Diastolic", dtype="i8", units="mmHg", thresholds=(60, 90)),
        VitalItem(name="RespRate", dtype="i8", units="breaths/min", thresholds=(12, 20)),
        VitalItem(name="Temp", dtype="f8", units="°F", thresholds=(96.0, 100.4)),
        VitalItem(name="XL_Posture", dtype="i8", units="degrees", thresholds=None, zero_is_missing=False),
    )
}

VITAL: Final = (
    Item(path="value", kind="number", dtype="i8", lenient=True),
    Item(path="units", kind="text", dtype="vlen", lenient=True),
    Item(path="timestamp", kind="number", dtype="f8", unit="s", lenient=True),
    Item(path="extras", kind="json", dtype="vlen", strict=False),
)
"""Inside every vital's group; ``value`` is a float64 for Temp."""

CONDITION_NAMES: Final = ("condition", "Condition", "reported_condition")
"""Attributes of the event, then its datasets."""
CONDITION_FALLBACKS: Final = ("condition", "default_condition")
"""Attributes of the metadata group."""
UNKNOWN_CONDITION: Final = "Unknown"

VDX_METADATA: Final = frozenset({"converter_version", "conversion_timestamp", "ews_enabled"})
"""Fields that only the VDX converter writes."""
VDX_DEFAULT_THRESHOLDS: Final = (0.0, 100.0)
"""What it writes where the export had none; so they mean unknown."""

UNITS: Final = {
    "F": "°F",
    "degF": "°F",
    "deg F": "°F",
    "C": "°C",
    "degC": "°C",
    "deg C": "°C",
}
"""Spellings of a unit and the one that we keep."""
VITAL_UNITS: Final = {("RespRate", "bpm"): "breaths/min"}
"""Likewise, where the same spelling is right for another vital."""


def required_paths(event_keys: list[str]) -> list[str]:
    """Paths of all datasets that the original validator insists on, for a file with these events."""
    per_event = [item.path for item in EVENT if item.strict]
    per_event += [signal.path for signal in SIGNALS if signal.strict]
    per_event += [f"vitals/{name}/{item.path}" for name in VITALS for item in VITAL if item.strict]
    metadata = [item.path for item in METADATA if item.strict]
    return metadata + [f"{key}/{path}" for key in event_keys for path in per_event]
