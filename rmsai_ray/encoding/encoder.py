"""Windows → embeddings, reconstructions and their errors, in batches that fit into memory.

Shapes: N windows, B of them in one batch, T samples of a window, E dimensions of the embedding.
"""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from rmsai_ray.encoding.framed import FramedLanes
from rmsai_ray.encoding.lanes import Engine, LaneEngine, LaneNetwork, Measured
from rmsai_ray.encoding.recurrent import RecurrentLanes
from rmsai_ray.errors import RmsaiError
from rmsai_ray.models.bundle import ModelBundle, ModelSpec
from rmsai_ray.models.frozen import FrozenModel

if TYPE_CHECKING:
    from rmsai_ray.encoding.torch_engine import TorchEngine

FloatArray = npt.NDArray[np.float32]

LANE_NETWORKS: dict[str, Callable[[ModelSpec, Mapping[str, FloatArray]], LaneNetwork]] = {
    "framed": FramedLanes,
    "recurrent": RecurrentLanes,
}
"""Families that run on lanes on a CPU. Other families, which users register, run in torch."""

TOLERANCE = 1e-5
"""Of embeddings (absolute) and errors (relative) between lanes and torch."""
CHECKED_WINDOWS = 16
FEWEST_WINDOWS = 32
"""What the narrowest batch computes anyway."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """What a model says of N windows."""

    embedding_NE: FloatArray
    mse_N: FloatArray
    """Mean squared error over the real samples, in normalised units."""
    mae_N: FloatArray
    """Mean absolute error over the real samples, in normalised units."""
    worst_mse_N: FloatArray
    """Mean squared error of the worst twentieth of the window, without noise: a short abnormal beat drowns in
    the mean of a long window."""
    beats_N: list[npt.NDArray[np.int16]]
    """Samples of each window at which the model found a beat; none for a model that looks for none."""
    offset_N: FloatArray
    """normalised = (signal − offset) / scale."""
    scale_N: FloatArray

    @classmethod
    def joined(cls, parts: Sequence[Encoded]) -> Encoded:
        """Of all windows of the parts, in their order."""
        found: dict[str, Any] = {
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(cls)
            if field.name != "beats_N"
        }
        return cls(**found, beats_N=[beats for part in parts for beats in part.beats_N])

    @property
    def mse_raw_N(self) -> FloatArray:  # noqa: N802
        """Mean squared error in the signal's own unit, squared."""
        return self.mse_N * self.scale_N**2


class WindowEncoder:
    """Holds a model, ready to run: on lanes on a CPU, where its family can; else in torch. For one thread.

    A frozen model's lanes are not compared with torch, which they do without; a bundle's are, so a driver
    makes an encoder of the bundle before its workers make theirs of the frozen model.

    Args:
        bundle: the model, with its normaliser.
        device: ``cpu`` or ``cuda``.
        batch_windows: most windows per forward pass; no result depends on it. Default: chosen from memory.

    Raises:
        RmsaiError: the lanes give other results than torch.
    """

    def __init__(
        self,
        bundle: ModelBundle | FrozenModel,
        *,
        device: str = "cpu",
        batch_windows: int | None = None,
    ) -> None:
        self.bundle = bundle
        self._device, self._batch_windows = device, batch_windows
        self._engine = self._make_engine()

    def encode(
        self, signals_NT: FloatArray, num_samples_N: npt.NDArray[np.int32], leads: Sequence[str]
    ) -> Encoded:
        """Encodes windows in the signal's own unit.

        Args:
            signals_NT: finite values; of row i only the first ``num_samples_N[i]`` are looked at.
            num_samples_N: real samples per window.
            leads: the lead of every window.

        Raises:
            ValueError: the windows are not as long as the model's.
            MemoryError: not even a few windows fit; more are halved until they do, which changes no bit.
        """
        expected = self.bundle.spec.window_samples
        if signals_NT.shape[1] != expected:
            raise ValueError(f"windows have {signals_NT.shape[1]} samples, the model wants {expected}")
        try:
            return self._encode(signals_NT, num_samples_N, leads)
        except MemoryError:
            if len(signals_NT) <= FEWEST_WINDOWS:
                raise
        log.warning("memory ran out with %d windows; they are encoded in halves", len(signals_NT))
        half = len(signals_NT) // 2
        halves = (slice(half), slice(half, None))
        return Encoded.joined(
            [self.encode(signals_NT[rows], num_samples_N[rows], leads[rows]) for rows in halves]
        )

    def _encode(
        self, signals_NT: FloatArray, num_samples_N: npt.NDArray[np.int32], leads: Sequence[str]
    ) -> Encoded:
        x_NT, offset_N, scale_N = self.bundle.normaliser.apply(signals_NT, num_samples_N, leads)
        measured = self._engine.measure(x_NT, num_samples_N)
        mse_N, mae_N, worst_mse_N = measured.errors_3N
        return Encoded(
            embedding_NE=measured.embedding_NE,
            mse_N=mse_N,
            mae_N=mae_N,
            worst_mse_N=worst_mse_N,
            beats_N=measured.beats_N,
            offset_N=offset_N,
            scale_N=scale_N,
        )

    def reconstruct(
        self, embedding_NE: FloatArray, beats_N: Sequence[Sequence[int] | npt.NDArray[np.int16]]
    ) -> FloatArray:
        """Windows (N, T) in normalised units, decoded from their embeddings and the places of their beats."""
        beats_NT = np.zeros((len(embedding_NE), self.bundle.spec.window_samples), np.bool_)
        for row, places in enumerate(beats_N):
            beats_NT[row, np.asarray(places, np.int64)] = True
        return self._torch_engine.decode(embedding_NE, beats_NT)

    def _make_engine(self) -> Engine:
        spec = self.bundle.spec
        if self._device != "cpu" or spec.family not in LANE_NETWORKS:
            return self._torch_engine
        network = LANE_NETWORKS[spec.family](spec, self.bundle.tensors)
        engine = LaneEngine(network, spec.sampling_rate_hz, batch_windows=self._batch_windows)
        if isinstance(self.bundle, ModelBundle):
            _check(engine, self._torch_engine, self.bundle)
        return engine

    @cached_property
    def _torch_engine(self) -> TorchEngine:
        from rmsai_ray.encoding.torch_engine import TorchEngine  # torch takes seconds; lanes do without

        fs = self.bundle.spec.sampling_rate_hz
        return TorchEngine(self.bundle.network, fs, device=self._device, batch_windows=self._batch_windows)


def limit_threads(num_threads: int) -> None:
    """Threads of this process's matrix libraries: one per worker, or workers fight for the cores."""
    os.environ["OMP_NUM_THREADS"] = str(num_threads)  # of those that are not loaded yet
    threadpool_limits(num_threads)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(num_threads)


def _check(engine: Engine, reference: Engine, bundle: ModelBundle) -> None:
    """Compares lanes with torch on a few made-up windows, one of them mostly padding."""
    shape = (CHECKED_WINDOWS, bundle.spec.window_samples)
    x_NT = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    num_samples_N = np.full(CHECKED_WINDOWS, x_NT.shape[1], np.int32)
    num_samples_N[-1] = max(1, x_NT.shape[1] // 3)
    x_NT[-1, num_samples_N[-1] :] = 0
    found = engine.measure(x_NT, num_samples_N)
    expected = reference.measure(x_NT, num_samples_N)
    difference = _largest_difference(found, expected)
    if not difference <= TOLERANCE:
        raise RmsaiError(
            f"{bundle.model_id}: lanes and torch differ by {difference:.1e}, more than {TOLERANCE:.0e}: "
            f"the family {bundle.spec.family} is not what encoding/{bundle.spec.family}.py computes"
        )


def _largest_difference(found: Measured, expected: Measured) -> float:
    """Of embeddings, absolutely, and of errors, relatively; infinite where beats differ."""
    if not all(map(np.array_equal, found.beats_N, expected.beats_N)):
        return float("inf")
    embedding = np.abs(found.embedding_NE - expected.embedding_NE).max()
    return float(max(embedding, np.abs(found.errors_3N / expected.errors_3N - 1).max()))
