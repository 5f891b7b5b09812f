import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rmsai_ray.detection.calibration import GRID
from rmsai_ray.detection.detector_set import (
    DEFAULT_DETECTORS,
    DEFAULT_MEMBERS,
    DESCRIPTION_NAME,
    ENSEMBLE,
    DetectorSet,
    fit_detector_set,
    load_detector_set,
)
from rmsai_ray.detection.thresholds import resolve_profile
from rmsai_ray.errors import CheckpointError, ConfigError
from tests.measured_windows import normal_windows, odd_windows, with_rhythm

TRAIN, VALIDATION, UNSEEN = (normal_windows(700, seed=seed) for seed in (1, 2, 3))
NAMES = (*DEFAULT_DETECTORS, "two_sided_error")
MEMBERS = ("worst_error", "rhythm", "mahalanobis", "knn")


def fit(**options: object) -> DetectorSet:
    return fit_detector_set(TRAIN, VALIDATION, **{"model_id": "tiny-0", "seed": 5, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fitted() -> DetectorSet:
    return fit(names=NAMES, members=MEMBERS, facts={"data_hash": "7"})


def test_every_detector_and_the_ensemble_score(fitted: DetectorSet) -> None:
    scores = fitted.scores(UNSEEN)
    assert list(scores) == [*NAMES, ENSEMBLE]
    for score_N in (*scores.values(), *fitted.scores(odd_windows()).values()):
        assert score_N.dtype == np.float32
        assert np.isfinite(score_N).all()


def test_members_of_the_ensemble_are_the_default_ones_where_nobody_chose() -> None:
    assert fit().members == DEFAULT_MEMBERS
    assert fit(names=("knn", "mahalanobis")).members == ("knn", "mahalanobis")


def test_the_ensemble_is_surprised_by_what_any_member_sees(fitted: DetectorSet) -> None:
    normal = fitted.scores(UNSEEN)[ENSEMBLE]
    assert np.median(normal) < np.log10(5)
    for abnormal in (
        with_rhythm(UNSEEN, rate_factor=3),
        replace(UNSEEN, worst_mse_N=UNSEEN.worst_mse_N * 20),
        replace(UNSEEN, embedding_NE=UNSEEN.embedding_NE + np.float32([4, -4] * 4)),
    ):
        assert np.mean(fitted.scores(abnormal)[ENSEMBLE] > np.quantile(normal, 0.95)) > 0.9


def test_only_members_make_the_ensemble(fitted: DetectorSet) -> None:
    other = fitted.scores(replace(UNSEEN, mse_N=UNSEEN.mse_N * 20))
    np.testing.assert_array_equal(other[ENSEMBLE], fitted.scores(UNSEEN)[ENSEMBLE])
    assert np.median(other["two_sided_error"]) > 1


def test_the_ensemble_depends_on_its_window_alone_to_the_bit(fitted: DetectorSet) -> None:
    expected = fitted.scores(UNSEEN)[ENSEMBLE]
    order = np.random.default_rng(0).permutation(len(UNSEEN))
    np.testing.assert_array_equal(fitted.scores(UNSEEN.take(order))[ENSEMBLE], expected[order])
    for row in range(3):
        np.testing.assert_array_equal(fitted.scores(UNSEEN.take([row]))[ENSEMBLE], expected[[row]])


@pytest.mark.parametrize("detector", [*MEMBERS, ENSEMBLE])
def test_the_calibration_gives_thresholds_that_hold_on_unseen_normals(
    fitted: DetectorSet, detector: str
) -> None:
    assert {len(values) for values in fitted.calibration[detector].values()} == {len(GRID)}
    profile = resolve_profile(
        "calibrated", None, detector=detector, quantiles=fitted.calibration, false_alarm_rate=0.1
    )
    thresholds, _ = profile.lookup(UNSEEN.leads_N.tolist(), ["Normal"] * len(UNSEEN))
    assert np.mean(fitted.scores(UNSEEN)[detector] > thresholds) == pytest.approx(0.1, abs=0.05)


def test_saved_and_loaded_it_is_the_same(fitted: DetectorSet, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "leftover").write_text("of an older set")
    loaded = load_detector_set(fitted.save(tmp_path / "set"))
    assert loaded.set_id == fitted.set_id
    assert (loaded.members, loaded.facts) == (fitted.members, fitted.facts)
    assert loaded.calibration == fitted.calibration
    for name, score_N in fitted.scores(UNSEEN).items():
        np.testing.assert_array_equal(loaded.scores(UNSEEN)[name], score_N)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]
    assert not (tmp_path / "set" / "leftover").exists()


def test_the_id_says_what_can_change_a_score_and_nothing_else(fitted: DetectorSet) -> None:
    default = fit()
    assert default.set_id == fit(facts={"run_id": "other"}).set_id
    assert default.set_id.startswith("tiny-0+")
    others = [
        fitted,
        fit(seed=6, names=("one_class_svm",)),
        fit(seed=7, names=("one_class_svm",)),
        fit(names=("rhythm",)),
        fit(members=("rhythm",)),
        fit(model_id="tiny-1"),
        fit(validation_patients_N=np.arange(len(VALIDATION)).astype(np.str_) > "4"),
    ]
    assert len({default.set_id, *(other.set_id for other in others)}) == 1 + len(others)


def test_the_set_of_another_model_is_refused(fitted: DetectorSet) -> None:
    fitted.check_model("tiny-0")
    with pytest.raises(ConfigError, match=r"fitted for the model tiny-0, not for tiny-1"):
        fitted.check_model("tiny-1")


@pytest.mark.parametrize(
    "options",
    [
        {"names": ("crystal_ball",)},
        {"members": ("isolation_forest",)},
        {"members": ()},
        {"names": ()},
    ],
)
def test_a_set_that_cannot_be_is_bad_configuration(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        fit(**options)


def test_without_windows_nothing_is_fitted() -> None:
    nothing = TRAIN.take(slice(0, 0))
    for train, validation in ((nothing, VALIDATION), (TRAIN, nothing)):
        with pytest.raises(ConfigError):
            fit_detector_set(train, validation, model_id="tiny-0", seed=0)


Spoil = Callable[[dict[str, object]], object]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda description: "not JSON at all",
        lambda description: {**description, "format_version": 2},
        lambda description: {**description, "model_id": "tiny-1"},
        lambda description: {**description, "members": ["rhythm"]},
        lambda description: {**description, "members": 7},
        lambda description: {**description, "detectors": ["../../elsewhere"]},
        lambda description: {**description, "detectors": ["crystal_ball"]},
        lambda description: {**description, "detectors": [["knn"]]},
        lambda description: {key: value for key, value in description.items() if key != "tails"},
        lambda description: {**description, "calibration": {"knn": {"*": [1, 2]}}},
        lambda description: [description],
    ],
)
def test_a_spoilt_description_is_refused(fitted: DetectorSet, tmp_path: Path, spoil: Spoil) -> None:
    folder = fitted.save(tmp_path / "set")
    path = folder / DESCRIPTION_NAME
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    with pytest.raises(CheckpointError):
        load_detector_set(folder)


def test_detectors_of_another_set_are_noticed(fitted: DetectorSet, tmp_path: Path) -> None:
    folder = fitted.save(tmp_path / "set")
    shifted = fit_detector_set(UNSEEN, VALIDATION, ("knn",), model_id="tiny-0", seed=0)
    shifted.save(tmp_path / "other")
    (folder / "knn" / "arrays.npz").write_bytes((tmp_path / "other" / "knn" / "arrays.npz").read_bytes())
    with pytest.raises(CheckpointError, match="do not belong together"):
        load_detector_set(folder)
    with pytest.raises(CheckpointError):
        load_detector_set(tmp_path / "nowhere")
