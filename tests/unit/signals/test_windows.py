import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmsai_ray.errors import ConfigError
from rmsai_ray.signals.windows import count_in_windows, cut_windows, window_starts

lengths = st.integers(min_value=1, max_value=400)


@st.composite
def window_and_stride(draw: st.DrawFn) -> tuple[int, int]:
    window = draw(st.integers(min_value=1, max_value=120))
    return window, draw(st.integers(min_value=1, max_value=window))


@pytest.mark.parametrize(
    ("window", "stride", "tail", "count", "last"),
    [
        (140, 70, True, 34, 2260),
        (140, 70, False, 33, 2240),
        (2400, 2400, True, 1, 0),
        (100, 50, True, 47, 2300),
    ],
)
def test_documented_window_counts_of_a_12_s_event(
    window: int, stride: int, tail: bool, count: int, last: int
) -> None:
    starts = window_starts(2400, window, stride, tail=tail)
    assert (len(starts), starts[-1]) == (count, last)


@given(lengths, window_and_stride())
def test_every_sample_lies_in_a_window_and_no_window_exceeds_the_signal(
    num_samples: int, geometry: tuple[int, int]
) -> None:
    windows = cut_windows(np.ones(num_samples), *geometry)
    covered = np.zeros(num_samples, bool)
    for start, real in zip(windows.starts_N, windows.num_samples_N, strict=True):
        assert start + real <= num_samples
        covered[start : start + real] = True
    assert covered.all()
    assert windows.samples_NT.shape[1] == geometry[0]


@given(lengths, window_and_stride())
def test_without_tail_only_the_last_start_may_go(num_samples: int, geometry: tuple[int, int]) -> None:
    whole = window_starts(num_samples, *geometry)
    strided = window_starts(num_samples, *geometry, tail=False)
    np.testing.assert_array_equal(strided, whole[: len(strided)])
    assert len(whole) - len(strided) in (0, 1)
    windows = cut_windows(np.ones(num_samples), *geometry)
    assert windows.is_tail_N.sum() == len(whole) - len(strided)


@given(st.integers(min_value=20, max_value=300), window_and_stride())
def test_windows_hold_the_samples_at_their_start(num_samples: int, geometry: tuple[int, int]) -> None:
    signal = np.arange(num_samples, dtype=float)
    windows = cut_windows(signal, *geometry)
    for row, start, real in zip(windows.samples_NT, windows.starts_N, windows.num_samples_N, strict=True):
        np.testing.assert_array_equal(row[:real], signal[start : start + real])
        assert not row[real:].any()


def test_a_short_signal_gives_one_padded_window_whatever_the_tail() -> None:
    for tail in (True, False):
        windows = cut_windows([1.0, 2.0, 3.0], 5, 5, tail=tail)
        np.testing.assert_array_equal(windows.samples_NT, [[1, 2, 3, 0, 0]])
        assert (windows.num_samples_N[0], windows.is_tail_N[0]) == (3, False)


def test_an_empty_signal_has_no_window() -> None:
    assert cut_windows([], 5, 5).samples_NT.shape == (0, 5)


def test_dtypes_are_those_of_the_table() -> None:
    windows = cut_windows(np.arange(10), 4, 3)
    kinds = [
        a.dtype for a in (windows.samples_NT, windows.starts_N, windows.num_samples_N, windows.is_tail_N)
    ]
    assert kinds == [np.float32, np.int32, np.int32, np.bool_]


@pytest.mark.parametrize(("window", "stride"), [(0, 1), (10, 0), (10, 11)])
def test_a_geometry_that_skips_samples_is_refused(window: int, stride: int) -> None:
    with pytest.raises(ConfigError, match="_samples="):
        window_starts(100, window, stride)


def test_marked_samples_are_counted_per_window() -> None:
    mask = np.zeros(10, bool)
    mask[[0, 3, 9]] = True
    windows = cut_windows(np.ones(10), 4, 3)
    np.testing.assert_array_equal(count_in_windows(mask, windows), [2, 1, 1])
