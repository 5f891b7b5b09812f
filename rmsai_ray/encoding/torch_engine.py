"""The network as torch runs it: on a GPU, for families without lanes, and as what the lanes must agree with.

Shapes: N windows, B of them in one batch, T samples of a window, E dimensions of the embedding.
"""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from rmsai_ray.encoding.errors import WORST_SHARE, worst_part_samples
from rmsai_ray.encoding.lanes import Measured
from rmsai_ray.models.base import EcgAutoencoder

FloatArray = npt.NDArray[np.float32]

DEFAULT_BATCH_WINDOWS = 256

log = logging.getLogger(__name__)


class TorchEngine:
    """Holds a network on one device.

    Args:
        network: in eval mode; is moved to the device.
        fs: sampling rate of the windows, Hz.
        device: ``cpu`` or ``cuda``.
        batch_windows: windows per forward pass; halves by itself when memory runs out.
    """

    def __init__(
        self, network: EcgAutoencoder, fs: float, *, device: str = "cpu", batch_windows: int | None = None
    ) -> None:
        self.batch_windows = batch_windows or DEFAULT_BATCH_WINDOWS
        self._fs, self._device = fs, torch.device(device)
        self._network = network.to(self._device).eval()

    def measure(self, x_NT: FloatArray, num_samples_N: npt.NDArray[np.int32]) -> Measured:
        """Embeddings, errors and beats of normalised windows."""
        found = Measured.empty(len(x_NT), self._network.embedding_dim)
        start = 0
        while start < len(x_NT):
            rows = slice(start, start + self.batch_windows)
            try:
                batch = self._measure_batch(x_NT[rows], num_samples_N[rows])
            except RuntimeError as error:
                self._halve_batch(error)
                continue
            found.put(rows, *batch)
            start += self.batch_windows
        return found

    def _measure_batch(
        self, x_BT: FloatArray, num_samples_B: npt.NDArray[np.int32]
    ) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(x_BT)).to(self._device)
            beats_BT = self._network.find_beats(x)
            z_BE = self._network.encode(x, beats_BT)
            y_BT = self._network.decode(z_BE, beats_BT)
            num_real_B = torch.tensor(num_samples_B, device=self._device)
            errors_3B = masked_errors(x, y_BT, num_real_B, self._fs)
            return z_BE.cpu().numpy(), errors_3B.cpu().numpy(), (beats_BT != 0).cpu().numpy()

    def _halve_batch(self, error: RuntimeError) -> None:
        """Goes on with half the batch after memory ran out; anything else, and a lone window, is an error."""
        if not is_out_of_memory(error) or self.batch_windows == 1:
            raise error
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self.batch_windows //= 2
        log.warning("memory ran out; batches have %d windows from here on", self.batch_windows)


def masked_errors(x_BT: Tensor, y_BT: Tensor, num_samples_B: Tensor, fs: float) -> Tensor:
    """Mean squared, mean absolute and worst squared error of each row over its real samples, shape (3, B)."""
    real_BT = torch.arange(x_BT.shape[1], device=x_BT.device) < num_samples_B[:, None]
    difference_BT = (y_BT - x_BT) * real_BT
    mse_B, mae_B = torch.stack([difference_BT.square().sum(1), difference_BT.abs().sum(1)]) / num_samples_B
    return torch.stack([mse_B, mae_B, _worst_part(difference_BT, mse_B, num_samples_B, fs)])


def _worst_part(difference_BT: Tensor, mse_B: Tensor, num_samples_B: Tensor, fs: float) -> Tensor:
    """Mean of the largest of the squared, smoothed errors, (B,); for a row shorter than a step, its mean."""
    step, width = worst_part_samples(fs)
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


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a RuntimeError of torch means that memory ran out, on a GPU or a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
