"""The detector of heart rate and irregularity alone: it looks at no model."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from rmsai_ray.detection.error_detectors import BAND, two_sided_distance
from rmsai_ray.detection.measured import Float32Array, Measured
from rmsai_ray.detection.protocol import (
    DETECTORS,
    KeepsArrays,
    check_fit,
    own_leads,
    places_of,
    rows_of,
)

Float64Array = npt.NDArray[np.float64]

RATE_BAND = (0.01, 0.5, 0.99)
"""Quantiles of the normal rates. Within it the rate says more of the patient than of the rhythm."""
RATE_WEIGHT = 2.0
"""Of the distance outside of that band. On the development records 1 to 8 made no difference."""

NO_RHYTHM_SCORE = 3.0
"""Of a window in which no two beats were found: asystole, fibrillating ventricles, or a lead that fell off.

All of these deserve a look. It is three times as irregular as the edge of the normal band, more than nearly
all normal windows, and less than a rhythm that was measured to be grossly abnormal.
"""
FEWEST_WITH_RHYTHM = 0.5
"""Share of normal windows: with fewer the windows are too short for a rhythm, and it says nothing of any."""


@DETECTORS.register("rhythm")
class RhythmDetector(KeepsArrays):
    """How far heart rate and irregularity lie from those of normal windows of the lead.

    The larger of two distances. Irregularity counts upwards: the median of normal windows is 0, their 95 %
    quantile 1. The logarithm of the rate counts in both directions, but only where it leaves the band of
    nearly all normal windows: 2 · (distance − 1), with the band's edge at distance 1. Of two beats only the
    rate is known.
    """

    name = "rhythm"
    kept: ClassVar = {
        "leads": ("U", 1),
        "rate_band_L3": ("f", 2),
        "irregularity_band_L3": ("f", 2),
        "speaks": ("i", 1),
    }

    def fit(self, normal: Measured, *, seed: int) -> None:
        """Finds the bands of every lead."""
        check_fit(normal)
        rate_N, irregularity_N = _features(normal)
        leads = own_leads(normal.leads_N[np.isfinite(irregularity_N)])
        rows = [rows_of(normal.leads_N, lead) for lead in leads]
        self._learn(
            leads=leads,
            rate_band_L3=np.stack([_band(rate_N[of_lead], RATE_BAND) for of_lead in rows]),
            irregularity_band_L3=np.stack([_band(irregularity_N[of_lead], BAND) for of_lead in rows]),
            speaks=np.array([np.isfinite(rate_N).mean() >= FEWEST_WITH_RHYTHM], np.int64),
        )

    def anomaly_score(self, measured: Measured) -> Float32Array:
        """The larger distance; :data:`NO_RHYTHM_SCORE` where there are no beats."""
        learned = self.learned
        if not learned["speaks"][0]:
            return np.zeros(len(measured), np.float32)
        rate_N, irregularity_N = _features(measured)
        place_N = places_of(measured.leads_N, learned["leads"])
        rate_distance_N = two_sided_distance(rate_N, learned["rate_band_L3"][place_N])
        _, middle_N, upper_N = learned["irregularity_band_L3"][place_N].T
        irregular_N = (irregularity_N - middle_N) / np.maximum(upper_N - middle_N, 1e-3)
        score_N = np.fmax(RATE_WEIGHT * (rate_distance_N - 1), irregular_N)
        return np.where(np.isnan(rate_N), NO_RHYTHM_SCORE, score_N).astype(np.float32)


def _features(measured: Measured) -> tuple[Float64Array, Float64Array]:
    """Logarithm of the heart rate, and irregularity; NaN where unknown."""
    rhythm = measured.rhythm
    return np.log(rhythm.heart_rate_bpm_N.astype(np.float64)), rhythm.rr_irregularity_N.astype(np.float64)


def _band(values_N: Float64Array, quantiles: tuple[float, float, float]) -> Float64Array:
    known = values_N[np.isfinite(values_N)]
    return np.quantile(known, quantiles) if len(known) else np.zeros(3)
