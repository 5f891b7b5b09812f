"""Figures against scikit-learn, the authors' VUS-PR and worked examples; shuffled labels are worth a half."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmsai_ray.evaluation.bootstrap import Ranking, draw_patients, figures_with_intervals
from rmsai_ray.evaluation.metrics import auprc, auroc, event_figures, macro_auroc
from rmsai_ray.evaluation.vus import vus_pr

AUTHORS_VUS = {
    (0, 500, 10, 3): 0.17993971408053036,
    (1, 800, 20, 8): 0.27499752102021835,
    (2, 1000, 25, 30): 0.670385297332573,
    (3, 300, 0, 2): 0.12759865134865137,
    (4, 600, 60, 12): 0.6535289474211643,
}
"""``metricor().RangeAUC_volume_opt(labels, scores, buffer, 250)[-1]`` of ``vus`` 0.0.6, by case."""


def ranges(seed: int, num_points: int, num_ranges: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of one case of AUTHORS_VUS."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(num_points, bool)
    for start in rng.integers(0, num_points - 12, num_ranges):
        labels[start : start + int(rng.integers(1, 12))] = True
    scores = rng.standard_normal(num_points) + 1.2 * labels
    return np.round(scores, 1) if seed == 2 else scores, labels


@pytest.mark.parametrize("case", AUTHORS_VUS)
def test_vus_pr_is_the_authors(case: tuple[int, int, int, int]) -> None:
    seed, num_points, buffer, num_ranges = case
    scores, labels = ranges(seed, num_points, num_ranges)
    assert vus_pr(scores, labels, buffer) == pytest.approx(AUTHORS_VUS[case], abs=1e-12)


def test_vus_pr_of_one_class_is_no_number() -> None:
    assert np.isnan(vus_pr(np.arange(9.0), np.zeros(9, bool), 3))
    assert np.isnan(vus_pr(np.arange(9.0), np.ones(9, bool), 3))


def test_a_perfect_score_has_vus_pr_near_one_and_a_coin_near_the_share() -> None:
    _, labels = ranges(1, 800, 8)
    assert vus_pr(labels + 0.0, labels, 0) == pytest.approx(1)
    coin = np.random.default_rng(0).random(800)
    assert vus_pr(coin, labels, 20) < 2 * labels.mean() + 0.1


@given(seed=st.integers(0, 50), ties=st.booleans())
@settings(max_examples=30, deadline=None)
def test_drawn_figures_are_those_of_scikit_learn_with_weights(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = rng.standard_normal(60), rng.random(60) < 0.4
    scores = np.round(scores, 0) if ties else scores
    weights = draw_patients(rng.integers(0, 9, 60), seed=seed, num_draws=3)
    for name, figure in (("auroc", auroc), ("auprc", auprc)):
        drawn = Ranking(scores, labels).drawn(name, weights)  # type: ignore[arg-type]
        expected = [figure(scores, labels, weight) for weight in weights]
        np.testing.assert_allclose(drawn, expected, atol=1e-9)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_shuffled_labels_are_worth_a_half(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.random(4000) < 0.3
    scores = labels + 0.1 * rng.standard_normal(4000)
    assert auroc(scores, labels) > 0.99
    shuffled = [auroc(scores, rng.permutation(labels)) for _ in range(10)]
    assert np.mean(shuffled) == pytest.approx(0.5, abs=0.02)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_auroc_knows_order_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = rng.standard_normal(50), np.arange(50) % 3 == 0
    assert auroc(np.exp(scores), labels) == pytest.approx(auroc(scores, labels))
    assert auroc(-scores, labels) == pytest.approx(1 - auroc(scores, labels))


def test_one_class_has_no_auroc() -> None:
    assert np.isnan(auroc(np.arange(3.0), np.zeros(3, bool)))
    assert np.isnan(auprc(np.arange(3.0), np.ones(3, bool)))
    assert np.isnan(auroc(np.arange(2.0), np.array([True, False]), np.array([1.0, 0.0])))


def test_a_class_without_positives_is_not_in_the_macro_mean() -> None:
    scores = np.array([[0.1, 0.5], [0.9, 0.5]])
    labels = np.array([[False, False], [True, False]])
    assert macro_auroc(scores, labels, ("MI", "CD")) == {"MI": 1.0, "macro": 1.0}


def test_events_and_alarms_are_runs_within_a_record() -> None:
    records = np.array(["a"] * 6 + ["b"] * 4)
    positive = np.array([0, 1, 1, 0, 0, 1, 1, 0, 0, 0], bool)
    alarm = np.array([0, 0, 1, 0, 1, 0, 0, 0, 1, 1], bool)
    found = event_figures(alarm, positive, records, window_s=360.0)
    assert (found.num_events, found.num_alarms) == (3, 3)  # the record's end divides an event
    assert found.sensitivity == pytest.approx(1 / 3)
    assert found.positive_predictive_value == pytest.approx(1 / 3)
    assert found.false_alarms_per_hour == pytest.approx(2 / 0.6)


def test_without_events_alarms_or_quiet_hours_there_is_no_number() -> None:
    nothing, records = np.zeros(3, bool), np.array(["a"] * 3)
    quiet = event_figures(nothing, nothing, records, 12.0)
    assert np.isnan(quiet.sensitivity)
    assert np.isnan(quiet.positive_predictive_value)
    assert np.isnan(event_figures(nothing, ~nothing, records, 12.0).false_alarms_per_hour)


def test_a_patient_with_many_windows_is_one_patient() -> None:
    """1,000 windows of two patients: the interval knows that there are two, not a thousand."""
    rng = np.random.default_rng(0)
    patients = np.repeat(["good", "bad"], 500)
    labels = np.tile([True, False], 500)
    scores = np.where(patients == "good", labels, ~labels) + 0.01 * rng.standard_normal(1000)
    weights = draw_patients(patients, seed=0, num_draws=50)
    own, above = figures_with_intervals(
        "auroc", {"score": scores, "same": scores.copy()}, labels, weights, compared_with="same"
    )
    assert own["score"].low < 0.05
    assert own["score"].high > 0.95
    assert (above["score"].low, above["score"].high) == (0.0, 0.0)  # paired
