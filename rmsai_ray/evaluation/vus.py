"""VUS-PR: how well a point-wise score finds ranges, whatever the threshold and the tolerance at their edges.

Paparrizos et al., "Volume Under the Surface", PVLDB 15(11), 2022. The authors' package ``vus`` requires
TensorFlow, so the definition is written down here; the tests hold numbers that version 0.0.6 of it gave.

Shapes: T points in time, K thresholds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

NUM_THRESHOLDS = 250

Ranges = list[tuple[int, int]]


def vus_pr(
    scores_T: npt.NDArray[np.floating[Any]],
    is_positive_T: npt.NDArray[np.bool_],
    max_buffer: int,
    *,
    num_thresholds: int = NUM_THRESHOLDS,
) -> float:
    """The mean over buffers of 0 to ``max_buffer`` points of the range-aware area under precision and recall.

    A buffer lets the label fade out over half its length on both sides of each range. Recall is multiplied by
    the share of ranges that were found at all. NaN where no point, or every point, is positive.
    """
    if is_positive_T.all() or not is_positive_T.any():
        return float("nan")
    surface = _Surface(scores_T, is_positive_T, num_thresholds)
    return float(np.mean([surface.area(buffer) for buffer in range(max_buffer + 1)]))


class _Surface:
    """The thresholds, and for each the points at or above it, as places in the descending order of scores."""

    def __init__(
        self,
        scores_T: npt.NDArray[np.floating[Any]],
        is_positive_T: npt.NDArray[np.bool_],
        num_thresholds: int,
    ) -> None:
        self._scores_T, self._is_positive_T = scores_T, is_positive_T
        self._order_T = np.argsort(-scores_T, kind="stable")
        sorted_T = scores_T[self._order_T]
        self._thresholds_K = sorted_T[np.linspace(0, len(sorted_T) - 1, num_thresholds).astype(int)]
        self._num_alarms_K = np.searchsorted(-sorted_T, -self._thresholds_K, side="right")
        self._ranges = _ranges(is_positive_T)

    def area(self, buffer: int) -> float:
        soft_T = _soften(self._is_positive_T, self._ranges, buffer)
        num_positive = self._is_positive_T.sum()
        hits_K = self._above(soft_T)
        edges_K = self._above(np.where(self._is_positive_T, 0.0, soft_T))
        recall_K = np.minimum(hits_K / (num_positive + edges_K / 2), 1) * self._share_found(buffer)
        precision_K = hits_K / self._num_alarms_K
        return float(np.diff(recall_K, prepend=0.0) @ precision_K)

    def _above(self, values_T: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sum of the values of all points at or above each threshold."""
        sums: npt.NDArray[np.float64] = np.cumsum(values_T[self._order_T])[self._num_alarms_K - 1]
        return sums

    def _share_found(self, buffer: int) -> npt.NDArray[np.float64]:
        """Of the ranges, widened and joined where they then touch, by threshold."""
        highest = np.array([self._scores_T[first:end].max() for first, end in self._widened(buffer)])
        found_K: npt.NDArray[np.float64] = (highest[:, None] >= self._thresholds_K).mean(0)
        return found_K

    def _widened(self, buffer: int) -> Ranges:
        reach, num_points = buffer // 2, len(self._scores_T)
        joined: Ranges = []
        for first, end in self._ranges:
            low, high = max(first - reach, 0), min(end + reach, num_points)
            if joined and low <= joined[-1][1] - 1:
                joined[-1] = (joined[-1][0], high)
            else:
                joined.append((low, high))
        return joined


def _ranges(is_positive_T: npt.NDArray[np.bool_]) -> Ranges:
    """(first, end) of each run of positive points."""
    edges = np.flatnonzero(np.diff(is_positive_T.astype(np.int8), prepend=0, append=0))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _soften(is_positive_T: npt.NDArray[np.bool_], ranges: Ranges, buffer: int) -> npt.NDArray[np.float64]:
    """Labels that fade as √(1 − distance / buffer) over half the buffer outside of each range."""
    soft_T = is_positive_T.astype(np.float64)
    reach = buffer // 2
    for first, end in ranges:
        after = np.arange(end, min(end + reach, len(soft_T)))
        soft_T[after] += np.sqrt(1 - (after - (end - 1)) / buffer) if buffer else 0
        before = np.arange(max(first - reach, 0), first)
        soft_T[before] += np.sqrt(1 - (first - before) / buffer) if buffer else 0
    return np.minimum(soft_T, 1)
