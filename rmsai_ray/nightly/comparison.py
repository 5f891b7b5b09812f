"""Champion against challenger on the same held-out patients.

Shapes: N windows, P patients, D draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rmsai_ray.detection.detector_set import ENSEMBLE, DetectorSet
from rmsai_ray.detection.measured import Measured
from rmsai_ray.evaluation.bootstrap import draw_patients, figures_with_intervals, interval
from rmsai_ray.training.data import WindowSet

FEWEST_PATIENTS = 3
SEED = 0
TRIVIAL_ERROR = 1.0
"""Of a model that predicts each window's mean: errors are in units of the window's variance."""

Contestant = tuple[Measured, DetectorSet | None]


def compare(windows: WindowSet, *, champion: Contestant, challenger: Contestant) -> dict[str, Any]:
    """Figures of both, their differences, and the decision.

    The challenger is better where the interval of ``champion − challenger`` of the mean error of normal
    windows, each patient counting alike, lies above 0, and the interval of the AUROC's change does not lie
    below 0 (abnormal against normal windows, by the score that would make the alarms).

    Args:
        windows: of the held-out patients.
        champion: what it measures of them, and its detectors.
        challenger: likewise.
    """
    contestants = {"champion": champion, "challenger": challenger}
    errors = {name: _patient_errors(windows, measured) for name, (measured, _) in contestants.items()}
    gain_P = errors["champion"] - errors["challenger"]
    weights_DP = draw_patients(np.arange(len(gain_P)), seed=SEED).astype(np.float64)
    weights_DP /= weights_DP.sum(axis=1, keepdims=True)
    mse = {name: interval(float(error_P.mean()), weights_DP @ error_P) for name, error_P in errors.items()}
    gain = interval(float(gain_P.mean()), weights_DP @ gain_P)
    scores = {name: _scores(*contestant) for name, contestant in contestants.items()}
    scores["trivial"] = _spread(windows)
    weights_DN = draw_patients(windows.patients_N, seed=SEED)
    auroc, change = figures_with_intervals(
        "auroc", scores, ~windows.is_normal_N, weights_DN, compared_with="champion"
    )
    is_worse_detector = bool(np.isfinite(change["challenger"].high) and change["challenger"].high < 0)
    return {
        "metric": "mean error of normal windows, each held-out patient counting alike",
        "patients": len(gain_P),
        "windows": len(windows),
        "abnormal_windows": int((~windows.is_normal_N).sum()),
        "mse_normal": {name: found.to_json() for name, found in mse.items()} | {"trivial": TRIVIAL_ERROR},
        "gain": gain.to_json(),
        "auroc": {name: found.to_json() for name, found in auroc.items()},
        "auroc_change": change["challenger"].to_json(),
        "is_better": bool(gain.low > 0 and not is_worse_detector),
    }


def _patient_errors(windows: WindowSet, measured: Measured) -> npt.NDArray[np.float64]:
    """Mean error of each patient's normal windows, (P,)."""
    normal_N = windows.is_normal_N
    _, place_N = np.unique(windows.patients_N[normal_N], return_inverse=True)
    found: npt.NDArray[np.float64] = np.bincount(place_N, measured.mse_N[normal_N]) / np.bincount(place_N)
    return found


def _scores(measured: Measured, detectors: DetectorSet | None) -> npt.NDArray[np.float32]:
    """What would make the alarms: the ensemble of its detectors, or the plain error without any."""
    return measured.mse_N if detectors is None else detectors.scores(measured)[ENSEMBLE]


def _spread(windows: WindowSet) -> npt.NDArray[np.float32]:
    """Standard deviation of each window's real samples: a score that needs no model."""
    rows = zip(windows.signals_NT, windows.num_samples_N, strict=True)
    return np.array([row[:num].std() for row, num in rows], np.float32)
