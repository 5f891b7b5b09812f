"""Baselines find what they are made for, and have a number for every window."""

from __future__ import annotations

import numpy as np
import pytest

from rmsai_ray.evaluation.baselines import rhythm_scores
from rmsai_ray.evaluation.k_shape import correlations, k_shape_centres, spectra
from rmsai_ray.evaluation.metrics import auroc
from rmsai_ray.evaluation.subsequences import cut_pieces, subsequence_scores
from rmsai_ray.signals.rhythm import Rhythm

FS = 200.0


def bumps(rng: np.random.Generator, num_windows: int, *, width_s: float) -> np.ndarray:
    """12-s windows of one bump a second, with a random phase and a little noise, float32."""
    time_s = np.arange(2400) / FS
    phase_s = rng.uniform(0, 1, (num_windows, 1))
    distance_s = (time_s - phase_s + 0.5) % 1 - 0.5
    shape = np.exp(-0.5 * (distance_s / width_s) ** 2)
    return (shape + 0.02 * rng.standard_normal(shape.shape)).astype(np.float32)


@pytest.mark.parametrize("name", ["knn_raw", "k_shape"])
def test_pieces_of_another_shape_score_higher(name: str) -> None:
    rng = np.random.default_rng(0)
    lengths = np.full(60, 2400, np.int32)
    asked = np.concatenate([bumps(rng, 20, width_s=0.03), bumps(rng, 20, width_s=0.15)])
    found = subsequence_scores(
        bumps(rng, 60, width_s=0.03), lengths, {"test": (asked, lengths[:40])}, FS, seed=0
    )
    assert auroc(found[name]["test"], np.arange(40) >= 20) > 0.95


def test_padding_is_no_piece() -> None:
    x_NT = np.random.default_rng(0).standard_normal((2, 2400)).astype(np.float32)
    pieces, is_real = cut_pieces(x_NT, np.array([2400, 1000], np.int32), FS, 1.0)
    assert pieces.shape == (2, 23, 50)
    assert is_real.sum(1).tolist() == [23, 9]
    changed = x_NT.copy()
    changed[1, 1000:] = 1e6
    again, _ = cut_pieces(changed, np.array([2400, 1000], np.int32), FS, 1.0)
    np.testing.assert_array_equal(again[is_real], pieces[is_real])


def test_a_short_beat_is_one_piece() -> None:
    rng = np.random.default_rng(0)
    beats = rng.standard_normal((12, 140)).astype(np.float32)
    lengths = np.full(12, 140, np.int32)
    found = subsequence_scores(beats, lengths, {"test": (beats, lengths)}, FS, seed=0)
    assert all(np.isfinite(by_part["test"]).all() for by_part in found.values())


def test_k_shape_finds_two_shapes_wherever_they_lie() -> None:
    rng = np.random.default_rng(1)
    kinds = [np.exp(-0.5 * (np.arange(80) / 80 * 20 - 10) ** 2), np.sin(np.arange(80) / 80 * 4 * np.pi)]
    series = np.stack([np.roll(kinds[i % 2], rng.integers(-15, 15)) for i in range(40)])
    centres = k_shape_centres(series, rng, num_clusters=2)
    likeness = np.stack(
        [correlations(spectra(series), spectrum.conj(), 80).max(1) for spectrum in spectra(centres)], 1
    )
    assert (likeness.argmax(1)[::2] != likeness.argmax(1)[1::2]).all()
    assert likeness.max(1).min() > 0.7


def test_rhythm_baselines_are_two_sided_and_finite() -> None:
    def rhythm(rates: list[float], irregularity: list[float]) -> Rhythm:
        num = len(rates)
        return Rhythm(
            np.full(num, 9, np.int32),
            np.array(rates, np.float32),
            np.array(irregularity, np.float32),
            np.zeros(num, np.float32),
            np.ones(num, np.float32),
        )

    usual = rhythm([70, 72, 74, 90], [0.02, 0.03, 0.02, 0.05])
    found = rhythm_scores(usual, rhythm([40, 73, 150, np.nan], [0.4, 0.02, 0.03, np.nan]))
    assert found["heart_rate"].argmax() == 2
    assert found["heart_rate"][0] > found["heart_rate"][1]
    assert found["heart_rate"][3] == pytest.approx(17)  # no rate: as far as the farthest usual one
    assert found["rr_irregularity"][3] == pytest.approx(0.05)
    nothing = rhythm_scores(rhythm([np.nan], [np.nan]), rhythm([np.nan], [np.nan]))
    assert all(np.isfinite(values).all() for values in nothing.values())
