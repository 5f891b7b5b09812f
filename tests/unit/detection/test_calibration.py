from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from rmsai_ray.detection.calibration import (
    FEWEST_WINDOWS,
    GRID,
    normal_quantiles,
    patient_weights,
    realised_rates,
    threshold_interval,
    thresholds_at,
    weighted_quantiles,
)
from rmsai_ray.errors import ConfigError

Scores = tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]


def draw(rng: np.random.Generator, num_patients: int) -> Scores:
    """Scores and patients: each patient has a level and a number of windows of its own."""
    count_P = np.maximum(3, rng.lognormal(3.5, 1.0, num_patients).astype(int))
    patient_N = np.repeat(np.arange(num_patients), count_P)
    level_P = rng.normal(0, 0.7, num_patients)
    return np.exp(level_P[patient_N] + rng.normal(size=len(patient_N))), patient_N


def test_the_grid_is_fine_where_thresholds_lie() -> None:
    assert (GRID[0], GRID[-1]) == (0.5, 0.999)
    assert np.all(np.diff(GRID) > 0)
    assert {0.9, 0.95, 0.99, 0.995} <= set(GRID)


def test_quantiles_of_equal_weights_are_exceeded_as_often_as_asked() -> None:
    score_N = np.arange(1.0, 100.0)  # 99 values: the k-th stands for k / 100
    found = weighted_quantiles(score_N[::-1], np.ones(99), [0.5, 0.9, 0.955, 0.999])
    np.testing.assert_allclose(found, [50, 90, 95.5, 99])


@pytest.mark.parametrize("scores", [[], [1.0, np.nan], [np.inf]])
def test_quantiles_of_nothing_or_of_no_numbers_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        weighted_quantiles(np.array(scores), np.ones(len(scores)), [0.9])


def test_each_patient_counts_alike() -> None:
    np.testing.assert_allclose(patient_weights(["a", "b", "a", "a"]), [1 / 3, 1, 1 / 3, 1 / 3])
    score_N = np.r_[np.full(900, 5.0), np.linspace(0, 1, 100)]  # one patient sends most of the windows
    leads = np.full(1000, "ECG1")
    by_window = normal_quantiles(score_N, leads)["ECG1"][0]
    by_patient = normal_quantiles(score_N, leads, np.repeat(["a", "b", "c"], [900, 50, 50]))["ECG1"][0]
    assert by_window == 5.0
    assert by_patient == pytest.approx(0.75, abs=0.02)


def test_weighing_patients_comes_nearer_to_the_rate_on_new_patients() -> None:
    """The reason for the default; here 30 patients and 5 %."""
    rng = np.random.default_rng(0)
    errors = {"window": [], "patient": []}
    for _ in range(60):
        (score_N, patient_N), (new_N, new_patient_N) = draw(rng, 30), draw(rng, 200)
        for kind, weight_N in (("window", np.ones(len(score_N))), ("patient", patient_weights(patient_N))):
            above = new_N > weighted_quantiles(score_N, weight_N, [0.95])[0]
            errors[kind].append(float(np.average(above, weights=patient_weights(new_patient_N))) - 0.05)
    spread = {kind: float(np.sqrt(np.mean(np.square(values)))) for kind, values in errors.items()}
    assert spread["patient"] < spread["window"]
    assert abs(np.mean(errors["patient"])) < 0.015


def test_a_lead_with_few_windows_takes_those_of_all_leads() -> None:
    leads = np.repeat(["ECG1", "aVF"], [FEWEST_WINDOWS, FEWEST_WINDOWS - 1])
    found = normal_quantiles(np.arange(len(leads), dtype=float), leads)
    assert set(found) == {"*", "ECG1"}
    assert len(found["*"]) == len(GRID)


def test_a_threshold_is_read_off_the_grid_with_linear_interpolation() -> None:
    values = [10 * probability for probability in GRID]
    assert thresholds_at({"ECG1": values, "*": values}, 0.05) == pytest.approx({"ECG1": 9.5, "*": 9.5})
    assert thresholds_at({"ECG1": values}, 0.0137)["ECG1"] == pytest.approx(9.863)


@pytest.mark.parametrize("rate", [0.0, 0.0009, 0.51, -1.0, float("nan")])
def test_rates_outside_of_the_grid_are_refused_with_the_bounds(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"false_alarm_rate.*0\.001 to 0\.5"):
        thresholds_at({"ECG1": list(GRID)}, rate)
    assert thresholds_at({"ECG1": list(GRID)}, 0.001) == pytest.approx({"ECG1": 0.999})


def test_a_calibration_of_another_grid_is_refused() -> None:
    with pytest.raises(ConfigError, match="3 quantiles of lead ECG1"):
        thresholds_at({"ECG1": [1.0, 2.0, 3.0]}, 0.05)


def test_few_patients_leave_the_threshold_open() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for num_patients in (5, 80):
        score_N, patient_N = draw(rng, num_patients)
        low, high = threshold_interval(score_N, patient_N, 0.05, seed=0, num_resamples=100)
        assert low <= weighted_quantiles(score_N, patient_weights(patient_N), [0.95])[0] <= high
        widths.append(high / low)
    assert widths[0] > widths[1] > 1


def realised(**changes: object) -> dict[str, object]:
    arguments: dict[str, object] = {
        "scores_N": [1, 3, 1, 3, 1, 1, 9],
        "leads_N": ["ECG1", "ECG1", "ECG1", "aVF", "aVF", "aVF", "aVF"],
        "patients_N": ["a", "a", "b", "b", "b", "c", "c"],
        "is_normal_N": [True, True, True, True, True, True, False],
        "thresholds_by_lead": {"ECG1": 2.0, "*": 2.5},
        "seed": 0,
        "num_resamples": 500,
    }
    return arguments | changes


def test_realised_rates_by_lead_and_altogether() -> None:
    every, ecg1, avf = realised_rates(**realised())  # type: ignore[arg-type]
    assert (every.lead, every.threshold, every.num_patients, every.num_windows) == ("*", None, 3, 6)
    assert every.rate == pytest.approx(2 / 6)
    assert every.patient_rate == pytest.approx((1 / 2 + 1 / 3 + 0) / 3)
    assert (ecg1.lead, ecg1.threshold, ecg1.num_windows) == ("ECG1", 2.0, 3)
    assert ecg1.rate == pytest.approx(1 / 3)
    assert (avf.lead, avf.threshold, avf.num_patients, avf.rate) == ("aVF", 2.5, 2, pytest.approx(1 / 3))


def test_a_score_on_the_threshold_is_no_alarm_as_in_the_rows() -> None:
    (every, _) = realised_rates(
        [np.float32(0.1), 0.2], ["x", "x"], ["a", "b"], [True, True], {"x": 0.1}, seed=0, num_resamples=10
    )
    assert (every.rate, every.threshold) == (0.5, 0.1)


def test_the_interval_is_over_patients_and_holds_the_true_rate() -> None:
    rng = np.random.default_rng(2)
    score_N, patient_N = draw(rng, 40)
    many_N, _ = draw(rng, 4000)
    truth = float((many_N > 3.0).mean())
    every = realised_rates(
        score_N,
        np.full(len(score_N), "x"),
        patient_N,
        np.ones(len(score_N)),
        {"x": 3.0},
        seed=0,
        num_resamples=300,
    )[0]
    assert every.low < truth < every.high
    by_window = 1.96 * np.sqrt(every.rate * (1 - every.rate) / every.num_windows)
    assert every.high - every.low > 2 * 1.5 * by_window  # windows of a patient are alike


def test_intervals_are_reproducible_and_follow_the_seed() -> None:
    rows = [realised_rates(**realised(seed=seed))[0] for seed in (1, 1)]  # type: ignore[arg-type]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(("scores", "expected"), [([0.0] * 6, (0.0, 0.5)), ([9.0] * 6, (0.5, 1.0))])
def test_all_or_nothing_has_the_rule_of_three(scores: list[float], expected: tuple[float, float]) -> None:
    every = realised_rates(
        scores, ["x"] * 6, list("abcdef"), [True] * 6, {"x": 1.0}, seed=0, num_resamples=10
    )[0]
    assert (every.low, every.high) == expected


def test_a_single_patient_says_nothing() -> None:
    every = realised_rates([1, 3], ["x"] * 2, ["a"] * 2, [True] * 2, {"x": 2}, seed=0, num_resamples=10)[0]
    assert (every.low, every.rate, every.high) == (0, 0.5, 1)


def test_no_normal_windows_give_no_rows() -> None:
    assert realised_rates(**realised(is_normal_N=[False] * 7)) == []  # type: ignore[arg-type]


def test_a_lead_without_threshold_and_a_window_without_score_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'aVF'.*ECG1"):
        realised_rates(**realised(thresholds_by_lead={"ECG1": 1.0}))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no score"):
        realised_rates(**realised(scores_N=[1, 3, 1, np.nan, 1, 1, 9]))  # type: ignore[arg-type]
