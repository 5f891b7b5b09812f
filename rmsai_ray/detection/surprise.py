"""Scores of any detector on one scale: how surprising a score is among those of normal windows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from rmsai_ray.detection.calibration import (
    ANY_LEAD,
    FEWEST_WINDOWS,
    patient_weights,
    weighted_quantiles,
)
from rmsai_ray.errors import CheckpointError

Float64Array = npt.NDArray[np.float64]

EDGE = 0.95
"""From this quantile on the tail is exponential, so that scores beyond the largest keep their order."""
SHARES = tuple((np.arange(96) / 100).tolist())
"""Probabilities of the quantiles that are kept, up to the edge."""


@dataclass(frozen=True, kw_only=True)
class Tail:
    """How often normal windows score higher: ``surprise = −log10 P(score of a normal window ≥ s)``."""

    scores: tuple[float, ...]
    """Strictly ascending quantiles of normal scores; the last is the tail's edge."""
    shares: tuple[float, ...]
    """Share of the normal scores below each; 0.95 at the edge."""
    decay: float
    """Mean excess of the scores beyond the edge: there ``P = 0.05 · exp(−(s − edge) / decay)``."""

    def __post_init__(self) -> None:
        numbers = (*self.scores, *self.shares, self.decay)
        ascending = all(a < b for a, b in zip(self.scores, self.scores[1:], strict=False))
        is_sound = ascending and len(self.scores) == len(self.shares) >= 1 and self.decay > 0
        if not is_sound or not all(map(math.isfinite, numbers)) or not 0 <= max(self.shares) <= EDGE:
            raise CheckpointError("tail of normal scores: expected ascending finite numbers, found others")

    def surprise(self, score_N: npt.NDArray[np.floating[Any]]) -> Float64Array:
        """Surprise of each score, 0 and more; 1.3 at the 95 % quantile, 2 where one in 100 is as high."""
        score_N = np.asarray(score_N, np.float64)
        within_N = -np.log10(1 - np.interp(score_N, self.scores, self.shares))
        excess_N = np.maximum(score_N - self.scores[-1], 0)
        return np.asarray(within_N + excess_N / self.decay / math.log(10))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        return cls(
            scores=tuple(map(float, values["scores"])),
            shares=tuple(map(float, values["shares"])),
            decay=float(values["decay"]),
        )


Tails = Mapping[str, Tail]
"""By lead; ``*`` is every other lead."""


def fit_tails(
    scores_N: npt.ArrayLike, leads_N: npt.NDArray[np.str_], patients_N: npt.NDArray[np.str_] | None = None
) -> dict[str, Tail]:
    """Tails of the scores of normal windows, by lead; a lead with few windows is left to ``*``, all of them.

    Each patient counts alike where ``patients_N`` is given.
    """
    score_N = np.asarray(scores_N, np.float64)
    found = {}
    for lead in (ANY_LEAD, *np.unique(leads_N).tolist()):
        rows = np.flatnonzero((leads_N == lead) | (lead == ANY_LEAD))
        if lead == ANY_LEAD or len(rows) >= FEWEST_WINDOWS:
            weight = np.ones(len(rows)) if patients_N is None else patient_weights(patients_N[rows])
            found[lead] = _fit_tail(score_N[rows], weight)
    return found


def surprises(
    scores_N: npt.NDArray[np.floating[Any]], leads_N: npt.NDArray[np.str_], tails: Tails
) -> Float64Array:
    """Surprise of each score among the normal ones of its lead, shape (N,)."""
    surprise_N = np.empty(len(scores_N))
    for lead in np.unique(leads_N).tolist():
        rows = np.flatnonzero(leads_N == lead)
        surprise_N[rows] = tails.get(lead, tails[ANY_LEAD]).surprise(scores_N[rows])
    return surprise_N


def _fit_tail(score_N: Float64Array, weight_N: Float64Array) -> Tail:
    quantiles = weighted_quantiles(score_N, weight_N, SHARES)
    scores, first = np.unique(quantiles, return_index=True)
    edge = scores[-1]
    above_N = score_N > edge
    excess = float(np.average(score_N[above_N] - edge, weights=weight_N[above_N])) if above_N.any() else 0.0
    smallest = max(0.01 * (edge - np.median(quantiles)), 1e-3 * abs(edge), 1e-9)
    return Tail(
        scores=tuple(scores.tolist()),
        shares=tuple(SHARES[place] for place in first.tolist()),
        decay=max(excess, float(smallest)),
    )


def quadratic_mean(surprises_MN: Sequence[Float64Array]) -> npt.NDArray[np.float32]:
    """The ensemble's score, shape (N,): one member that is sure weighs more than two that wonder."""
    total_N = np.zeros_like(surprises_MN[0])
    for surprise_N in surprises_MN:
        total_N = total_N + surprise_N**2
    return np.asarray(np.sqrt(total_N / len(surprises_MN)), np.float32)
