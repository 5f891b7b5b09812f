import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmsai_ray.signals.resampling import rate_ratio, resample, resample_mask

rates = st.sampled_from([62.4, 100.0, 125.0, 128.0, 200.0, 250.0, 257.0, 360.0, 500.0, 1000.0])


def test_equal_rates_return_the_samples_untouched() -> None:
    signal = np.array([1.0, -2.0, 3.5])
    np.testing.assert_array_equal(resample(signal, 200, 200.0), signal)


@given(rates, st.integers(min_value=1, max_value=3000))
def test_signal_and_mask_get_the_same_length(fs_in: float, num_samples: int) -> None:
    resampled = resample(np.zeros(num_samples), fs_in, 200)
    assert len(resampled) == len(resample_mask(np.zeros(num_samples, bool), fs_in, 200))
    assert len(resampled) == pytest.approx(num_samples * 200 / fs_in, abs=1)


@pytest.mark.parametrize("fs_in", [125.0, 250.0, 360.0, 500.0])
def test_a_slow_wave_keeps_its_time_and_shape(fs_in: float) -> None:
    def wave(fs: float, num_samples: int) -> np.ndarray:
        return 5 + np.sin(2 * np.pi * 7 * np.arange(num_samples) / fs)

    resampled = resample(wave(fs_in, int(10 * fs_in)), fs_in, 200)
    inner = slice(40, -40)
    np.testing.assert_allclose(resampled[inner], wave(200, len(resampled))[inner], atol=0.01)


def test_what_the_lower_rate_cannot_hold_is_removed() -> None:
    t_s = np.arange(3600) / 360
    resampled = resample(np.sin(2 * np.pi * 150 * t_s), 360, 200)
    assert np.abs(resampled[40:-40]).max() < 0.01


@given(rates)
def test_an_offset_neither_rings_at_the_edges_nor_becomes_a_tone(fs_in: float) -> None:
    np.testing.assert_allclose(resample(np.full(700, 40.0), fs_in, 200), 40.0, rtol=1e-12)


def test_a_held_value_stays_constant() -> None:
    signal = np.r_[np.sin(np.arange(900) / 9), np.full(900, 5.0)]
    held = resample(signal, 360, 200)[530:]
    assert np.ptp(held) < 1e-12


@given(rates, st.data())
def test_no_mark_gets_lost(fs_in: float, data: st.DataObject) -> None:
    num_samples = data.draw(st.integers(min_value=1, max_value=200))
    marked = data.draw(st.integers(min_value=0, max_value=num_samples - 1))
    mask = np.arange(num_samples) == marked
    out = np.flatnonzero(resample_mask(mask, fs_in, 200))
    assert len(out) >= 1
    assert np.abs(out / 200 - marked / fs_in).max() <= 1 / fs_in + 1 / 200


@pytest.mark.parametrize(("fs_in", "ratio"), [(360, "5/9"), (500, "2/5"), (250, "4/5"), (62.5, "16/5")])
def test_rate_ratios_are_exact(fs_in: float, ratio: str) -> None:
    assert str(rate_ratio(fs_in, 200)) == ratio


@pytest.mark.parametrize("fs", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(fs: float) -> None:
    with pytest.raises(ValueError, match="sampling rate"):
        resample([1.0, 2.0], fs, 200)


def test_gaps_must_be_filled_first() -> None:
    with pytest.raises(ValueError, match="gaps"):
        resample([1.0, np.nan, 2.0], 360, 200)
