"""The network as torch runs it: on a GPU, for families without lanes, and as what the lanes must agree with.

Shapes: N windows, B of them in one batch, T samples of a window, E dimensions of the embedding.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

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
"""On a CPU, where more is no faster; and what a GPU is tried with."""
MAX_BATCH_WINDOWS = 1 << 14
MEMORY_SHARE = 0.5
"""Of a GPU's free memory, for two batches on their way."""

log = logging.getLogger(__name__)


class TorchEngine:
    """Holds a network on one device.

    While a GPU works on one batch, the next one travels: two sets of page-locked buffers take turns. Its
    batches are filled up to one size, since other sizes may go through other kernels, and it computes in full
    float32.

    Args:
        network: in eval mode; is moved to the device.
        fs: sampling rate of the windows, Hz.
        device: ``cpu`` or ``cuda``.
        batch_windows: windows per forward pass; halves by itself when memory runs out. Default: what half of
            a GPU's free memory holds.
    """

    def __init__(
        self, network: EcgAutoencoder, fs: float, *, device: str = "cpu", batch_windows: int | None = None
    ) -> None:
        self._fs, self._device = fs, torch.device(device)
        self._network = network.to(self._device).eval()
        self._copying: torch.cuda.Stream | None = None
        if self._device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
            self._copying = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            batch_windows = batch_windows or self._batch_from_memory()
        self.batch_windows = batch_windows or DEFAULT_BATCH_WINDOWS

    def measure(self, x_NT: FloatArray, num_samples_N: npt.NDArray[np.int32]) -> Measured:
        """Embeddings, errors and beats of normalised windows."""
        found = Measured.empty(len(x_NT), self._network.embedding_dim)
        start, on_their_way = 0, deque[_Batch]()
        while start < len(x_NT) or on_their_way:
            if start < len(x_NT):
                rows = slice(start, min(len(x_NT), start + self.batch_windows))
                try:
                    on_their_way.append(self._launch(rows, x_NT[rows], num_samples_N[rows]))
                    start = rows.stop
                except (RuntimeError, MemoryError) as error:
                    self._halve_batch(error)
            while len(on_their_way) > (1 if start < len(x_NT) else 0):
                batch = on_their_way.popleft()
                found.put(batch.rows, *batch.wait())
        return found

    def decode(self, embedding_NE: FloatArray, beats_NT: npt.NDArray[np.bool_]) -> FloatArray:
        """Windows (N, T) of embeddings and the places of their beats."""
        y_NT = np.empty((len(embedding_NE), self._network.window_samples), np.float32)
        for start in range(0, len(y_NT), self.batch_windows):
            rows = slice(start, start + self.batch_windows)
            z_BE = torch.from_numpy(embedding_NE[rows]).to(self._device)
            beats_BT = torch.from_numpy(beats_NT[rows]).to(self._device, torch.float32)
            with torch.inference_mode():
                y_NT[rows] = self._network.decode(z_BE, beats_BT).cpu().numpy()
        return y_NT

    def _launch(self, rows: slice, x_BT: FloatArray, num_samples_B: npt.NDArray[np.int32]) -> _Batch:
        """Queues one batch; on a CPU, computes it."""
        company = self.batch_windows - len(x_BT) if self._copying else 0
        x_BT = np.pad(x_BT, ((0, company), (0, 0)))
        x = self._send(torch.from_numpy(x_BT))
        num_real_B = self._send(torch.from_numpy(np.pad(num_samples_B, (0, company), constant_values=1)))
        with torch.inference_mode():
            beats_BT = self._network.find_beats(x)
            z_BE = self._network.encode(x, beats_BT)
            y_BT = self._network.decode(z_BE, beats_BT)
            errors_3B = masked_errors(x, y_BT, num_real_B, self._fs)
            results = tuple(map(self._fetch, (z_BE, errors_3B, beats_BT != 0)))
        event = torch.cuda.current_stream(self._device).record_event() if self._copying else None
        return _Batch(rows, results, event)

    def _send(self, tensor: Tensor) -> Tensor:
        """The tensor on the device, by a stream of its own that the computation waits for."""
        if self._copying is None:
            return tensor
        with torch.cuda.stream(self._copying):
            sent = tensor.pin_memory().to(self._device, non_blocking=True)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(self._copying)
        sent.record_stream(computing)
        return sent

    def _fetch(self, tensor: Tensor) -> Tensor:
        """The tensor in page-locked memory, once the batch's event has happened."""
        if self._copying is None:
            return tensor
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor, non_blocking=True)

    def _batch_from_memory(self) -> int:
        """As many windows as fit, by what the first few need."""
        shape = (DEFAULT_BATCH_WINDOWS, self._network.window_samples)
        self.batch_windows = DEFAULT_BATCH_WINDOWS
        torch.cuda.reset_peak_memory_stats(self._device)
        held = torch.cuda.memory_allocated(self._device)
        self.measure(np.zeros(shape, np.float32), np.full(shape[0], shape[1], np.int32))
        peak = torch.cuda.max_memory_allocated(self._device)
        free, _ = torch.cuda.mem_get_info(self._device)
        return batch_that_fits(free, (peak - held) // DEFAULT_BATCH_WINDOWS)

    def _halve_batch(self, error: RuntimeError | MemoryError) -> None:
        """Goes on with half the batch after memory ran out; anything else, and a lone window, is an error."""
        if not is_out_of_memory(error) or self.batch_windows == 1:
            raise error
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self.batch_windows //= 2
        log.warning("memory ran out; batches have %d windows from here on", self.batch_windows)


@dataclass(frozen=True)
class _Batch:
    """A batch that was launched."""

    rows: slice
    results: tuple[Tensor, ...]
    """Embeddings (B, E), errors (3, B) and beats (B, T), in host memory after the event."""
    event: torch.cuda.Event | None

    def wait(self) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
        if self.event:
            self.event.synchronize()
        num_rows = self.rows.stop - self.rows.start
        z_BE, errors_3B, beats_BT = (result.numpy() for result in self.results)
        return z_BE[:num_rows], errors_3B[:, :num_rows], beats_BT[:num_rows]


def batch_that_fits(free_bytes: int, window_bytes: int) -> int:
    """Windows of a batch, a multiple of the default one."""
    fitting = int(MEMORY_SHARE * free_bytes) // max(1, 2 * window_bytes)
    whole = fitting // DEFAULT_BATCH_WINDOWS * DEFAULT_BATCH_WINDOWS
    return max(DEFAULT_BATCH_WINDOWS, min(MAX_BATCH_WINDOWS, whole))


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


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether an error means that memory ran out, on a GPU or a CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error)
