import numpy as np
import pytest

from rmsai_ray.signals.blocks import SAMPLES_AT_ONCE, equally_long


@pytest.mark.parametrize(
    "lengths",
    [[], [0, 0], [7] * 5, [2400] * 100, [2400, 5, 0, 2400, 5, 2400] * 30, [2 * SAMPLES_AT_ONCE] * 3],
)
def test_every_window_comes_once_with_its_length_and_few_at_a_time(lengths: list[int]) -> None:
    num_samples_N = np.array(lengths, np.int32)
    seen = np.zeros(len(lengths), int)
    for rows, length in equally_long(num_samples_N):
        seen[rows] += 1
        assert (num_samples_N[rows] == length).all()
        some = len(num_samples_N[rows])
        assert some == 1 or some * length <= SAMPLES_AT_ONCE
    assert (seen == 1).all()


def test_windows_of_one_length_are_not_copied() -> None:
    assert all(isinstance(rows, slice) for rows, _ in equally_long(np.full(100, 2400)))
