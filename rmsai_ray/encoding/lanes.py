"""Windows side by side in lanes: which lanes of a batch can be trusted to the bit, and batches made of them.

Shapes: N windows, L lanes of a batch, T samples, E dimensions of the embedding.

A row's result must not depend on its batch. The compiled loops treat every lane alike; a matrix library may
not: near the edge of a matrix it may add in another order. So the widths that are used, and the lanes of
each, are those that give the same bits for the same window, found out on this machine with matrices of this
model's shapes, when it is loaded.
"""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from rmsai_ray.encoding.errors import lane_errors
from rmsai_ray.errors import RmsaiError

FloatArray = npt.NDArray[np.float32]

WIDTHS = (32, 64, 128, 256)
"""Lanes of a batch, from small units of work to large ones."""
BATCH_COST = 16
"""What a batch costs beside its lanes, in lanes."""
PROBES = 4
DEFAULT_CACHE_BYTES = 512 << 10


@dataclass(frozen=True)
class Measured:
    """What an engine finds in N normalised windows."""

    embedding_NE: FloatArray
    errors_3N: FloatArray
    """Mean squared, mean absolute and worst squared error."""
    beats_N: list[npt.NDArray[np.int16]]

    @classmethod
    def empty(cls, num_windows: int, embedding_dim: int) -> Measured:
        """Of N windows, to be filled batch by batch."""
        return cls(
            np.empty((num_windows, embedding_dim), np.float32), np.empty((3, num_windows), np.float32), []
        )

    def put(
        self,
        rows: slice,
        embedding_BE: FloatArray,
        errors_3B: FloatArray,
        is_beat_BT: npt.NDArray[np.bool_],
    ) -> None:
        """The next batch."""
        self.embedding_NE[rows], self.errors_3N[:, rows] = embedding_BE, errors_3B
        found, places = np.nonzero(is_beat_BT)
        ends_B = np.cumsum(np.bincount(found, minlength=len(is_beat_BT)))
        self.beats_N.extend(np.split(places.astype(np.int16), ends_B[:-1]))


class Engine(Protocol):
    """Runs a network over windows."""

    def measure(self, x_NT: FloatArray, num_samples_N: npt.NDArray[np.int32]) -> Measured:
        """Embeddings, errors and beats of normalised windows; a row's result is that row's alone."""


@dataclass(frozen=True)
class LaneResult:
    """What a network made of the windows in all lanes; valid until its next batch."""

    embedding_EL: FloatArray
    x_TL: FloatArray
    y_TL: FloatArray
    """Reconstructions, in normalised units."""
    is_beat_LT: npt.NDArray[np.bool_]


class LaneNetwork(Protocol):
    """A family's network on lanes."""

    embedding_dim: int

    @property
    def matrices(self) -> Iterator[FloatArray]:
        """Every matrix that lanes are multiplied by."""

    def run(self, x_LT: FloatArray) -> LaneResult:
        """Embeddings, reconstructions and beats of normalised windows."""


class LaneEngine:
    """Runs a network over lanes, on one core.

    Args:
        network: the model's, on lanes.
        fs: sampling rate of the windows, Hz.
        batch_windows: most windows per batch, as far as the narrowest batch allows. Default: as many as the
            processor's cache holds.

    Raises:
        RmsaiError: the matrix library gives no two lanes the same bits.
    """

    def __init__(self, network: LaneNetwork, fs: float, *, batch_windows: int | None = None) -> None:
        self._network, self._fs = network, fs
        self._threads = ThreadpoolController()
        with self._threads.limit(limits=1, user_api="blas"):
            self._lanes = usable_lanes(network.matrices, batch_windows or WIDTHS[-1])

    def measure(self, x_NT: FloatArray, num_samples_N: npt.NDArray[np.int32]) -> Measured:
        """Embeddings, errors and beats of normalised windows."""
        found = Measured.empty(len(x_NT), self._network.embedding_dim)
        with self._threads.limit(limits=1, user_api="blas"):  # shared out, a product has other edges
            for lanes, rows in self._batches(len(x_NT)):
                found.put(rows, *self._measure_batch(x_NT[rows], num_samples_N[rows], lanes))
        return found

    def _measure_batch(
        self, x_BT: FloatArray, num_samples_B: npt.NDArray[np.int32], lanes: Lanes
    ) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
        x_LT = np.zeros((lanes.width, x_BT.shape[1]), np.float32)
        num_samples_L = np.ones(lanes.width, np.int32)
        used = slice(lanes.first, lanes.first + len(x_BT))
        x_LT[used], num_samples_L[used] = x_BT, num_samples_B
        result = self._network.run(x_LT)
        errors_3L = lane_errors(result.x_TL, result.y_TL, num_samples_L, self._fs)
        return result.embedding_EL[:, used].T, errors_3L[:, used], result.is_beat_LT[used]

    def _batches(self, num_windows: int) -> Iterator[tuple[Lanes, slice]]:
        start = 0
        for lanes in cheapest_batches(num_windows, self._lanes):
            yield lanes, slice(start, min(num_windows, start + lanes.num_usable))
            start += lanes.num_usable


class Buffers:
    """Memory that is used again in the next batch: fresh memory costs a page fault every 4 KiB."""

    def __init__(self) -> None:
        self._held: dict[str, FloatArray] = {}

    def get(self, name: str, *shape: int) -> FloatArray:
        """An array of that shape, holding anything; valid until the name is asked for again."""
        size = math.prod(shape)
        if name not in self._held or self._held[name].size < size:
            self._held[name] = np.empty(size, np.float32)
        return self._held[name][:size].reshape(shape)


@dataclass(frozen=True)
class Lanes:
    """A width, and the lanes of it whose bits are those of every other usable lane."""

    width: int
    first: int
    last: int

    @property
    def num_usable(self) -> int:
        """Windows of a batch."""
        return self.last - self.first


def usable_lanes(matrices: Iterable[FloatArray], most_windows: int) -> list[Lanes]:
    """Widths of which a step's largest product fits into the cache, narrowest first, with their usable lanes.

    Raises:
        RmsaiError: the matrix library gives no two lanes the same bits.
    """
    shapes = sorted({matrix.shape for matrix in matrices})
    most_rows = max(rows for rows, _ in shapes)
    most = min(most_windows, cache_bytes() // (4 * most_rows))
    widths = [width for width in WIDTHS if width <= max(most, WIDTHS[0])]
    is_same = {width: np.ones(width, np.bool_) for width in widths}
    random = np.random.default_rng(0)
    for shape in shapes * PROBES:
        weight_RK = random.standard_normal(shape).astype(np.float32)
        x_K1 = random.standard_normal((shape[1], 1)).astype(np.float32)
        y_RL = {width: np.matmul(weight_RK, np.repeat(x_K1, width, 1)) for width in widths}
        expected_R1 = y_RL[widths[-1]][:, widths[-1] // 2, None]
        for width in widths:
            is_same[width] &= (y_RL[width] == expected_R1).all(0)
    found = [_around_the_middle(is_same[width]) for width in widths if is_same[width][width // 2]]
    if not found:
        raise RmsaiError("numpy's matrix library gives no two windows of a batch the same bits")
    return found


def _around_the_middle(is_same_L: npt.NDArray[np.bool_]) -> Lanes:
    middle, (others,) = len(is_same_L) // 2, np.nonzero(~is_same_L)
    first = max(others[others < middle] + 1, default=0)
    return Lanes(len(is_same_L), int(first), int(min(others[others > middle], default=len(is_same_L))))


def cheapest_batches(num_windows: int, lanes: Sequence[Lanes]) -> list[Lanes]:
    """Batches that hold the windows: the widest while they are filled, then what computes least."""
    num_full, num_left = divmod(num_windows, lanes[-1].num_usable)
    cost_M: list[int] = [0]
    last_M: list[Lanes] = [lanes[0]]
    for num in range(1, num_left + 1):
        costs = [each.width + BATCH_COST + cost_M[max(0, num - each.num_usable)] for each in lanes]
        cost_M.append(min(costs))
        last_M.append(lanes[costs.index(cost_M[num])])
    rest = []
    while num_left > 0:
        rest.append(last_M[num_left])
        num_left -= last_M[num_left].num_usable
    return [lanes[-1]] * num_full + sorted(rest, key=lambda each: -each.width)


def cache_bytes() -> int:
    """The second-level cache of a core, as Linux tells it."""
    for place in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        if (place / "level").read_text().strip() == "2":
            return int((place / "size").read_text().strip().removesuffix("K")) << 10
    return DEFAULT_CACHE_BYTES
