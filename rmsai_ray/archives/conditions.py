"""What the simulator knows of medicine: the five conditions, the eight vital signs and the mixes, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmsai_ray.archives.beats import FIBRILLATION, SINUS, VENTRICULAR, Wave
from rmsai_ray.errors import ConfigError

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """How a condition shows in the signals and in the vital signs."""

    name: str
    """As the monitor writes it."""
    heart_rate_bpm: Range
    systolic_mmhg: Range
    diastolic_mmhg: Range
    spo2_percent: Range = (96.0, 99.5)
    breaths_per_min: Range = (12.0, 20.0)
    waves: tuple[Wave, ...] = SINUS
    irregularity: float = 0.03
    """Standard deviation of ln RR."""
    pulse: float = 1.0
    """Size of the PPG pulse, as a fraction of normal."""
    pacer_probabilities: tuple[float, float, float, float] = (0.95, 0.02, 0.02, 0.01)
    """Of no, a single-chamber, a dual-chamber and a biventricular pacer."""


CONDITIONS = (
    Condition(
        name="Normal",
        heart_rate_bpm=(65.0, 95.0),
        systolic_mmhg=(110.0, 130.0),
        diastolic_mmhg=(70.0, 85.0),
    ),
    Condition(
        name="Tachycardia",
        heart_rate_bpm=(105.0, 140.0),
        systolic_mmhg=(130.0, 150.0),
        diastolic_mmhg=(85.0, 95.0),
        irregularity=0.015,
        pulse=0.8,
    ),
    Condition(
        name="Bradycardia",
        heart_rate_bpm=(40.0, 55.0),
        systolic_mmhg=(100.0, 120.0),
        diastolic_mmhg=(60.0, 75.0),
        irregularity=0.04,
        pacer_probabilities=(0.2, 0.3, 0.4, 0.1),
    ),
    Condition(
        name="Atrial Fibrillation (PTB-XL)",
        heart_rate_bpm=(110.0, 160.0),
        systolic_mmhg=(120.0, 160.0),
        diastolic_mmhg=(80.0, 100.0),
        waves=FIBRILLATION,
        irregularity=0.2,
        pulse=0.7,
    ),
    Condition(
        name="Ventricular Tachycardia (MIT-BIH)",
        heart_rate_bpm=(150.0, 190.0),
        systolic_mmhg=(140.0, 180.0),
        diastolic_mmhg=(90.0, 110.0),
        spo2_percent=(88.0, 95.0),
        breaths_per_min=(22.0, 30.0),
        waves=VENTRICULAR,
        irregularity=0.02,
        pulse=0.4,
        pacer_probabilities=(0.6, 0.1, 0.2, 0.1),
    ),
)

MIXES: dict[str, tuple[float, float, float, float, float]] = {
    "balanced": (0.2, 0.2, 0.2, 0.2, 0.2),
    "original": (0.1, 0.225, 0.225, 0.225, 0.225),
    "all-normal": (1.0, 0.0, 0.0, 0.0, 0.0),
    "all-abnormal": (0.0, 0.25, 0.25, 0.25, 0.25),
    "high-anomaly": (0.05, 0.2375, 0.2375, 0.2375, 0.2375),
}
"""Share of each of :data:`CONDITIONS`, by preset; ``original`` is the original generator's default."""


def condition_mix(preset: str, proportions: Sequence[float] | None = None) -> npt.NDArray[np.float64]:
    """Shares of the five conditions, shape (5,), sum 1; explicit proportions win over the preset.

    Raises:
        ConfigError: unknown preset; not five proportions; negative, not finite, or all zero.
    """
    if proportions is None and preset not in MIXES:
        raise ConfigError("preset", preset, "is no mix of conditions", f"Choose from {', '.join(MIXES)}.")
    shares: npt.NDArray[np.float64] = np.asarray(
        MIXES[preset] if proportions is None else proportions, dtype=np.float64
    )
    names = ", ".join(condition.name for condition in CONDITIONS)
    if shares.shape != (len(CONDITIONS),):
        raise ConfigError("proportions", proportions, "needs five numbers", f"One each for {names}.")
    if not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        rule = "must be finite, not negative, and not all zero"
        raise ConfigError("proportions", proportions, rule, "They are scaled to sum 1.")
    normalised: npt.NDArray[np.float64] = shares / shares.sum()
    return normalised


@dataclass(frozen=True)
class VitalSign:
    """How the monitor reports one vital sign."""

    name: str
    units: str
    thresholds: Range | None
    time_offset_s: float
    """The value was taken at most this long before or after the alarm."""
    history_spacing_s: Range
    history_bounds: Range
    baseline: float
    """What a healthy adult's history returns to; the heart rate's is the patient's own."""
    spread: float
    """Standard deviation from one history entry to the next."""


VITAL_SIGNS = (
    # name, units, thresholds, time_offset_s, history_spacing_s, history_bounds, baseline, spread
    VitalSign("HR", "bpm", (60, 100), 5, (60, 300), (30, 220), 75, 2.0),
    VitalSign("Pulse", "bpm", (60, 100), 3, (60, 300), (30, 220), 75, 2.0),
    VitalSign("SpO2", "%", (90, 100), 2, (30, 180), (70, 100), 97.5, 0.7),
    VitalSign("Systolic", "mmHg", (90, 140), 10, (300, 1800), (70, 250), 120, 4.0),
    VitalSign("Diastolic", "mmHg", (60, 90), 10, (300, 1800), (40, 150), 77, 3.0),
    VitalSign("RespRate", "breaths/min", (12, 20), 3, (120, 600), (8, 40), 16, 1.2),
    VitalSign("Temp", "°F", (96.0, 100.4), 30, (1800, 3600), (94, 108), 98.6, 0.15),
    VitalSign("XL_Posture", "degrees", None, 1, (10, 60), (-90, 90), 15, 6.0),
)

HISTORY_LENGTH = 30
