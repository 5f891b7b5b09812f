"""Errors of reconstructions: over real samples alone, as a mean and of the worst part."""

from __future__ import annotations

import pytest
import torch

from rmsai_ray.encoding.encoder import masked_errors

FS = 200.0


def test_short_burst_is_small_in_the_mean_and_whole_in_the_worst_part() -> None:
    x_BT, y_BT = torch.zeros(1, 2400), torch.zeros(1, 2400)
    y_BT[0, 100:160] = 2.0  # 0.3 s

    mse, mae, worst = masked_errors(x_BT, y_BT, torch.tensor([2400]), FS)[:, 0].tolist()

    assert (mse, mae, worst) == pytest.approx((0.1, 0.05, 4.0))


def test_padding_counts_nowhere() -> None:
    x_BT, y_BT = torch.zeros(1, 2400), torch.zeros(1, 2400)
    y_BT[0, 500:] = 9.0
    y_BT[0, 100:400] = 1.0

    mse, _, worst = masked_errors(x_BT, y_BT, torch.tensor([500]), FS)[:, 0].tolist()

    assert mse == pytest.approx(300 / 500)
    assert worst == pytest.approx(1.0)


@pytest.mark.parametrize(("window_samples", "num_real"), [(2400, 40), (40, 40)])
def test_window_shorter_than_the_part_is_its_own_worst_part(window_samples: int, num_real: int) -> None:
    x_BT, y_BT = torch.zeros(1, window_samples), torch.ones(1, window_samples)

    mse, _, worst = masked_errors(x_BT, y_BT, torch.tensor([num_real]), FS)[:, 0].tolist()

    assert mse == worst == pytest.approx(1.0)
