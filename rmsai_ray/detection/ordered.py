"""Products and distances of rows whose last bit does not depend on the other rows, nor on their number.

A BLAS adds up in an order that it chooses by the shape of the whole matrix. Here every element is added up
in the order of the columns. Shapes: N rows, B of them at once, K columns, M columns of the result.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]

ROWS_AT_ONCE = 128
"""Rows whose intermediate results still fit into a processor's cache."""


def blocks(num_rows: int) -> Iterator[slice]:
    """Slices of at most :data:`ROWS_AT_ONCE` rows."""
    return (slice(first, first + ROWS_AT_ONCE) for first in range(0, num_rows, ROWS_AT_ONCE))


def product(x_NK: npt.NDArray[np.floating], w_KM: Float64Array) -> Float64Array:
    """``x @ w``, shape (N, M)."""
    y_NM = np.zeros((len(x_NK), w_KM.shape[1]))
    term_BM = np.empty((min(ROWS_AT_ONCE, len(x_NK)), w_KM.shape[1]))
    for rows in blocks(len(x_NK)):
        x_BK, y_BM = x_NK[rows].astype(np.float64), y_NM[rows]
        for k in range(x_BK.shape[1]):
            y_BM += np.multiply(x_BK[:, k, None], w_KM[k], out=term_BM[: len(x_BK)])
    return y_NM


def squared_lengths(x_NK: Float64Array) -> Float64Array:
    """Sums of squares of each row, shape (N,)."""
    sum_N = np.zeros(len(x_NK))
    for k in range(x_NK.shape[1]):
        sum_N += x_NK[:, k] * x_NK[:, k]
    return sum_N


def squared_distances(x_NK: npt.NDArray[np.floating], centres_MK: Float64Array) -> Float64Array:
    """Squared distances of every row from every centre, shape (N, M)."""
    distance_NM = np.zeros((len(x_NK), len(centres_MK)))
    for rows in blocks(len(x_NK)):
        x_BK, distance_BM = x_NK[rows].astype(np.float64), distance_NM[rows]
        for k in range(x_BK.shape[1]):
            difference_BM = x_BK[:, k, None] - centres_MK[:, k]
            difference_BM *= difference_BM
            distance_BM += difference_BM
    return distance_NM
