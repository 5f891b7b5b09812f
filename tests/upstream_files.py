"""Archives as the original generator and the VDX converter write them; changes when the format does.

Plain h5py, and nothing of the package: what the reader, the writer and the simulator are compared with.
``v1``, ``v2`` and ``v3`` are the generator's three generations, ``vdx`` the converter of raw monitor exports.
"""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

Variant = Literal["v1", "v2", "v3", "vdx"]

LEADS = ("ECG1", "ECG2", "ECG3", "aVR", "aVL", "aVF", "vVX")
GAINS = {"ECG1": 1.0, "ECG2": 1.1, "aVR": -0.5, "aVL": 0.5, "aVF": 0.8, "vVX": 1.2}
ECG_HZ, PPG_HZ, RESP_HZ, SECONDS = 200.0, 75.0, 33.33, 12
FIRST_EVENT_S = 1_757_500_000.0  # 2025-09-10 10:26:40 UTC

NORMAL, TACHY, BRADY = "Normal", "Tachycardia", "Bradycardia"
AF, VT = "Atrial Fibrillation (PTB-XL)", "Ventricular Tachycardia (MIT-BIH)"
CONDITIONS = (NORMAL, TACHY, BRADY, AF, VT)
HEART_RATE_BPM = {NORMAL: (65, 95), TACHY: (105, 140), BRADY: (40, 55), AF: (110, 160), VT: (150, 190)}
PRESSURE_MMHG = {  # systolic, diastolic
    NORMAL: ((110, 130), (70, 85)),
    TACHY: ((130, 150), (85, 95)),
    BRADY: ((100, 120), (60, 75)),
    AF: ((120, 160), (80, 100)),
    VT: ((140, 180), (90, 110)),
}
PACER_CHANCES = {VT: (0.6, 0.1, 0.2, 0.1), BRADY: (0.2, 0.3, 0.4, 0.1)}
USUAL_PACER_CHANCES = (0.95, 0.02, 0.02, 0.01)

# wave: start and length in seconds from the start of the beat, amplitude in mV, other amplitudes by condition
WAVES: tuple[tuple[float, float, float, dict[str, float]], ...] = (
    (0.10, 0.09, 0.10, {TACHY: 0.08, BRADY: 0.12, AF: 0.02, VT: 0.05}),
    (0.20, 0.01, -0.15, {}),
    (0.21, 0.04, 1.0, {VT: 1.2}),
    (0.25, 0.02, -0.3, {}),
    (0.40, 0.18, 0.22, {TACHY: 0.18, BRADY: 0.25, VT: 0.15}),
)

# vital: units, thresholds, largest time offset (s), spacing of its history (s), bounds of its history
VITALS: dict[str, tuple[str, tuple[float, float] | None, int, tuple[int, int], tuple[float, float]]] = {
    "HR": ("bpm", (60, 100), 5, (60, 300), (30, 220)),
    "Pulse": ("bpm", (60, 100), 3, (60, 300), (30, 220)),
    "SpO2": ("%", (90, 100), 2, (30, 180), (70, 100)),
    "Systolic": ("mmHg", (90, 140), 10, (300, 1800), (70, 250)),
    "Diastolic": ("mmHg", (60, 90), 10, (300, 1800), (40, 150)),
    "RespRate": ("breaths/min", (12, 20), 3, (120, 600), (8, 40)),
    "Temp": ("°F", (96.0, 100.4), 30, (1800, 3600), (94, 108)),
    "XL_Posture": ("degrees", None, 1, (10, 60), (-90, 90)),
}

ASCII_VLEN = h5py.string_dtype("ascii")


def archive_bytes(
    variant: Variant = "v3",
    *,
    num_events: int = 2,
    conditions: Sequence[str] = CONDITIONS,
    seed: int = 0,
    patient_id: str = "PT1234",
) -> bytes:
    """One archive; its events take ``conditions`` in turn. Same arguments, same content."""
    rng = np.random.default_rng(seed)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        write_metadata(file.create_group("metadata"), variant, patient_id, rng)
        time_s = FIRST_EVENT_S
        for i in range(num_events):
            name = f"event_{i + 1:03d}" if variant == "vdx" else f"event_{1001 + i}"
            write_event(file.create_group(name), variant, conditions[i % len(conditions)], time_s, rng)
            time_s += float(rng.uniform(30, 300))
    return buffer.getvalue()


def write_archive_file(
    folder: Path,
    variant: Variant = "v3",
    *,
    patient_id: str = "PT1234",
    period: str = "2025-09",
    **options: Any,
) -> Path:
    """``<folder>/<patient>_<period>.h5``; ``options`` as of :func:`archive_bytes`."""
    path = folder / f"{patient_id}_{period}.h5"
    path.write_bytes(archive_bytes(variant, patient_id=patient_id, **options))
    return path


def edited(raw: bytes, change: Callable[[h5py.File], object]) -> bytes:
    """``raw`` after ``change`` did something to the open file."""
    buffer = io.BytesIO(raw)
    with h5py.File(buffer, "r+") as file:
        change(file)
    return buffer.getvalue()


def replace(group: h5py.Group, name: str, data: Any, **options: Any) -> None:
    """Puts another dataset in the place of one, or a new one where there was none."""
    if name in group:
        del group[name]
    group.create_dataset(name, data=data, **options)


def write_metadata(group: h5py.Group, variant: Variant, patient_id: str, rng: np.random.Generator) -> None:
    texts = {"patient_id": patient_id, "device_info": "RMSAI-SimDevice-v1.0"}
    for name, text in texts.items():
        group.create_dataset(name, data=text if variant == "vdx" else np.bytes_(text))
    group["sampling_rate_ecg"], group["sampling_rate_ppg"] = ECG_HZ, PPG_HZ
    if variant != "v1":
        group["sampling_rate_resp"] = RESP_HZ
    group["alarm_time_epoch"] = FIRST_EVENT_S
    for name in ("alarm_offset_seconds", "seconds_before_event", "seconds_after_event"):
        group[name] = 6.0
    group["data_quality_score"] = float(rng.uniform(0.85, 0.98))
    if variant == "v3":
        group["max_vital_history"] = np.int64(30)
    if variant == "vdx":
        group["ews_enabled"] = True
        group["converter_version"] = "1.0"
        group["conversion_timestamp"] = "2025-09-12T08:00:00"


def write_event(
    group: h5py.Group, variant: Variant, condition: str, time_s: float, rng: np.random.Generator
) -> None:
    heart_rate = round(float(rng.uniform(*HEART_RATE_BPM[condition])), 1)
    event_uuid = str(uuid.UUID(bytes=rng.bytes(16), version=4))
    group.attrs["condition"] = "Auto-generated" if variant == "vdx" else condition
    group.attrs["heart_rate"] = heart_rate
    if variant != "vdx":
        group.attrs["event_timestamp"] = time_s
        group.attrs["uuid"] = event_uuid
    group["timestamp"] = time_s
    group["uuid"] = event_uuid
    write_waveforms(group, variant, condition, heart_rate, rng)
    write_vitals(group.create_group("vitals"), variant, condition, heart_rate, time_s, rng)


def write_waveforms(
    event: h5py.Group, variant: Variant, condition: str, heart_rate: float, rng: np.random.Generator
) -> None:
    ecg = event.create_group("ecg")
    for lead, samples in ecg_leads(condition, heart_rate, rng).items():
        add_signal(ecg, lead, np.round(samples * 400).astype(np.int64) if variant == "vdx" else samples)
    write_pacer(ecg, variant, condition, rng)
    ppg = event.create_group("ppg")
    phase = np.arange(900) / PPG_HZ * heart_rate / 60 * 2 * np.pi
    pulse = 80 + 90 * np.sin(phase) + 15 * np.sin(2 * phase) + rng.normal(0, 2, 900)
    add_signal(ppg, "PPG", np.round(pulse).astype(np.int64) if variant == "vdx" else pulse)
    if variant == "v3":
        add_json(ppg, {})
    if variant != "v1":
        resp = event.create_group("resp")
        num_samples = 400 if variant == "vdx" else int(SECONDS * RESP_HZ)
        breath = 10_000 + 1_000 * np.sin(np.arange(num_samples) / RESP_HZ * 2 * np.pi * 16 / 60)
        add_signal(resp, "RESP", breath.astype(np.int64 if variant == "vdx" else np.float32))
        if variant == "v3":
            add_json(resp, {})


def ecg_leads(condition: str, heart_rate: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Seven leads in mV; as upstream, wander and noise are each lead's own, and ECG3 is ECG2 − ECG1."""
    seconds = np.arange(int(SECONDS * ECG_HZ)) / ECG_HZ
    leads = {}
    for lead, gain in GAINS.items():
        wander = 0.05 * np.sin(2 * np.pi * 0.1 * seconds)
        leads[lead] = (
            gain * beats(condition, heart_rate, seconds, rng) + wander + rng.normal(0, 0.02, seconds.size)
        )
    leads["ECG3"] = leads["ECG2"] - leads["ECG1"]
    return {lead: leads[lead] for lead in LEADS}


def beats(condition: str, heart_rate: float, seconds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half-sine waves at fixed places of each beat; a wave that does not end inside its beat is not drawn."""
    signal = np.zeros_like(seconds)
    beat_start = 0.0
    while beat_start < seconds[-1]:
        beat_s = 60 / heart_rate * (float(rng.uniform(0.7, 1.3)) if condition == AF else 1.0)
        for start, length, usual, by_condition in WAVES:
            if start + length <= beat_s:
                place = (seconds - beat_start - start) / length
                inside = (place >= 0) & (place < 1)
                signal[inside] += by_condition.get(condition, usual) * np.sin(np.pi * place[inside])
        beat_start += beat_s
    return signal


def write_pacer(ecg: h5py.Group, variant: Variant, condition: str, rng: np.random.Generator) -> None:
    kind = int(rng.choice(4, p=PACER_CHANCES.get(condition, USUAL_PACER_CHANCES)))
    rate, amplitude, flags = int(rng.integers(60, 101)), int(rng.integers(1, 11)), int(rng.integers(0, 16))
    word = kind | rate << 8 | amplitude << 16 | flags << 24 if kind else 0
    offset = int(rng.integers(0, 2400))
    if variant == "v3":
        add_json(ecg, {"pacer_info": word, "pacer_offset": offset})
    elif variant in ("v2", "vdx"):
        ecg.create_dataset("pacer_info", data=np.int32(word))
    if variant == "v2":
        ecg.create_dataset("pacer_offset", data=np.int32(offset))


def write_vitals(
    group: h5py.Group,
    variant: Variant,
    condition: str,
    heart_rate: float,
    time_s: float,
    rng: np.random.Generator,
) -> None:
    for name, value in vital_values(condition, heart_rate, rng).items():
        units, _, offset_s, _, _ = VITALS[name]
        vital = group.create_group(name)
        vital["value"] = value if name == "Temp" else np.int64(value)
        vital_time_s = time_s + float(rng.uniform(-offset_s, offset_s))
        if variant == "vdx":
            vital["units"] = {"Temp": "F", "RespRate": "bpm"}.get(name, units)
        else:
            vital.create_dataset("units", data=units.encode("utf-8"), dtype=ASCII_VLEN)
        vital["timestamp"] = vital_time_s
        write_vital_extras(vital, variant, name, value, vital_time_s, rng)


def vital_values(condition: str, heart_rate: float, rng: np.random.Generator) -> dict[str, float]:
    systolic, diastolic = PRESSURE_MMHG[condition]
    celsius = float(rng.uniform(36.6, 37.5))
    return {
        "HR": round(heart_rate),
        "Pulse": round(heart_rate) + int(rng.integers(-2, 3)),
        "SpO2": int(rng.integers(88, 96) if condition == VT else rng.integers(96, 100)),
        "Systolic": int(rng.integers(systolic[0], systolic[1] + 1)),
        "Diastolic": int(rng.integers(diastolic[0], diastolic[1] + 1)),
        "RespRate": int(rng.integers(22, 31) if condition == VT else rng.integers(12, 21)),
        "Temp": round(celsius * 9 / 5 + 32, 1),
        "XL_Posture": int(rng.integers(-10, 46)),
    }


def write_vital_extras(
    vital: h5py.Group, variant: Variant, name: str, value: float, time_s: float, rng: np.random.Generator
) -> None:
    thresholds = VITALS[name][1]
    steps, since_s = int(rng.integers(0, 5001)), int(rng.integers(60, 3601))
    if variant in ("v2", "vdx") and thresholds:
        # The converter writes 0 and 100 where the export had no thresholds; here: everywhere but for HR.
        low, high = thresholds if variant == "v2" or name == "HR" else (0, 100)
        vital["lower_threshold"], vital["upper_threshold"] = float(low), float(high)
    if variant in ("v2", "vdx") and not thresholds:
        vital["step_count"], vital["time_since_posture_change"] = np.int64(steps), np.int64(since_s)
    if variant == "v3":
        extras: dict[str, Any] = {}
        if thresholds:
            extras = {"upper_threshold": thresholds[1], "lower_threshold": thresholds[0]}
        else:
            extras = {"step_count": steps, "time_since_posture_change": since_s}
        add_json(vital, extras | {"history": history(name, value, time_s, 30, rng)})
    if variant == "vdx":
        entries = history(name, value, time_s, 20 if thresholds else 15, rng)
        entries = [entry | {"timestamp": int(entry["timestamp"])} for entry in entries]
        posture = {} if thresholds else {"step_count": steps, "time_since_change": since_s}
        text = json.dumps(posture | {"history": entries, "generated_by": "vdx_converter"})
        vital.create_dataset("extras", data=text)


def history(
    name: str, value: float, time_s: float, num_entries: int, rng: np.random.Generator
) -> list[dict[str, float]]:
    """Entry i lies ``interval · (i + 1)`` before the vital; the list is oldest first."""
    _, _, _, spacing, bounds = VITALS[name]
    interval = int(rng.integers(spacing[0], spacing[1] + 1))
    entries = []
    for i in range(num_entries):
        past = float(np.clip(value + rng.normal(0, 2), *bounds))
        rounded = round(past, 1) if name == "Temp" else round(past)
        entries.append({"value": rounded, "timestamp": time_s - interval * (i + 1)})
    return entries[::-1]


def add_signal(group: h5py.Group, name: str, samples: np.ndarray) -> None:
    group.create_dataset(name, data=samples, compression="gzip", compression_opts=4)


def add_json(group: h5py.Group, content: dict[str, Any]) -> None:
    group.create_dataset("extras", data=json.dumps(content).encode("utf-8"), dtype=ASCII_VLEN)
