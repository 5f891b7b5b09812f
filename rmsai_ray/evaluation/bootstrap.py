"""Intervals of figures by drawing patients again: windows of one patient are no independent evidence.

Shapes: N scored things, P patients, V distinct values of a score, D draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rmsai_ray.evaluation.metrics import Labels, Scores, auprc, auroc

NUM_DRAWS = 1000
LOW_PERCENTILE, HIGH_PERCENTILE = 2.5, 97.5

Array = npt.NDArray[np.float64]
Figure = Literal["auroc", "auprc"]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure and the middle 95 % of what it is when patients are drawn again."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """What is not a number is null."""
        return {name: value if np.isfinite(value) else None for name, value in asdict(self).items()}


def draw_patients(
    patients_N: npt.NDArray[Any], *, seed: int, num_draws: int = NUM_DRAWS
) -> npt.NDArray[np.float32]:
    """How often each thing counts in each draw of as many patients as there are, with replacement, (D, N).

    Every score that is compared takes the same draws, so that differences are paired.
    """
    names, place_N = np.unique(patients_N, return_inverse=True)
    drawn = np.random.default_rng(seed).integers(len(names), size=(num_draws, len(names)))
    counts_DP = np.stack([np.bincount(draw, minlength=len(names)) for draw in drawn]).astype(np.float32)
    return counts_DP[:, place_N]


def interval(value: float, draws_D: Array) -> Interval:
    """Percentile interval; draws that have only one class are left out."""
    known = draws_D[np.isfinite(draws_D)]
    if not len(known):
        return Interval(value=value, low=float("nan"), high=float("nan"))
    low, high = np.percentile(known, [LOW_PERCENTILE, HIGH_PERCENTILE])
    return Interval(value=value, low=float(low), high=float(high))


def figures_with_intervals(
    figure: Figure,
    scores: Mapping[str, Scores],
    is_positive_N: Labels,
    weights_DN: npt.NDArray[np.float32],
    *,
    compared_with: str | None = None,
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """(the figure of every score, its difference to the score ``compared_with``), each with an interval."""
    exact = {"auroc": auroc, "auprc": auprc}[figure]
    values = {name: exact(score_N, is_positive_N) for name, score_N in scores.items()}
    draws = {
        name: Ranking(score_N, is_positive_N).drawn(figure, weights_DN) for name, score_N in scores.items()
    }
    own = {name: interval(values[name], draws[name]) for name in scores}
    if compared_with is None:
        return own, {}
    differences = {
        name: interval(values[name] - values[compared_with], draws[name] - draws[compared_with])
        for name in scores
        if name != compared_with
    }
    return own, differences


class Ranking:
    """A score's order, found once, so that a figure of a draw costs two running sums."""

    def __init__(self, scores_N: Scores, is_positive_N: Labels) -> None:
        self._order_N = np.argsort(-scores_N, kind="stable")
        sorted_N = scores_N[self._order_N]
        self._ends_V = np.flatnonzero(np.append(sorted_N[1:] != sorted_N[:-1], True))
        self._is_positive_N = is_positive_N[self._order_N]

    def drawn(self, figure: Figure, weights_DN: npt.NDArray[np.float32]) -> Array:
        """The figure in every draw; NaN where a draw has only one class."""
        one = self._auroc if figure == "auroc" else self._auprc
        return np.array([one(*self._counts(weights_N)) for weights_N in weights_DN])

    def _counts(self, weights_N: npt.NDArray[np.float32]) -> tuple[Array, Array]:
        """(true, false) positives at and above each distinct value."""
        sorted_N = weights_N[self._order_N].astype(np.float64)
        all_V = np.cumsum(sorted_N)[self._ends_V]
        true_V = np.cumsum(sorted_N * self._is_positive_N)[self._ends_V]
        return true_V, all_V - true_V

    @staticmethod
    def _auroc(true_V: Array, false_V: Array) -> float:
        if true_V[-1] == 0 or false_V[-1] == 0:
            return float("nan")
        steps_V = np.diff(false_V, prepend=0.0)
        middle_V = true_V - np.diff(true_V, prepend=0.0) / 2
        return float(steps_V @ middle_V / (true_V[-1] * false_V[-1]))

    @staticmethod
    def _auprc(true_V: Array, false_V: Array) -> float:
        if true_V[-1] == 0 or false_V[-1] == 0:
            return float("nan")
        alarms_V = true_V + false_V
        precision_V = np.divide(true_V, alarms_V, out=np.zeros_like(true_V), where=alarms_V > 0)
        return float(np.diff(true_V, prepend=0.0) @ precision_V / true_V[-1])
