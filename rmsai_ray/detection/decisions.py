"""From anomaly scores to decisions per window: three independent facts, and the worst of them by severity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmsai_ray.detection.thresholds import Texts, ThresholdProfile

NORMAL = "Normal"
UNKNOWN = "Unknown"
BRADYCARDIA = "Bradycardia"
TACHYCARDIA = "Tachycardia"
ATRIAL_FIBRILLATION = "Atrial Fibrillation"
VENTRICULAR_TACHYCARDIA = "Ventricular Tachycardia"

SEVERITY = {BRADYCARDIA: 1, TACHYCARDIA: 2, ATRIAL_FIBRILLATION: 3, VENTRICULAR_TACHYCARDIA: 4}
"""Of the anomaly types, as in the source documents."""

BRADYCARDIA_BPM = 60.0
"""At this heart rate and below."""
TACHYCARDIA_BPM = 100.0
"""At this heart rate and above."""

TextArray = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Decisions:
    """One entry per window in each array, shape (N,); the names are those of the windows table."""

    threshold: npt.NDArray[np.float32]
    """Of the base: knows no label."""
    threshold_condition: npt.NDArray[np.float32]
    """Of the condition that the monitor reported."""
    is_anomaly: npt.NDArray[np.bool_]
    """score > threshold."""
    is_anomaly_condition: npt.NDArray[np.bool_]
    """score > threshold_condition; never to be evaluated against that condition."""
    anomaly_status: TextArray
    """``anomaly`` or ``normal``, by whichever of the two decisions the profile names."""
    anomaly_type: TextArray
    """The severer of ``rhythm_class`` and ``rate_class``; None where neither is abnormal."""
    rhythm_class: TextArray
    """Normal, Atrial Fibrillation or Ventricular Tachycardia, by the score alone."""
    rate_class: TextArray
    """Bradycardia, Normal, Tachycardia, or Unknown, by the heart rate alone."""


def decide(
    scores: npt.ArrayLike,
    leads: Texts,
    conditions: Texts,
    heart_rates_bpm: Sequence[float | None] | npt.NDArray[np.float64],
    profile: ThresholdProfile,
) -> Decisions:
    """Decisions for N windows.

    Args:
        scores: anomaly scores in the profile's metric, shape (N,); compared as float32, as they are stored.
        leads: lead of each window.
        conditions: what the monitor reported, of each window's event.
        heart_rates_bpm: of each window's event; None or NaN where the monitor had none.
        profile: the thresholds.

    Raises:
        ValueError: a score is not a number: it would pass as normal.
        ConfigError: the profile has no threshold for a lead.
    """
    score_N = np.asarray(scores, dtype=np.float32)
    if np.isnan(score_N).any():
        raise ValueError(f"window {int(np.isnan(score_N).argmax())} has no score: reject it before deciding")
    base_N, condition_N = profile.lookup(leads, conditions)
    is_anomaly_N, is_anomaly_condition_N = score_N > base_N, score_N > condition_N
    rhythm_N = _rhythm(score_N, is_anomaly_N, leads, profile)
    rate_N = _rate(heart_rates_bpm)
    status_N = is_anomaly_condition_N if profile.status_by_condition else is_anomaly_N
    return Decisions(
        threshold=base_N,
        threshold_condition=condition_N,
        is_anomaly=is_anomaly_N,
        is_anomaly_condition=is_anomaly_condition_N,
        anomaly_status=np.where(status_N, "anomaly", "normal").astype(object),
        anomaly_type=_worst(rhythm_N, rate_N),
        rhythm_class=rhythm_N,
        rate_class=rate_N,
    )


def _rhythm(
    score_N: npt.NDArray[np.float32],
    is_anomaly_N: npt.NDArray[np.bool_],
    leads: Texts,
    profile: ThresholdProfile,
) -> TextArray:
    """Bands of the score: from the VT threshold, from the AF threshold, and what lies below."""
    rhythm_N = np.full(len(score_N), NORMAL, dtype=object)
    rhythm_N[is_anomaly_N & (score_N >= profile.of_class(leads, "AF"))] = ATRIAL_FIBRILLATION
    rhythm_N[is_anomaly_N & (score_N >= profile.of_class(leads, "VT"))] = VENTRICULAR_TACHYCARDIA
    return rhythm_N


def _rate(heart_rates_bpm: Sequence[float | None] | npt.NDArray[np.float64]) -> TextArray:
    rate_bpm_N = np.asarray(heart_rates_bpm, dtype=np.float64)  # None becomes NaN
    rate_N = np.full(len(rate_bpm_N), NORMAL, dtype=object)
    rate_N[rate_bpm_N <= BRADYCARDIA_BPM] = BRADYCARDIA
    rate_N[rate_bpm_N >= TACHYCARDIA_BPM] = TACHYCARDIA
    rate_N[np.isnan(rate_bpm_N)] = UNKNOWN
    return rate_N


def _worst(rhythm_N: TextArray, rate_N: TextArray) -> TextArray:
    """Every abnormal rhythm is severer than any abnormal rate."""
    type_N = rate_N.copy()
    type_N[(rate_N == NORMAL) | (rate_N == UNKNOWN)] = None
    has_rhythm_N = rhythm_N != NORMAL
    type_N[has_rhythm_N] = rhythm_N[has_rhythm_N]
    return type_N
