"""Errors of reconstructions: over real samples alone, as a mean and of the worst part."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

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


class NoRoomError(MemoryError):
    """As numpy raises it: a kind of its own."""


@pytest.mark.parametrize("error", [MemoryError(), NoRoomError()])
@pytest.mark.parametrize("profile", ["framed-2400x64", "rmsai-140x128"])
def test_windows_are_halved_when_memory_runs_out_and_no_bit_changes(
    profile: str, error: MemoryError, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = WindowEncoder(untrained_model(profile))
    num_samples = encoder.bundle.spec.window_samples
    x_NT = np.random.default_rng(0).standard_normal((150, num_samples)).astype(np.float32)
    asked = (x_NT, np.full(150, num_samples, np.int32), ["ECG1", "aVR", "vVX"] * 50)
    whole = encoder.encode(*asked)
    normalise, seen = type(encoder.bundle.normaliser).apply, list[int]()

    def scarce(self: Any, x_NT: Any, num_samples_N: Any, leads: Sequence[str]) -> Any:
        seen.append(len(x_NT))
        if len(x_NT) > 40:
            raise error
        return normalise(self, x_NT, num_samples_N, leads)

    monkeypatch.setattr(type(encoder.bundle.normaliser), "apply", scarce)
    with caplog.at_level(logging.WARNING):
        halved = encoder.encode(*asked)
    assert seen == [150, 75, 37, 38, 75, 37, 38]
    for name in ("embedding_NE", "mse_N", "mae_N", "worst_mse_N", "offset_N", "scale_N"):
        np.testing.assert_array_equal(getattr(halved, name), getattr(whole, name))
    assert all(map(np.array_equal, halved.beats_N, whole.beats_N))
    assert "memory ran out with 150 windows" in caplog.text


def test_windows_that_do_not_fit_at_all_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = WindowEncoder(untrained_model("rmsai-140x128"))
    calls = []

    def none_left(*_: object) -> None:
        calls.append(1)
        raise MemoryError

    monkeypatch.setattr(encoder, "_encode", none_left)
    with pytest.raises(MemoryError):
        encoder.encode(np.zeros((1000, 140), np.float32), np.full(1000, 140, np.int32), ["ECG1"] * 1000)
    assert len(calls) < 10
