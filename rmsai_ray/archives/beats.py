"""Draws ECG: one sequence of beats, seen by all leads, with the exact positions of its waves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

REFERENCE_RR_S = 0.8
"""Wave positions and widths below hold at this RR interval, 75 bpm."""
MARGIN_S = 1.5
"""Beats are drawn this far beyond both ends, so that waves of neighbours reach in."""
MIN_RR_S = 0.24


@dataclass(frozen=True)
class Wave:
    """One wave of a beat at :data:`REFERENCE_RR_S`; a Gaussian with its own width on either side."""

    name: str
    """P, Q, R, S or T; fiducials are kept under it."""
    offset_s: float
    """Peak, relative to the R peak."""
    rise_s: float
    """Standard deviation before the peak."""
    fall_s: float
    amplitude_mv: float
    """Size of the heart's electrical vector in the frontal plane."""
    axis_deg: float
    """Its direction: lead I looks along 0°, lead II along 60°."""
    chest_mv: float
    """Its projection on vVX."""
    stretch: float
    """The wave's offset and widths follow (RR / reference)**stretch."""


@dataclass(frozen=True, kw_only=True)
class Heart:
    """How one patient's heart looks in the leads, as factors on the textbook beat."""

    axis_shift_deg: float = 0.0
    amplitude: float = 1.0
    chest: float = 1.0
    qrs_width: float = 1.0
    t_amplitude: float = 1.0
    p_amplitude: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Tracing:
    """Noise-free leads of one event in mV, shape (num_samples,), and where their waves peak."""

    lead_1: Array
    lead_2: Array
    chest: Array
    fiducials: dict[str, list[int | None]]
    """Sample of each wave's peak by wave name, one entry a beat; None where a beat has no such wave here."""


SINUS = (
    #    name, offset_s, rise_s, fall_s, amplitude_mv, axis_deg, chest_mv, stretch
    Wave("P", -0.165, 0.022, 0.022, 0.13, 50, 0.08, 0.5),
    Wave("Q", -0.026, 0.008, 0.008, 0.14, -150, -0.06, 0.15),
    Wave("R", 0.0, 0.0105, 0.0105, 1.25, 38, 1.1, 0.15),
    Wave("S", 0.028, 0.009, 0.011, 0.28, -125, -0.45, 0.15),
    Wave("T", 0.265, 0.055, 0.036, 0.30, 42, 0.30, 0.6),
)
"""PR about 160 ms, QRS about 90 ms, QT about 370 ms; amplitudes within what adults show in leads I and II."""

FIBRILLATION = SINUS[1:]
"""No P wave: the atria fibrillate."""

VENTRICULAR = (
    #    name, offset_s, rise_s, fall_s, amplitude_mv, axis_deg, chest_mv, stretch
    Wave("Q", -0.080, 0.016, 0.016, 0.18, -130, 0.20, 0.3),
    Wave("R", 0.0, 0.036, 0.034, 1.40, 55, -1.3, 0.3),
    Wave("S", 0.085, 0.024, 0.030, 0.55, -120, 0.45, 0.3),
    Wave("T", 0.250, 0.050, 0.042, 0.38, -118, 0.35, 0.7),
)
"""Wide QRS (about 160 ms), T against the QRS, no P that belongs to the beat."""


def beat_times(
    rng: np.random.Generator, mean_rr_s: float, duration_s: float, *, irregularity: float, breath_hz: float
) -> Array:
    """R peaks in seconds, shape (num_beats,), from before 0 to after ``duration_s``.

    ``irregularity`` is the standard deviation of ln RR. Below 0.1 half of it follows the breath (sinus
    arrhythmia); from there on intervals are independent, as in atrial fibrillation.
    """
    span_s = duration_s + 2 * MARGIN_S
    num_beats = int(span_s / (mean_rr_s * 0.6)) + 4
    log_rr = irregularity * rng.standard_normal(num_beats)
    if irregularity < 0.1:
        phase = 2 * np.pi * (breath_hz * mean_rr_s * np.arange(num_beats) + rng.random())
        log_rr = 0.5 * log_rr + irregularity * np.sin(phase)
    rr_s = np.maximum(mean_rr_s * np.exp(log_rr - irregularity**2 / 2), MIN_RR_S)
    times_s: Array = np.cumsum(rr_s) - rr_s[0] * rng.random() - MARGIN_S
    return times_s[times_s < duration_s + MARGIN_S]


def draw(
    times_s: Array, strength_B: Array, waves: tuple[Wave, ...], heart: Heart, num_samples: int, fs: float
) -> Tracing:
    """The beats with R peaks at ``times_s``, scaled by ``strength_B``, sampled at ``fs`` Hz."""
    rr_s = np.diff(times_s, append=2 * times_s[-1] - times_s[-2])
    signals = np.zeros((3, num_samples))
    fiducials: dict[str, list[int | None]] = {}
    for wave in waves:
        # A P wave follows the interval before its R peak, everything else the interval after it.
        interval_s = np.concatenate((rr_s[:1], rr_s[:-1])) if wave.name == "P" else rr_s
        scale_B = (interval_s / REFERENCE_RR_S) ** wave.stretch
        centre_B = (times_s + wave.offset_s * scale_B) * fs
        width_B = scale_B * fs * (heart.qrs_width if wave.name in "QRS" else 1.0)
        shape = sum_of_bumps(centre_B, wave.rise_s * width_B, wave.fall_s * width_B, strength_B, num_samples)
        signals += np.outer(_projections(wave, heart), shape)
        fiducials[wave.name] = _inside(centre_B, num_samples)
    return Tracing(lead_1=signals[0], lead_2=signals[1], chest=signals[2], fiducials=_beats_inside(fiducials))


def sum_of_bumps(centre_B: Array, rise_B: Array, fall_B: Array, height_B: Array, num_samples: int) -> Array:
    """Sum of two-sided Gaussians, shape (num_samples,); centres and standard deviations in samples."""
    reach = int(4 * max(rise_B.max(), fall_B.max())) + 1
    index_BK = np.floor(centre_B).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)
    distance_BK = index_BK - centre_B[:, None]
    width_BK = np.where(distance_BK < 0, rise_B[:, None], fall_B[:, None])
    value_BK = height_B[:, None] * np.exp(-0.5 * (distance_BK / width_BK) ** 2)
    inside_BK = (index_BK >= 0) & (index_BK < num_samples)
    total = np.bincount(index_BK[inside_BK], weights=value_BK[inside_BK], minlength=num_samples)
    return total.astype(np.float64, copy=False)  # integers where no bump reaches in


def fibrillation_waves(rng: np.random.Generator, num_samples: int, fs: float) -> Array:
    """The fibrillating atria, peak about 1: 5 to 8 Hz, drifting in rate and size, shape (num_samples,)."""
    time_s = np.arange(num_samples) / fs
    rate_hz = rng.uniform(5.0, 8.0) + 0.7 * np.sin(
        2 * np.pi * (rng.uniform(0.1, 0.4) * time_s + rng.random())
    )
    phase = 2 * np.pi * (np.cumsum(rate_hz) / fs + rng.random())
    size = 0.75 + 0.25 * np.sin(2 * np.pi * (rng.uniform(0.2, 0.6) * time_s + rng.random()))
    return size * (0.8 * np.sin(phase) + 0.25 * np.sin(2 * phase + 0.7))


def _projections(wave: Wave, heart: Heart) -> Array:
    """Amplitude of the wave in lead I, lead II and vVX, in mV."""
    size = heart.amplitude * {"P": heart.p_amplitude, "T": heart.t_amplitude}.get(wave.name, 1.0)
    axis = np.deg2rad(wave.axis_deg + heart.axis_shift_deg)
    frontal_mv = wave.amplitude_mv * np.array([np.cos(axis), np.cos(axis - np.pi / 3)])
    return size * np.append(frontal_mv, wave.chest_mv * heart.chest)


def _inside(centre_B: Array, num_samples: int) -> list[int | None]:
    samples = np.rint(centre_B).astype(int).tolist()
    return [sample if 0 <= sample < num_samples else None for sample in samples]


def _beats_inside(fiducials: dict[str, list[int | None]]) -> dict[str, list[int | None]]:
    """Keeps the beats whose R peak lies in the record; without R waves, none."""
    kept = [beat for beat, sample in enumerate(fiducials.get("R", [])) if sample is not None]
    return {name: [samples[beat] for beat in kept] for name, samples in fiducials.items()}
