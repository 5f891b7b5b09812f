"""Simulates whole archives: patients, events, waveforms and vital signs, determined by a seed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np

from rmsai_ray.archives.beats import (
    SINUS,
    Array,
    Heart,
    Tracing,
    beat_times,
    draw,
    fibrillation_waves,
    sum_of_bumps,
)
from rmsai_ray.archives.conditions import (
    CONDITIONS,
    HISTORY_LENGTH,
    VITAL_SIGNS,
    Condition,
    VitalSign,
    condition_mix,
)
from rmsai_ray.archives.records import Event, Signal, Vital
from rmsai_ray.archives.writer import write_archive
from rmsai_ray.errors import ConfigError

DURATION_S = 12.0
ECG_HZ, PPG_HZ, RESP_HZ = 200.0, 75.0, 33.33
FIRST_EVENT_NUMBER = 1001
DEFAULT_PERIOD = "2026-10"
PULSE_DELAY_S = 0.22
"""The pulse reaches the finger this long after the R peak."""


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What stays the same over all events of a patient."""

    patient_id: str
    heart: Heart
    resting_bpm: float
    noise_mv: float


def simulate_archive(
    patient_index: int,
    num_events: int,
    *,
    seed: int,
    preset: str = "balanced",
    proportions: Sequence[float] | None = None,
    period: str = DEFAULT_PERIOD,
) -> tuple[str, bytes]:
    """File name ``PT####_YYYY-MM.h5`` and bytes of one patient's archive of one month.

    The same arguments give the same bytes, in whatever order and on whatever worker archives are made.

    Args:
        patient_index: 0, 1, …; the number in the patient's id.
        num_events: at least 1.
        seed: of the whole corpus; not negative.
        preset: a name in :data:`~rmsai_ray.archives.conditions.MIXES`.
        proportions: explicit shares of the five conditions instead of a preset.
        period: month that the events fall into.

    Raises:
        ConfigError: a value breaks its rule.
    """
    check_options(patient_index, num_events, seed, preset, proportions, period)
    shares = condition_mix(preset, proportions)
    rng = np.random.default_rng([seed, patient_index])
    patient = _patient(rng, patient_index)
    conditions = _deal(rng, shares, num_events)
    times_s = _event_times(rng, period, num_events)
    events = [
        simulate_event(
            np.random.default_rng([seed, patient_index, number]), patient, condition, time_s, number
        )
        for number, (condition, time_s) in enumerate(
            zip(conditions, times_s, strict=True), FIRST_EVENT_NUMBER
        )
    ]
    quality = {"data_quality_score": round(float(rng.uniform(0.85, 0.98)), 3)}
    content = write_archive(events, patient_id=patient.patient_id, metadata=quality)
    return archive_name(patient_index, period), content


def archive_name(patient_index: int, period: str) -> str:
    """``PT####_YYYY-MM.h5``."""
    return f"{_patient_id(patient_index)}_{period}.h5"


def check_options(
    patient_index: int,
    num_events: int,
    seed: int,
    preset: str,
    proportions: Sequence[float] | None,
    period: str,
) -> None:
    """Whether :func:`simulate_archive` would take these.

    Raises:
        ConfigError: a value breaks its rule.
    """
    for name, value, least in (
        ("patient_index", patient_index, 0),
        ("num_events", num_events, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise ConfigError(name, value, f"must be at least {least}", "Choose a larger one.")
    if re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", period) is None:
        raise ConfigError("period", period, "is not a month", "Write YYYY-MM.")
    condition_mix(preset, proportions)


def simulate_event(
    rng: np.random.Generator, patient: Patient, condition: Condition, time_s: float, number: int
) -> Event:
    """One alarm of ``condition`` at ``time_s`` (epoch seconds), in the middle of 12 s of signals."""
    heart_rate_bpm = _heart_rate(rng, patient, condition)
    breaths_per_min = round(rng.uniform(*condition.breaths_per_min))
    beats_s = beat_times(
        rng,
        60.0 / heart_rate_bpm,
        DURATION_S,
        irregularity=condition.irregularity,
        breath_hz=breaths_per_min / 60,
    )
    strength_B = 1 + 0.03 * rng.standard_normal(len(beats_s))
    tracing = draw(beats_s, strength_B, condition.waves, patient.heart, round(DURATION_S * ECG_HZ), ECG_HZ)
    pacer_info, pacer_offset = _pacer(rng, condition, tracing)
    return Event(
        event_id=f"event_{number}",
        uuid=str(UUID(bytes=rng.bytes(16), version=4)),
        time_s=time_s,
        condition=condition.name,
        heart_rate_bpm=heart_rate_bpm,
        leads=_leads(rng, patient, condition, tracing, pacer_info, pacer_offset),
        ppg=Signal(samples=_ppg(rng, beats_s, strength_B * condition.pulse), fs=PPG_HZ, unit="raw"),
        resp=Signal(samples=_resp(rng, breaths_per_min / 60), fs=RESP_HZ, unit="raw"),
        vitals=_vitals(rng, patient, condition, time_s, heart_rate_bpm, breaths_per_min),
        pacer_info=pacer_info,
        pacer_offset=pacer_offset,
        ecg_extras={"fiducials": tracing.fiducials},
    )


def _patient_id(patient_index: int) -> str:
    return f"PT{patient_index:04d}"


def _patient(rng: np.random.Generator, patient_index: int) -> Patient:
    heart = Heart(
        axis_shift_deg=rng.normal(0, 12),
        amplitude=rng.lognormal(0, 0.15),
        chest=rng.lognormal(0, 0.15),
        qrs_width=rng.uniform(0.9, 1.2),
        t_amplitude=rng.lognormal(0, 0.25),
        p_amplitude=rng.lognormal(0, 0.2),
    )
    return Patient(
        patient_id=_patient_id(patient_index),
        heart=heart,
        resting_bpm=rng.uniform(68, 90),
        noise_mv=rng.uniform(0.015, 0.025),
    )


def _deal(rng: np.random.Generator, shares: Array, num_events: int) -> list[Condition]:
    """Conditions in random order; their counts are as close to the shares as whole events allow."""
    points = (np.arange(num_events) + rng.random()) / num_events
    dealt = np.searchsorted(np.cumsum(shares), points * shares.sum(), side="right")
    last = int(np.flatnonzero(shares)[-1])
    return [CONDITIONS[min(index, last)] for index in rng.permutation(dealt).tolist()]


def _event_times(rng: np.random.Generator, period: str, num_events: int) -> list[float]:
    """Epoch seconds: the first event 1 to 24 h into the month, the others 30 to 300 s apart."""
    start_s = datetime.fromisoformat(f"{period}-01").replace(tzinfo=UTC).timestamp()
    gaps_s = rng.uniform(30, 300, num_events - 1)
    offsets_s = np.cumsum(np.append(rng.uniform(3600, 86400), gaps_s))
    return [round(start_s + offset_s, 3) for offset_s in offsets_s.tolist()]


def _heart_rate(rng: np.random.Generator, patient: Patient, condition: Condition) -> float:
    low, high = condition.heart_rate_bpm
    if condition.name != "Normal":
        return round(rng.uniform(low, high), 1)
    return round(float(np.clip(rng.normal(patient.resting_bpm, 5), low, high)), 1)


def _leads(
    rng: np.random.Generator,
    patient: Patient,
    condition: Condition,
    tracing: Tracing,
    pacer_info: int,
    pacer_offset: int,
) -> dict[str, Signal]:
    """Three leads are recorded; the limb leads III, aVR, aVL and aVF follow from I and II.

    Einthoven: III = II − I. Goldberger: aVR = −(I + II)/2, aVL = (I − III)/2, aVF = (II + III)/2.
    """
    num_samples = len(tracing.lead_1)
    recorded = np.stack((tracing.lead_1, tracing.lead_2, tracing.chest))
    recorded += _atria(rng, patient, condition, num_samples)
    recorded += np.outer((0.6, 1.0, 0.9), _spikes(pacer_info, pacer_offset, num_samples))
    recorded += _wander(rng, num_samples) + patient.noise_mv * rng.standard_normal((3, num_samples))
    # Processors differ in the last bits of exp and sin; rounded to a nanovolt, the files do not.
    lead_1, lead_2, chest = np.round(recorded, 6)
    lead_3 = lead_2 - lead_1
    samples = {
        "ECG1": lead_1,
        "ECG2": lead_2,
        "ECG3": lead_3,
        "aVR": -(lead_1 + lead_2) / 2,
        "aVL": (lead_1 - lead_3) / 2,
        "aVF": (lead_2 + lead_3) / 2,
        "vVX": chest,
    }
    return {name: Signal(samples=values, fs=ECG_HZ) for name, values in samples.items()}


def _atria(rng: np.random.Generator, patient: Patient, condition: Condition, num_samples: int) -> Array:
    """What the atria do on their own, in mV, shape (3, num_samples): fibrillate, or beat at another rate."""
    if condition.name.startswith("Atrial"):
        waves = fibrillation_waves(rng, num_samples, ECG_HZ)
        return np.outer(rng.uniform(0.03, 0.09) * np.array([0.5, 1.0, 1.1]), waves)
    if condition.name.startswith("Ventricular"):
        times_s = beat_times(rng, 60 / patient.resting_bpm, DURATION_S, irregularity=0.03, breath_hz=0.3)
        apart = draw(times_s, np.full(len(times_s), 0.7), SINUS[:1], patient.heart, num_samples, ECG_HZ)
        return np.stack((apart.lead_1, apart.lead_2, apart.chest))
    return np.zeros((3, num_samples))


def _wander(rng: np.random.Generator, num_samples: int) -> Array:
    """The baseline of each electrode pair drifts by ±0.05 mV at about 0.1 Hz, shape (3, num_samples)."""
    time_s = np.arange(num_samples) / ECG_HZ
    rate_hz, phase = rng.uniform(0.08, 0.12, (3, 1)), rng.random((3, 1))
    return 0.05 * np.sin(2 * np.pi * (rate_hz * time_s + phase))


def _pacer(rng: np.random.Generator, condition: Condition, tracing: Tracing) -> tuple[int, int]:
    """Pacer word (type, rate, amplitude, flags; a byte each) and the sample of its spike.

    Upstream writes an offset also where there is no pacer.
    """
    kind = int(rng.choice(4, p=condition.pacer_probabilities))
    rate, amplitude = int(rng.integers(60, 101)), int(rng.integers(1, 11))
    flags, offset = int(rng.integers(16)), int(rng.integers(len(tracing.lead_1)))
    if kind == 0:
        return 0, offset
    lead_s = 0.11 if condition.name.startswith("Ventricular") else 0.055
    spikes = np.array([sample for sample in tracing.fiducials["R"] if sample]) - round(lead_s * ECG_HZ)
    spikes = spikes[spikes >= 0]
    nearest = int(spikes[np.abs(spikes - offset).argmin()])
    return kind | rate << 8 | amplitude << 16 | flags << 24, nearest


def _spikes(pacer_info: int, pacer_offset: int, num_samples: int) -> Array:
    """The pacer's pulses in mV, shape (num_samples,); a dual-chamber pacer fires at the atria first."""
    spikes = np.zeros(num_samples)
    kind, amplitude = pacer_info & 0xFF, pacer_info >> 16 & 0xFF
    if kind:
        spikes[pacer_offset] = 0.2 * amplitude
    atrial = pacer_offset - round(0.15 * ECG_HZ)
    if kind == 2 and atrial >= 0:
        spikes[atrial] = 0.1 * amplitude
    return spikes


def _ppg(rng: np.random.Generator, beats_s: Array, strength_B: Array) -> Array:
    """The pulse at the finger, raw counts, shape (900,): a systolic and a dicrotic wave for each beat."""
    num_samples = round(DURATION_S * PPG_HZ)
    rr_s = np.diff(beats_s, append=2 * beats_s[-1] - beats_s[-2])
    scale_B = np.sqrt(rr_s / 0.8)
    centre_B, width_B = (beats_s + PULSE_DELAY_S) * PPG_HZ, scale_B * PPG_HZ
    systolic = sum_of_bumps(centre_B, 0.07 * width_B, 0.13 * width_B, strength_B, num_samples)
    centre_B = centre_B + 0.30 * width_B
    dicrotic = sum_of_bumps(centre_B, 0.06 * width_B, 0.10 * width_B, strength_B, num_samples)
    wander = 8 * np.sin(2 * np.pi * (0.15 * np.arange(num_samples) / PPG_HZ + rng.random()))
    counts: Array = 120 * systolic + 35 * dicrotic + wander + 2 * rng.standard_normal(num_samples)
    return np.round(counts, 4)


def _resp(rng: np.random.Generator, breath_hz: float) -> Array:
    """Chest impedance, raw counts, shape (399,)."""
    time_s = np.arange(int(DURATION_S * RESP_HZ)) / RESP_HZ
    breaths = np.sin(2 * np.pi * (breath_hz * time_s + rng.random()))
    noise = 30 * rng.standard_normal(len(time_s))
    counts: Array = rng.uniform(8500, 11500) + rng.uniform(600, 1000) * breaths + noise
    return np.round(counts, 2)


def _vitals(
    rng: np.random.Generator,
    patient: Patient,
    condition: Condition,
    time_s: float,
    heart_rate_bpm: float,
    breaths_per_min: int,
) -> dict[str, Vital]:
    heart_rate = round(heart_rate_bpm)
    values: dict[str, float] = {
        "HR": heart_rate,
        "Pulse": heart_rate + int(rng.integers(-2, 3)),
        "SpO2": round(rng.uniform(*condition.spo2_percent)),
        "Systolic": round(rng.uniform(*condition.systolic_mmhg)),
        "Diastolic": round(rng.uniform(*condition.diastolic_mmhg)),
        "RespRate": breaths_per_min,
        "Temp": round(rng.uniform(36.6, 37.5) * 9 / 5 + 32, 1),
        "XL_Posture": int(rng.integers(-10, 46)),
    }
    baselines = {"HR": patient.resting_bpm, "Pulse": patient.resting_bpm}
    return {
        sign.name: _vital(rng, sign, values[sign.name], baselines.get(sign.name, sign.baseline), time_s)
        for sign in VITAL_SIGNS
    }


def _vital(rng: np.random.Generator, sign: VitalSign, value: float, baseline: float, event_s: float) -> Vital:
    time_s = round(event_s + rng.uniform(-sign.time_offset_s, sign.time_offset_s), 3)
    extras: dict[str, Any] = {}
    if sign.name == "XL_Posture":
        extras = {
            "step_count": int(rng.integers(0, 5001)),
            "time_since_posture_change": int(rng.integers(60, 3601)),
        }
    lower, upper = sign.thresholds or (None, None)
    return Vital(
        value=value,
        units=sign.units,
        time_s=time_s,
        lower_threshold=lower,
        upper_threshold=upper,
        history=_history(rng, sign, value, baseline, time_s),
        extras=extras,
    )


def _history(
    rng: np.random.Generator, sign: VitalSign, value: float, baseline: float, time_s: float
) -> tuple[tuple[float, float], ...]:
    """(epoch seconds, value) oldest first: from the patient's baseline towards the value at the alarm."""
    steps = np.arange(HISTORY_LENGTH, 0, -1)
    times_s = time_s - rng.uniform(*sign.history_spacing_s) * steps
    level = (
        baseline + (value - baseline) * np.exp(-steps / 6) + sign.spread * rng.standard_normal(HISTORY_LENGTH)
    )
    values = np.round(np.clip(level, *sign.history_bounds), 1 if sign.name == "Temp" else 0)
    return tuple(zip(np.round(times_s, 3).tolist(), values.tolist(), strict=True))
