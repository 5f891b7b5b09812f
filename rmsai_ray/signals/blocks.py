"""Windows a few at a time, so that what is computed of them between memory and result fits into a cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = slice | npt.NDArray[np.int64]

SAMPLES_AT_ONCE = 1 << 16
"""512 KiB of float64, half of a common core's own cache."""


def equally_long(num_samples_N: npt.NDArray[np.integer[Any]]) -> Iterator[tuple[Rows, int]]:
    """(rows, samples of each) of a few windows that have as many real samples; every window once.

    Rows that follow each other come as a slice, which copies nothing. No result may depend on which windows
    are put together here: it is a question of speed alone.
    """
    lengths_N = np.asarray(num_samples_N)
    if len(lengths_N) and lengths_N.min() == lengths_N.max():
        yield from _blocks(len(lengths_N), int(lengths_N[0]))
        return
    for length in np.unique(lengths_N).tolist():
        rows = np.flatnonzero(lengths_N == length)
        for some in _blocks(len(rows), length):
            yield rows[some[0]], length


def _blocks(num_rows: int, length: int) -> Iterator[tuple[slice, int]]:
    rows_at_once = max(1, SAMPLES_AT_ONCE // max(1, length))
    for first in range(0, num_rows, rows_at_once):
        yield slice(first, min(num_rows, first + rows_at_once)), length
