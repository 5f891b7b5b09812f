"""Errors of reconstructions: over real samples alone, as a mean and of the worst part."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rmsai_ray.encoding.encoder import WindowEncoder
from rmsai_ray.encoding.torch_engine import masked_errors
from rmsai_ray.models.checkpoint import untrained_model

FS = 200.0


def test_short_burst_is_small_in_the_mean_and_large_in_the_worst_part() -> None:
    x_BT, y_BT = torch.zeros(1, 2400), torch.zeros(1, 2400)
    y_BT[0, 100:220] = 2.0  # 0.6 s

    mse, mae, worst = masked_errors(x_BT, y_BT, torch.tensor([2400]), FS)[:, 0].tolist()

    assert (mse, mae) == pytest.approx((0.2, 0.1))
    assert worst == pytest.approx(4.0, rel=0.1)  # smoothing takes a little off both ends


def test_noise_is_smoothed_away_in_the_worst_part() -> None:
    y_BT = torch.ones(1, 2400)
    y_BT[0, ::2] = -1.0

    mse, _, worst = masked_errors(torch.zeros(1, 2400), y_BT, torch.tensor([2400]), FS)[:, 0].tolist()

    assert mse == 1.0
    assert worst < 0.1


def test_padding_counts_nowhere() -> None:
    x_BT, y_BT = torch.zeros(1, 2400), torch.zeros(1, 2400)
    y_BT[0, 500:] = 9.0
    y_BT[0, 100:400] = 1.0

    mse, _, worst = masked_errors(x_BT, y_BT, torch.tensor([500]), FS)[:, 0].tolist()

    assert mse == pytest.approx(300 / 500)
    assert worst == pytest.approx(1.0)


@pytest.mark.parametrize(("window_samples", "num_real"), [(2400, 8), (8, 8)])
def test_window_shorter_than_a_step_is_its_own_worst_part(window_samples: int, num_real: int) -> None:
    x_BT, y_BT = torch.zeros(1, window_samples), torch.ones(1, window_samples)

    mse, _, worst = masked_errors(x_BT, y_BT, torch.tensor([num_real]), FS)[:, 0].tolist()

    assert mse == worst == pytest.approx(1.0)


def test_beats_come_back_as_samples_and_decode_with_the_embedding() -> None:
    encoder = WindowEncoder(untrained_model("framed-2400x64"))
    time_s = np.arange(2400) / FS
    signals_NT = np.stack(
        [np.exp(-0.5 * ((time_s % period - period / 2) / 0.02) ** 2) for period in (0.6, 0.8, 1.2)]
    ).astype(np.float32)

    encoded = encoder.encode(signals_NT, np.full(3, 2400, np.int32), ["ECG2"] * 3)

    assert [len(beats) for beats in encoded.beats_N] == [20, 15, 10]
    assert np.abs(np.diff(encoded.beats_N[1]) - 160).max() <= 2
    y_NT = encoder.reconstruct(encoded.embedding_NE, encoded.beats_N)
    x_NT, _, _ = encoder.bundle.normaliser.apply(signals_NT, np.full(3, 2400), ["ECG2"] * 3)
    np.testing.assert_allclose(((y_NT - x_NT) ** 2).mean(1), encoded.mse_N, rtol=1e-5)
