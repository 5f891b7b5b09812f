"""The figures of a trained model: calibration from validation, and what the held-out patients say.

Shapes: N windows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from rmsai_ray.training.data import WindowLabels

PERCENTILE = 95
FEWEST_WINDOWS = 20
"""Below it, a lead has no percentile of its own and takes that of all leads."""


def calibrate(
    errors_N: npt.NDArray[np.float32], validation: WindowLabels, leads: tuple[str, ...]
) -> dict[str, Any]:
    """``T_normal`` by lead: the 95th percentile of the errors of normal validation windows."""
    errors_by_lead = {lead: errors_N[validation.is_normal_N & (validation.leads_N == lead)] for lead in leads}
    overall = float(np.percentile(errors_N[validation.is_normal_N], PERCENTILE))
    return {
        "metric": "mse",
        "percentile": PERCENTILE,
        "T_normal": {
            lead: float(np.percentile(errors, PERCENTILE)) if len(errors) >= FEWEST_WINDOWS else overall
            for lead, errors in errors_by_lead.items()
        },
        "num_windows": {lead: len(errors) for lead, errors in errors_by_lead.items()},
    }


def held_out_figures(
    errors_N: npt.NDArray[np.float32], test: WindowLabels, patients_by_source: dict[str, tuple[str, ...]]
) -> dict[str, Any]:
    """Mean errors of the test patients' windows by source, lead and condition; 1 is as good as predicting 0.

    ``auroc_abnormal``: how well the plain error tells abnormal from normal windows, by source; null where a
    source has only one kind.
    """
    sources = {
        name: np.isin(test.patients_N, patients)
        for name, patients in zip(_short_names(patients_by_source), patients_by_source.values(), strict=True)
    }
    return {
        "mse_normal": _mean(errors_N[test.is_normal_N]),
        "mse_normal_by_source": {
            name: _mean(errors_N[is_in_N & test.is_normal_N]) for name, is_in_N in sources.items()
        },
        "mse_normal_by_lead": _mean_by(errors_N[test.is_normal_N], test.leads_N[test.is_normal_N]),
        "mse_by_condition": _mean_by(errors_N, test.conditions_N),
        "auroc_abnormal_by_source": {
            name: auroc(errors_N[is_in_N], ~test.is_normal_N[is_in_N]) for name, is_in_N in sources.items()
        },
        "num_windows": len(test),
        "num_normal_windows": int(test.is_normal_N.sum()),
    }


def _short_names(uris: Iterable[str]) -> list[str]:
    """Last parts of the URIs, unless two are alike."""
    uris = list(uris)
    names = [uri.rstrip("/").rpartition("/")[2] for uri in uris]
    return names if len(set(names)) == len(names) else uris


def auroc(scores_N: npt.NDArray[np.float32], is_positive_N: npt.NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve (the Mann-Whitney statistic, ties count half); None with one class only."""
    num_positive = int(is_positive_N.sum())
    num_pairs = num_positive * (len(scores_N) - num_positive)
    if num_pairs == 0:
        return None
    ranks = rankdata(scores_N)[is_positive_N].sum()
    return float((ranks - num_positive * (num_positive + 1) / 2) / num_pairs)


def _mean_by(errors_N: npt.NDArray[np.float32], groups_N: npt.NDArray[np.str_]) -> dict[str, float | None]:
    return {str(group): _mean(errors_N[groups_N == group]) for group in np.unique(groups_N)}


def _mean(errors_N: npt.NDArray[np.float32]) -> float | None:
    return float(errors_N.mean()) if len(errors_N) else None
