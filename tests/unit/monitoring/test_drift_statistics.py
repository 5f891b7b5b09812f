"""Distances, their p-values, and that the stated false-alarm rate holds for patients, not windows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, energy_distance, ks_2samp

from rmsai_ray.monitoring.statistics import (
    adjusted_p_values,
    deal_patients,
    energy_distances,
    histogram_distances,
)


def test_of_a_deal_only_the_groups_change() -> None:
    names, is_recent = ["a", "b", "c", "d", "a"], np.array([False, False, False, True, True])
    dealt = deal_patients(names, is_recent, num_deals=500, seed=1)
    assert np.array_equal(dealt[0], is_recent)
    assert (dealt.sum(axis=1) == 2).all()
    assert (dealt[:, 0] != dealt[:, 4]).all()  # who is in both stays in both
    assert 0.4 < dealt[1:, 0].mean() < 0.6
    assert dealt[1:, 1:4].mean(axis=0) == pytest.approx(1 / 3, abs=0.07)


def test_distances_are_those_of_the_books() -> None:
    rng = np.random.default_rng(3)
    before, after = rng.normal(size=(200, 1)), rng.normal(0.7, 1, size=(150, 1))
    values = np.concatenate([before, after])[:, 0]
    edges = np.sort(values)  # a bin for every value
    shares = np.eye(len(values) + 1)[np.searchsorted(edges, values, side="right")]
    dealt = (np.arange(350) >= 200)[None, :]
    found = histogram_distances(shares, dealt)
    assert found.ks_D[0] == pytest.approx(ks_2samp(before[:, 0], after[:, 0]).statistic)
    energy = energy_distances(np.concatenate([before, after]), dealt)[0]
    between = np.abs(before - after.T).mean()
    # SciPy's is the square root of the distance of the books
    assert energy == pytest.approx(energy_distance(before[:, 0], after[:, 0]) ** 2 / (2 * between))


def test_the_stability_index_by_hand() -> None:
    before, after = [0.1] * 10, [0.05] * 5 + [0.15] * 5
    found = histogram_distances(np.array([before, after]), np.array([[False, True]]))
    assert found.psi_D[0] == pytest.approx(5 * -0.05 * np.log(0.5) + 5 * 0.05 * np.log(1.5), rel=1e-6)


def test_a_patient_without_values_takes_no_part() -> None:
    shares = np.array([[1.0, 0.0], [0.0, 1.0], [np.nan, np.nan], [0.0, 1.0]])
    found = histogram_distances(shares, np.array([[False, False, True, True]]))
    assert found.ks_D[0] == pytest.approx(0.5)


def windows_of(rng: np.random.Generator, num_patients: int, shift: float) -> np.ndarray:
    """Shares of ten bins of 40 windows a patient; a patient's windows resemble each other."""
    level = rng.normal(shift, 1, size=(num_patients, 1))
    values = level + 0.3 * rng.normal(size=(num_patients, 40))
    bins = np.searchsorted(np.linspace(-2, 2, 9), values)
    return np.stack([np.bincount(row, minlength=10) / 40 for row in bins])


def p_value(rng: np.random.Generator, shift: float, seed: int) -> float:
    tests = []
    dealt = deal_patients([str(i) for i in range(24)], np.arange(24) >= 14, num_deals=199, seed=seed)
    for _ in range(3):
        shares = np.concatenate([windows_of(rng, 14, 0), windows_of(rng, 10, shift)])
        found = histogram_distances(shares, dealt)
        tests += [found.psi_D, found.ks_D]
    return float(adjusted_p_values(np.stack(tests))[1].min())


def test_the_stated_false_alarm_rate_holds_over_all_tests_together() -> None:
    """Six tests a check, forty windows a patient: were windows counted, nearly every check would alarm."""
    rng = np.random.default_rng(11)
    alarms = sum(p_value(rng, 0.0, seed) <= 0.05 for seed in range(300))
    assert binomtest(alarms, 300, 0.05).pvalue > 0.001
    assert alarms > 0  # a test that never alarms would hold any rate


def test_a_shift_is_found() -> None:
    rng = np.random.default_rng(12)
    assert np.mean([p_value(rng, 2.0, seed) <= 0.05 for seed in range(40)]) > 0.9
