"""Torch's engine: batches, memory that runs out, what a GPU holds; on a CPU, as far as it goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rmsai_ray.encoding.torch_engine import DEFAULT_BATCH_WINDOWS, TorchEngine, batch_that_fits
from rmsai_ray.models.base import EcgAutoencoder
from rmsai_ray.models.checkpoint import untrained_model

GIBIBYTE = 1 << 30
SCARCE = (RuntimeError("not enough memory: you tried"), torch.OutOfMemoryError("CUDA"), MemoryError())


class Greedy(EcgAutoencoder):
    """Its embedding is the window's mean; runs out of memory above a number of rows."""

    def __init__(self, most_rows: int, error: Exception) -> None:
        super().__init__(window_samples=40, embedding_dim=1)
        self.most_rows, self.error, self.seen = most_rows, error, list[int]()

    def _encode(self, x_BT: Tensor, beats_BT: Tensor) -> Tensor:
        if len(x_BT) > self.most_rows:
            raise self.error
        self.seen.append(len(x_BT))
        return x_BT.mean(1, keepdim=True)

    def _decode(self, z_BE: Tensor, beats_BT: Tensor) -> Tensor:
        return z_BE.expand(-1, self.window_samples)


def test_batches_come_back_in_order() -> None:
    bundle = untrained_model("rmsai-140x128")
    x_NT = np.random.default_rng(0).standard_normal((70, 140)).astype(np.float32)
    num_samples_N = np.full(70, 140, np.int32)
    whole = TorchEngine(bundle.network, 200.0).measure(x_NT, num_samples_N)
    parts = TorchEngine(bundle.network, 200.0, batch_windows=20).measure(x_NT, num_samples_N)
    np.testing.assert_array_equal(parts.embedding_NE, whole.embedding_NE)
    np.testing.assert_array_equal(parts.errors_3N, whole.errors_3N)
    assert len(parts.beats_N) == 70


@pytest.mark.parametrize("error", SCARCE, ids=lambda error: type(error).__name__)
def test_batches_halve_when_memory_runs_out(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    network = Greedy(most_rows=40, error=error)
    engine = TorchEngine(network, 200.0, batch_windows=128)
    x_NT = np.arange(100, dtype=np.float32)[:, None] * np.ones((1, 40), np.float32)
    found = engine.measure(x_NT, np.full(100, 40, np.int32))
    np.testing.assert_allclose(found.embedding_NE[:, 0], np.arange(100))
    assert network.seen == [32, 32, 32, 16]  # four rows alone get company
    assert "32 windows from here on" in caplog.text


@pytest.mark.parametrize(("most_rows", "message"), [(0, "not enough memory"), (50, "another problem")])
def test_other_errors_and_a_window_that_does_not_fit_are_errors(most_rows: int, message: str) -> None:
    engine = TorchEngine(Greedy(most_rows, RuntimeError(message)), 200.0)
    with pytest.raises(RuntimeError, match=message):
        engine.measure(np.zeros((100, 40), np.float32), np.full(100, 40, np.int32))


@pytest.mark.parametrize(
    ("free_bytes", "window_bytes", "expected"),
    [
        (80 * GIBIBYTE, 1 << 20, 16384),
        (8 * GIBIBYTE, 1 << 20, 2048),
        (8 * GIBIBYTE, 900_000, 2304),
        (0, 1 << 20, DEFAULT_BATCH_WINDOWS),
    ],
)
def test_batch_is_what_half_of_the_free_memory_holds_twice(
    free_bytes: int, window_bytes: int, expected: int
) -> None:
    assert batch_that_fits(free_bytes, window_bytes) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_says_what_the_cpu_says() -> None:
    bundle = untrained_model("framed-2400x64")
    x_NT = np.random.default_rng(0).standard_normal((600, 2400)).astype(np.float32)
    num_samples_N = np.full(600, 2400, np.int32)
    expected = TorchEngine(bundle.network, 200.0).measure(x_NT, num_samples_N)
    found = TorchEngine(bundle.network, 200.0, device="cuda", batch_windows=256).measure(x_NT, num_samples_N)
    np.testing.assert_allclose(found.embedding_NE, expected.embedding_NE, atol=1e-4)
    np.testing.assert_allclose(found.errors_3N, expected.errors_3N, rtol=1e-4)
