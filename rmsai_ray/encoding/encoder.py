"""Windows → embeddings, reconstructions and their errors, in batches that fit into memory.

Shapes: N windows, B of them in one batch, T samples of a window, E dimensions of the embedding.
"""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from rmsai_ray.models.bundle import ModelBundle

FloatArray = npt.NDArray[np.float32]

DEFAULT_BATCH_WINDOWS = 256

SMOOTHING_S, WORST_STEP_S, WORST_SHARE = 0.045, 0.05, 0.05
"""Of the worst part: residuals are smoothed over the first, squared and averaged in steps of the second, and
the worst twentieth of the steps counts (0.6 s of 12 s)."""

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

    @property
    def mse_raw_N(self) -> FloatArray:  # noqa: N802
        """Mean squared error in the signal's own unit, squared."""
        return self.mse_N * self.scale_N**2


class WindowEncoder:
    """Holds a model on one device.

    Args:
        bundle: the model, with its normaliser.
        device: ``cpu`` or ``cuda``.
        batch_windows: windows per forward pass; halves by itself when memory runs out, and no result depends
            on it.
    """

    def __init__(
        self, bundle: ModelBundle, *, device: str = "cpu", batch_windows: int = DEFAULT_BATCH_WINDOWS
    ) -> None:
        self.bundle = bundle
        self.batch_windows = batch_windows
        self._device = torch.device(device)
        self._network = bundle.network.to(self._device).eval()

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
        """
        expected = self.bundle.spec.window_samples
        if signals_NT.shape[1] != expected:
            raise ValueError(f"windows have {signals_NT.shape[1]} samples, the model wants {expected}")
        x_NT, offset_N, scale_N = self.bundle.normaliser.apply(signals_NT, num_samples_N, leads)
        embedding_NE = np.empty((len(x_NT), self.bundle.spec.embedding_dim), np.float32)
        errors_3N = np.empty((3, len(x_NT)), np.float32)
        beats_N: list[npt.NDArray[np.int16]] = []
        start = 0
        while start < len(x_NT):
            rows = slice(start, start + self.batch_windows)
            try:
                embedding_NE[rows], errors_3N[:, rows], beats_B = self._encode_batch(
                    x_NT[rows], num_samples_N[rows]
                )
            except RuntimeError as error:
                self._halve_batch(error)
                continue
            beats_N += beats_B
            start += self.batch_windows
        return Encoded(
            embedding_NE=embedding_NE,
            mse_N=errors_3N[0],
            mae_N=errors_3N[1],
            worst_mse_N=errors_3N[2],
            beats_N=beats_N,
            offset_N=offset_N,
            scale_N=scale_N,
        )

    def reconstruct(
        self, embedding_NE: FloatArray, beats_N: Sequence[Sequence[int] | npt.NDArray[np.int16]]
    ) -> FloatArray:
        """Windows (N, T) in normalised units, decoded from their embeddings and the places of their beats."""
        beats_NT = np.zeros((len(embedding_NE), self.bundle.spec.window_samples), np.float32)
        for row, places in enumerate(beats_N):
            beats_NT[row, np.asarray(places, np.int64)] = 1.0
        tensors = (torch.from_numpy(array).to(self._device) for array in (embedding_NE, beats_NT))
        with torch.inference_mode():
            y_NT: Tensor = self._network.decode(*tensors)
        return np.asarray(y_NT.cpu().numpy(), np.float32)

    def _encode_batch(
        self, x_BT: FloatArray, num_samples_B: npt.NDArray[np.int32]
    ) -> tuple[FloatArray, FloatArray, list[npt.NDArray[np.int16]]]:
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(x_BT)).to(self._device)
            beats_BT = self._network.find_beats(x)
            z_BE = self._network.encode(x, beats_BT)
            y_BT = self._network.decode(z_BE, beats_BT)
            num_real_B = torch.tensor(num_samples_B, device=self._device)
            errors_3B = masked_errors(x, y_BT, num_real_B, self.bundle.spec.sampling_rate_hz)
            return z_BE.cpu().numpy(), errors_3B.cpu().numpy(), _places(beats_BT)

    def _halve_batch(self, error: RuntimeError) -> None:
        """Goes on with half the batch after memory ran out; anything else, and a lone window, is an error."""
        if not is_out_of_memory(error) or self.batch_windows == 1:
            raise error
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self.batch_windows //= 2
        log.warning("memory ran out; batches have %d windows from here on", self.batch_windows)


def limit_threads(num_threads: int) -> None:
    """Threads of this process's torch: one per worker, or workers fight for the cores."""
    torch.set_num_threads(num_threads)


def masked_errors(x_BT: Tensor, y_BT: Tensor, num_samples_B: Tensor, fs: float) -> Tensor:
    """Mean squared, mean absolute and worst squared error of each row over its real samples, shape (3, B)."""
    real_BT = torch.arange(x_BT.shape[1], device=x_BT.device) < num_samples_B[:, None]
    difference_BT = (y_BT - x_BT) * real_BT
    mse_B, mae_B = torch.stack([difference_BT.square().sum(1), difference_BT.abs().sum(1)]) / num_samples_B
    return torch.stack([mse_B, mae_B, _worst_part(difference_BT, mse_B, num_samples_B, fs)])


def _worst_part(difference_BT: Tensor, mse_B: Tensor, num_samples_B: Tensor, fs: float) -> Tensor:
    """Mean of the largest of the squared, smoothed errors, (B,); for a row shorter than a step, its mean."""
    step, width = max(1, round(WORST_STEP_S * fs)), 2 * round(SMOOTHING_S * fs / 2) + 1
    if difference_BT.shape[1] < step:
        return mse_B
    smooth_B1T = functional.avg_pool1d(difference_BT.unsqueeze(1), width, 1, width // 2)
    steps_BG = functional.avg_pool1d(smooth_B1T.square(), step).squeeze(1)
    num_steps_B1 = (num_samples_B // step)[:, None]
    places_G = torch.arange(steps_BG.shape[1], device=steps_BG.device)
    largest_BG = steps_BG.where(places_G < num_steps_B1, 0.0).sort(1, descending=True).values
    num_worst_B1 = (num_steps_B1 * WORST_SHARE).round().clamp(min=1)
    worst_B: Tensor = (largest_BG * (places_G < num_worst_B1)).sum(1) / num_worst_B1[:, 0]
    return torch.where(num_steps_B1[:, 0] > 0, worst_B, mse_B)


def _places(beats_BT: Tensor) -> list[npt.NDArray[np.int16]]:
    """Where each row is not 0."""
    rows, places = np.nonzero(beats_BT.cpu().numpy())
    ends_B = np.cumsum(np.bincount(rows, minlength=len(beats_BT)))
    return np.split(places.astype(np.int16), ends_B[:-1]) if len(beats_BT) else []


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a RuntimeError of torch means that memory ran out, on a GPU or a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
