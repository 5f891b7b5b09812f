"""What every score has to beat: chance, an untrained network, the heart rate, its irregularity, the energy.

Shapes: N windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rmsai_ray.detection.detectors import DETECTORS, Measured
from rmsai_ray.evaluation.subsequences import subsequence_scores
from rmsai_ray.signals.rhythm import Rhythm
from rmsai_ray.training.data import WindowSet

FloatArray = npt.NDArray[np.float32]

BASELINES = (
    "random",
    "untrained_error",
    "untrained_worst_error",
    "untrained_mahalanobis",
    "heart_rate",
    "rr_irregularity",
    "rms",
    "sub_pca",
    "knn_raw",
    "k_shape",
)


@dataclass(frozen=True)
class Part:
    """Windows, and what an untrained network of the same architecture says of them."""

    windows: WindowSet
    untrained: Measured

    def take(self, rows: npt.NDArray[Any]) -> Part:
        """The windows that a mask or an index array selects."""
        return Part(self.windows.take(rows), self.untrained.take(rows))


def baseline_scores(
    normal: Part, asked: Mapping[str, Part], fs: float, *, seed: int
) -> dict[str, dict[str, FloatArray]]:
    """Finite scores by part and baseline, fitted on the normal training windows; higher is more anomalous."""
    pieces = subsequence_scores(
        normal.windows.signals_NT,
        normal.windows.num_samples_N,
        {name: (part.windows.signals_NT, part.windows.num_samples_N) for name, part in asked.items()},
        fs,
        seed=seed,
    )
    distance = DETECTORS.get("mahalanobis")()
    distance.fit(normal.untrained, seed=seed)
    usual = normal.untrained.rhythm
    rng = np.random.default_rng(seed)
    return {
        name: {
            "random": rng.random(len(part.windows)).astype(np.float32),
            "untrained_error": part.untrained.mse_N,
            "untrained_worst_error": part.untrained.worst_mse_N,
            "untrained_mahalanobis": distance.anomaly_score(part.untrained),
            **rhythm_scores(usual, part.untrained.rhythm),
            **{baseline: by_part[name] for baseline, by_part in pieces.items()},
        }
        for name, part in asked.items()
    }


def rhythm_scores(usual: Rhythm, rhythm: Rhythm) -> dict[str, FloatArray]:
    """Heart rate (distance to the usual one, both ways), RR irregularity and RMS, each alone.

    A window in which no rhythm was found gets the usual windows' highest score: that no beat is found is
    a finding, but no reason to rank it above everything.
    """
    rates_N = usual.heart_rate_bpm_N[np.isfinite(usual.heart_rate_bpm_N)]
    middle = np.median(rates_N) if len(rates_N) else np.float32(0)
    return {
        "heart_rate": _filled(
            np.abs(rhythm.heart_rate_bpm_N - middle), np.abs(usual.heart_rate_bpm_N - middle)
        ),
        "rr_irregularity": _filled(rhythm.rr_irregularity_N, usual.rr_irregularity_N),
        "rms": rhythm.rms_N,
    }


def _filled(scores_N: FloatArray, usual_N: FloatArray) -> FloatArray:
    highest = np.nanmax(usual_N) if np.isfinite(usual_N).any() else 0.0
    return np.where(np.isfinite(scores_N), scores_N, highest).astype(np.float32)
