"""Augmented windows are still ECGs: finite, seeded, beats where they are said to be, rates in bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmsai_ray.errors import ConfigError
from rmsai_ray.training.augment import (
    MOST_LOCAL_SPEED,
    PRESETS,
    Amplitude,
    Cut,
    Dropout,
    Module,
    Noise,
    Stretch,
    Wander,
    augment,
    augment_batch,
    augment_one,
    get_preset,
)

T, FS = 2400, 200.0
MODULES: list[Module] = [
    Stretch(0.75, 1.25),
    Stretch(1.0, 1.0, warp=0.2),
    Cut(1.0, 0.25),
    Amplitude(0.5, 2.0, flipped_share=0.5),
    Noise(0.0, 0.05, mains_share=0.5),
    Wander(1.0, 1.0),
    Dropout(1.0, 1.0),
]
FULL_PRESETS = ["pretrain", "light", "medium", "heavy"]


def beats(rate_bpm: float = 70.0) -> tuple[np.ndarray, np.ndarray]:
    """Narrow beats, and their places."""
    places = np.arange(50.0, T, 60 * FS / rate_bpm)
    wave = np.exp(-(((np.arange(T)[:, None] - places) / 4) ** 2)).sum(1)
    return wave, places


def run(module: Module, x: np.ndarray, places: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return module(x, places, np.random.default_rng(seed), fs=FS, max_samples=T)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), num_samples=st.integers(2, T), preset=st.sampled_from(FULL_PRESETS))
def test_any_window_stays_finite_and_fits(seed: int, num_samples: int, preset: str) -> None:
    x = np.random.default_rng(seed).normal(0, 1, num_samples).astype(np.float32)
    places = np.array([0.0, num_samples - 1.0, np.nan])
    y, moved = augment_one(x, places, PRESETS[preset], (seed,), fs=FS, max_samples=T)
    assert 1 <= len(y) <= T
    assert np.isfinite(y).all()
    assert np.isnan(moved[2])
    known = moved[~np.isnan(moved)]
    assert ((known >= 0) & (known <= len(y) - 1)).all()


@pytest.mark.parametrize("module", MODULES)
def test_keypoints_go_where_the_beats_go(module: Module) -> None:
    wave, places = beats()
    num_seen = 0
    for seed in range(20):
        y, moved = run(module, wave, places, seed)
        size = np.abs(y - np.median(y))
        inside = moved[(moved > 25) & (moved < len(y) - 25)]
        for place in inside:
            near = slice(round(place) - 20, round(place) + 21)
            if not isinstance(module, Dropout) or size[near].max() > 0.5:
                assert abs(np.argmax(size[near]) - 20) <= 2, (seed, place)
                num_seen += 1
    assert num_seen > 100


@pytest.mark.parametrize("preset", FULL_PRESETS)
def test_heart_rates_stay_within_what_the_preset_allows(preset: str) -> None:
    wave, places = beats(80.0)
    (stretch,) = (module for module in PRESETS[preset] if isinstance(module, Stretch))
    local = MOST_LOCAL_SPEED if stretch.warp else 1.0
    rates = []
    for seed in range(40):
        _, moved = augment_one(wave, places, PRESETS[preset], (seed,), fs=FS, max_samples=T)
        gaps = np.diff(moved)  # NaN where one of the two is gone
        rates += (60 * FS / gaps[~np.isnan(gaps)]).tolist()
    assert (
        80 * stretch.slowest / local * 0.99
        < min(rates)
        < 80
        < max(rates)
        < 80 * stretch.fastest * local * 1.01
    )


def test_a_uniform_stretch_makes_every_gap_the_same() -> None:
    wave, places = beats()
    _, moved = run(Stretch(1.2, 1.2), wave, places, 0)
    np.testing.assert_allclose(np.diff(moved[~np.isnan(moved)]), 60 * FS / 70 / 1.2, rtol=1e-9)


def test_a_cut_moves_forward_and_loses_what_was_cut() -> None:
    wave, places = beats()
    y, moved = run(Cut(1.0, 0.25), wave, places, 1)
    lost = T - len(y)
    assert 0 < lost <= T / 4
    np.testing.assert_array_equal(y, wave[lost:])
    np.testing.assert_array_equal(moved, np.where(places < lost, np.nan, places - lost))


def test_disturbances_are_as_large_as_told() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 3, T)
    noisy, _ = run(Noise(0.05, 0.05), x, np.empty(0), 0)
    assert (noisy - x).std() == pytest.approx(0.05 * x.std(), rel=0.05)
    hum = run(Noise(0.05, 0.05, mains_share=1.0), np.sign(x), np.empty(0), 0)[0] - np.sign(x)
    peak_hz = np.argmax(np.abs(np.fft.rfft(hum))) * FS / T
    assert min(abs(peak_hz - mains) for mains in (50, 60)) < 0.2
    drift = run(Wander(1.0, 1.0), x, np.empty(0), 0)[0] - x
    assert 0 < np.abs(drift).max() <= x.std()
    assert np.argmax(np.abs(np.fft.rfft(drift))) * FS / T <= 0.6
    lost = run(Dropout(1.0, 1.0), x, np.empty(0), 0)[0] != x
    assert 0 < lost.sum() <= FS
    assert np.ptp(np.flatnonzero(lost)) == lost.sum() - 1, "in one piece"
    gain = run(Amplitude(0.8, 1.2), x, np.empty(0), 0)[0] / x
    assert np.ptp(gain) < 1e-9
    assert 0.8 <= gain[0] <= 1.2


def test_polarity_is_kept_outside_of_pretraining() -> None:
    for name in ("light", "medium", "heavy"):
        assert all(not module.flipped_share for module in PRESETS[name] if isinstance(module, Amplitude))


def test_a_window_depends_on_its_own_seed_alone() -> None:
    wave, _ = beats()
    x_BT = np.tile(wave.astype(np.float32), (3, 1))
    num_samples_B = np.full(3, T, np.int32)
    seeds = [(1, 0, number) for number in range(3)]
    y_BT, num_real_B = augment(x_BT, num_samples_B, PRESETS["heavy"], seeds, fs=FS)
    alone, num_alone = augment(x_BT[2:], num_samples_B[2:], PRESETS["heavy"], seeds[2:], fs=FS)
    assert np.array_equal(y_BT[2], alone[0])
    assert num_real_B[2] == num_alone[0]
    assert not np.array_equal(y_BT[0], y_BT[1])


def test_a_batch_of_ray_data_keeps_its_other_columns() -> None:
    wave, places = beats()
    batch = {
        "signal": np.tile(wave.astype(np.float32), (2, 1)),
        "num_samples": np.full(2, T, np.int32),
        "number": np.array([7, 8]),
        "r_peaks": np.tile(places, (2, 1)),
        "lead": np.array(["ECG1", "ECG2"]),
    }
    made = augment_batch(batch, preset="medium", seed=1, fs=FS, epoch=3)
    again = augment_batch(
        {**batch, "r_peaks": places[None].repeat(2, 0)}, preset="medium", seed=1, fs=FS, epoch=3
    )
    assert made["lead"] is batch["lead"]
    assert np.array_equal(made["signal"], again["signal"])
    assert not np.array_equal(made["r_peaks"], batch["r_peaks"])
    assert np.array_equal(batch["r_peaks"], np.tile(places, (2, 1))), "the input stays as it was"
    expected, _ = augment(
        batch["signal"], batch["num_samples"], PRESETS["medium"], [(1, 3, 7), (1, 3, 8)], fs=FS
    )
    assert np.array_equal(made["signal"], expected)


def test_nothing_is_done_by_none_and_others_are_refused() -> None:
    x_BT = np.ones((1, 5), np.float32)
    y_BT, num_real_B = augment(x_BT, np.array([3], np.int32), get_preset("none"), [(0,)], fs=FS)
    assert y_BT.tolist() == [[1, 1, 1, 0, 0]]
    assert num_real_B.tolist() == [3]
    with pytest.raises(ConfigError, match="light"):
        get_preset("wild")
