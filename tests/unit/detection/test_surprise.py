import numpy as np
import pytest

from rmsai_ray.detection.surprise import Tail, fit_tails, surprises
from rmsai_ray.errors import CheckpointError


def test_surprise_is_minus_log10_of_how_often_normals_score_as_high() -> None:
    rng = np.random.default_rng(0)
    normal, leads = rng.exponential(2.0, 20_000), np.full(20_000, "ECG1")
    tails = fit_tails(normal, leads)
    for probability in (0.5, 0.1, 0.05, 0.01, 1e-4, 1e-8):  # an exponential stays one beyond the largest
        [found] = surprises(np.array([-2.0 * np.log(probability)]), leads[:1], tails)
        assert found == pytest.approx(-np.log10(probability), rel=0.05)


def test_order_is_kept_also_beyond_the_largest_normal_score() -> None:
    normal = np.random.default_rng(0).standard_normal(500)
    tail = fit_tails(normal, np.full(500, "ECG1"))["ECG1"]
    scores = np.linspace(np.quantile(normal, 0.01), 1e4, 2000)
    assert np.all(np.diff(tail.surprise(scores)) > 0)
    assert tail.surprise(np.array([-1e9])).tolist() == [0]


def test_every_lead_has_its_own_normals_unless_they_are_few() -> None:
    rng = np.random.default_rng(0)
    leads = np.repeat(["ECG1", "ECG2", "aVR"], [400, 400, 20])
    scores = rng.standard_normal(820) + 10.0 * (leads == "ECG2")
    tails = fit_tails(scores, leads)
    assert set(tails) == {"*", "ECG1", "ECG2"}
    same = surprises(np.full(4, 5.0), np.array(["ECG1", "ECG2", "aVR", "unknown"]), tails)
    assert same[0] > 2
    assert same[1] < 0.1
    assert same[2] == same[3] == tails["*"].surprise(np.array([5.0]))[0]


def test_each_patient_counts_alike() -> None:
    scores = np.concatenate([np.linspace(0, 1, 900), np.linspace(10, 11, 100)])
    leads, patients = np.full(1000, "ECG1"), np.repeat(["many", "few"], [900, 100])
    plain, weighted = fit_tails(scores, leads)["*"], fit_tails(scores, leads, patients)["*"]
    assert plain.surprise(np.array([5.0]))[0] > 0.9
    assert weighted.surprise(np.array([5.0]))[0] == pytest.approx(np.log10(2), abs=0.02)


def test_where_all_normals_score_the_same_that_score_is_no_surprise() -> None:
    tail = fit_tails(np.zeros(200), np.full(200, "ECG1"))["*"]
    assert tail.surprise(np.zeros(3)).tolist() == [0, 0, 0]
    assert tail.surprise(np.array([1.0]))[0] > 3


@pytest.mark.parametrize(
    "change",
    [{"decay": 0}, {"decay": float("nan")}, {"scores": [1, 1]}, {"shares": [0.1]}, {"shares": [0, 1]}],
)
def test_a_spoilt_tail_is_refused(change: dict[str, object]) -> None:
    sound = {"scores": [1.0, 2.0], "shares": [0.0, 0.95], "decay": 1.0}
    assert Tail.from_json(Tail.from_json(sound).to_json()).decay == 1
    with pytest.raises(CheckpointError):
        Tail.from_json(sound | change)
