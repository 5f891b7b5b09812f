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

STATUSES = np.array(["normal", "anomaly"], object)
RHYTHMS = np.array([NORMAL, ATRIAL_FIBRILLATION, VENTRICULAR_TACHYCARDIA], object)
RATES = np.array([NORMAL, BRADYCARDIA, TACHYCARDIA, UNKNOWN], object)
WORST = np.array(
    [
        [None, BRADYCARDIA, TACHYCARDIA, None],
        [ATRIAL_FIBRILLATION] * 4,
        [VENTRICULAR_TACHYCARDIA] * 4,
    ],
    object,
)
"""Anomaly type by rhythm and rate: every abnormal rhythm is severer than any abnormal rate."""


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
        anomaly_status=STATUSES[status_N.astype(np.intp)],
        anomaly_type=WORST[rhythm_N, rate_N],
        rhythm_class=RHYTHMS[rhythm_N],
        rate_class=RATES[rate_N],
    )


def _rhythm(
    score_N: npt.NDArray[np.float32],
    is_anomaly_N: npt.NDArray[np.bool_],
    leads: Texts,
    profile: ThresholdProfile,
) -> npt.NDArray[np.intp]:
    """Which of :data:`RHYTHMS`: from the VT threshold, from the AF threshold, and what lies below."""
    is_vt_N = score_N >= profile.of_class(leads, "VT")
    is_af_N = score_N >= profile.of_class(leads, "AF")
    return np.where(is_anomaly_N, np.where(is_vt_N, 2, is_af_N), 0)


def _rate(heart_rates_bpm: Sequence[float | None] | npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Which of :data:`RATES`."""
    rate_bpm_N = np.asarray(heart_rates_bpm, dtype=np.float64)  # None becomes NaN
    is_slow_N, is_fast_N = rate_bpm_N <= BRADYCARDIA_BPM, rate_bpm_N >= TACHYCARDIA_BPM
    return np.asarray(is_slow_N * 1 + is_fast_N * 2 + np.isnan(rate_bpm_N) * 3, np.intp)
