import io
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.ensemble import IsolationForest

from rmsai_ray.detection.arrays import load_arrays, save_arrays
from rmsai_ray.detection.detectors import DETECTORS, Detector, Measured
from rmsai_ray.detection.protocol import ARRAYS_NAME
from rmsai_ray.detection.rhythm_detector import NO_RHYTHM_SCORE
from rmsai_ray.errors import CheckpointError, ConfigError
from tests.measured_windows import normal_windows, odd_windows, with_rhythm

LEARNING = ("two_sided_error", "mahalanobis", "knn", "isolation_forest", "one_class_svm", "rhythm")
ALL = ("reconstruction_error", "worst_error", "error_contrast", *LEARNING)
NORMAL = normal_windows(600, seed=1)
UNSEEN = normal_windows(300, seed=2)


@pytest.fixture(scope="module")
def fitted() -> dict[str, Detector]:
    detectors = {name: DETECTORS.get(name)() for name in ALL}
    for detector in detectors.values():
        detector.fit(NORMAL, seed=3)
    return detectors


def moved(windows: Measured) -> Measured:
    """Moved along the direction in which normal windows vary least, by little."""
    direction = np.linalg.svd(NORMAL.embedding_NE[NORMAL.leads_N == "ECG1"], full_matrices=False)[2][-1]
    return replace(windows, embedding_NE=np.float32(windows.embedding_NE + 0.2 * direction))


def far(windows: Measured) -> Measured:
    return replace(windows, embedding_NE=windows.embedding_NE + np.float32([4, -4] * 4))


def scaled_error(factor: float) -> Callable[[Measured], Measured]:
    return lambda windows: replace(
        windows, mse_N=windows.mse_N * factor, worst_mse_N=windows.worst_mse_N * factor
    )


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("reconstruction_error", scaled_error(20)),
        ("worst_error", scaled_error(20)),
        ("error_contrast", lambda windows: replace(windows, worst_mse_N=windows.worst_mse_N * 20)),
        ("two_sided_error", scaled_error(20)),
        ("two_sided_error", scaled_error(0.05)),
        ("mahalanobis", moved),
        ("mahalanobis", far),
        ("knn", far),
        ("isolation_forest", far),
        ("one_class_svm", far),
        ("rhythm", lambda windows: with_rhythm(windows, rate_factor=1.8)),
        ("rhythm", lambda windows: with_rhythm(windows, rate_factor=0.5)),
        ("rhythm", lambda windows: with_rhythm(windows, irregularity_factor=8)),
    ],
)
def test_what_is_abnormal_scores_higher(
    fitted: dict[str, Detector], name: str, spoil: Callable[[Measured], Measured]
) -> None:
    normal, abnormal = (fitted[name].anomaly_score(windows) for windows in (UNSEEN, spoil(UNSEEN)))
    assert np.mean(abnormal > np.quantile(normal, 0.95)) > 0.9


def test_the_same_as_another_lead_is_abnormal(fitted: dict[str, Detector]) -> None:
    swapped = replace(UNSEEN, leads_N=np.where(UNSEEN.leads_N == "ECG1", "vVX", "ECG1"))
    for name in ("mahalanobis", "knn"):
        normal, abnormal = (fitted[name].anomaly_score(windows) for windows in (UNSEEN, swapped))
        assert np.median(abnormal) > normal.max()


@pytest.mark.parametrize("name", ALL)
def test_every_window_has_a_finite_score(fitted: dict[str, Detector], name: str) -> None:
    for windows in (odd_windows(), UNSEEN.take(slice(0, 0))):
        score_N = fitted[name].anomaly_score(windows)
        assert score_N.dtype == np.float32
        assert score_N.shape == (len(windows),)
        assert np.isfinite(score_N).all()


@pytest.mark.parametrize("name", ALL)
def test_a_score_depends_on_its_window_alone_to_the_bit(fitted: dict[str, Detector], name: str) -> None:
    expected = fitted[name].anomaly_score(UNSEEN)
    order = np.random.default_rng(0).permutation(len(UNSEEN))
    np.testing.assert_array_equal(fitted[name].anomaly_score(UNSEEN.take(order)), expected[order])
    for size in (1, 7, 130):
        rows = slice(5, 5 + size)
        np.testing.assert_array_equal(fitted[name].anomaly_score(UNSEEN.take(rows)), expected[rows])


@pytest.mark.parametrize("name", ALL)
def test_saved_and_loaded_it_scores_the_same(fitted: dict[str, Detector], name: str, tmp_path: Path) -> None:
    fitted[name].save(tmp_path)
    loaded = DETECTORS.get(name).load(tmp_path)
    assert loaded.name == name
    np.testing.assert_array_equal(loaded.anomaly_score(UNSEEN), fitted[name].anomaly_score(UNSEEN))


@pytest.mark.parametrize("name", LEARNING)
def test_the_same_windows_and_seed_give_the_same_bytes(
    fitted: dict[str, Detector], name: str, tmp_path: Path
) -> None:
    fitted[name].save(tmp_path)
    first = (tmp_path / ARRAYS_NAME).read_bytes()
    again = DETECTORS.get(name)()
    again.fit(NORMAL, seed=3)
    again.save(tmp_path)
    assert (tmp_path / ARRAYS_NAME).read_bytes() == first


@pytest.mark.parametrize("name", LEARNING)
def test_what_was_not_fitted_does_not_score(name: str) -> None:
    detector = DETECTORS.get(name)()
    with pytest.raises(ConfigError, match="not fitted"):
        detector.anomaly_score(UNSEEN)
    with pytest.raises(ConfigError, match="too few"):
        detector.fit(NORMAL.take(slice(0, 1)), seed=0)


def test_the_errors_are_scores_themselves(fitted: dict[str, Detector]) -> None:
    np.testing.assert_array_equal(fitted["reconstruction_error"].anomaly_score(UNSEEN), UNSEEN.mse_N)
    np.testing.assert_array_equal(fitted["worst_error"].anomaly_score(UNSEEN), UNSEEN.worst_mse_N)


def test_the_band_of_errors_is_that_of_the_lead(fitted: dict[str, Detector]) -> None:
    error_N = np.log(NORMAL.mse_N[NORMAL.leads_N == "vVX"])
    edges = np.exp(np.quantile(error_N, [0.05, 0.5, 0.95]))
    windows = replace(UNSEEN.take(slice(0, 3)), mse_N=np.float32(edges), leads_N=np.array(["vVX"] * 3))
    np.testing.assert_allclose(fitted["two_sided_error"].anomaly_score(windows), [1, 0, 1], atol=1e-4)


def test_mahalanobis_is_its_formula(fitted: dict[str, Detector]) -> None:
    x_NE, leads_N = NORMAL.embedding_NE.astype(np.float64), NORMAL.leads_N
    mean = {lead: x_NE[leads_N == lead].mean(axis=0) for lead in np.unique(leads_N)}
    residual = x_NE - np.stack([mean[lead] for lead in leads_N])
    precision = LedoitWolf(assume_centered=True).fit(residual).precision_
    difference = UNSEEN.embedding_NE - np.stack([mean[lead] for lead in UNSEEN.leads_N])
    expected = np.sqrt(np.einsum("ne,ef,nf->n", difference, precision, difference))
    found = fitted["mahalanobis"].anomaly_score(UNSEEN)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_neighbours_are_the_nearest_of_the_lead(fitted: dict[str, Detector]) -> None:
    scale = NORMAL.embedding_NE.std(axis=0)
    expected = []
    for row in range(20):
        same = NORMAL.embedding_NE[NORMAL.leads_N == UNSEEN.leads_N[row]]
        distances = np.linalg.norm((same - UNSEEN.embedding_NE[row]) / scale, axis=1)
        expected.append(np.sort(distances)[:5].mean())
    found = fitted["knn"].anomaly_score(UNSEEN.take(slice(0, 20)))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_number_of_references_is_bounded(tmp_path: Path) -> None:
    detector = DETECTORS.get("knn")()
    detector.fit(normal_windows(5000, seed=4), seed=0)
    detector.save(tmp_path)
    assert len(np.load(tmp_path / ARRAYS_NAME)["reference_RE"]) == 4 * 1024


def test_the_forest_is_that_of_scikit_learn(fitted: dict[str, Detector]) -> None:
    forest = IsolationForest(n_estimators=100, max_samples=256, random_state=3).fit(NORMAL.embedding_NE)
    expected = -forest.score_samples(UNSEEN.embedding_NE)
    np.testing.assert_allclose(fitted["isolation_forest"].anomaly_score(UNSEEN), expected, rtol=1e-5)


def test_the_svm_leaves_few_normals_outside(fitted: dict[str, Detector]) -> None:
    assert 0.005 < np.mean(fitted["one_class_svm"].anomaly_score(UNSEEN) > 0) < 0.2
    assert np.all(fitted["one_class_svm"].anomaly_score(far(UNSEEN)) > 0)


def test_a_window_without_beats_lies_outside_of_the_normal_rhythms(fitted: dict[str, Detector]) -> None:
    detector = fitted["rhythm"]
    silent = detector.anomaly_score(odd_windows())[:2]
    assert silent.tolist() == [NO_RHYTHM_SCORE] * 2
    assert np.mean(detector.anomaly_score(UNSEEN) < NO_RHYTHM_SCORE) > 0.99
    assert detector.anomaly_score(with_rhythm(UNSEEN, rate_factor=3)).min() > NO_RHYTHM_SCORE


def test_of_windows_too_short_for_beats_the_rhythm_says_nothing() -> None:
    missing = np.full(len(NORMAL), np.nan, np.float32)
    rhythm = replace(NORMAL.rhythm, heart_rate_bpm_N=missing, rr_irregularity_N=missing)
    detector = DETECTORS.get("rhythm")()
    detector.fit(replace(NORMAL, rhythm=rhythm), seed=0)
    assert not detector.anomaly_score(UNSEEN).any()


class Exploit:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def pickled(folder: Path) -> bytes:
    return pickle.dumps(Exploit(folder / "executed"))


def npz_of_objects(folder: Path) -> bytes:
    content = io.BytesIO()
    np.savez(content, leads=np.array([Exploit(folder / "executed")], object), allow_pickle=True)
    return content.getvalue()


def npz_with(**arrays: np.ndarray) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        save_arrays(folder / "made.npz", arrays)
        return (folder / "made.npz").read_bytes()

    return make


def bomb(folder: Path) -> bytes:
    """An array that claims a terabyte."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 37, 3)}
    )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("leads.npy", header.getvalue())
        archive.writestr("band_L3.npy", header.getvalue())
    return content.getvalue()


@pytest.mark.parametrize(
    "make",
    [
        pickled,
        npz_of_objects,
        bomb,
        lambda folder: b"",
        lambda folder: b"PK\x03\x04 and no more",
        npz_with(leads=np.array(["*"])),
        npz_with(leads=np.array(["*"]), band_L3=np.zeros((1, 3)), more=np.zeros(1)),
        npz_with(leads=np.array(["*"]), band_L3=np.zeros(3)),
        npz_with(leads=np.array([1.0]), band_L3=np.zeros((1, 3))),
        npz_with(leads=np.array(["*"]), band_L3=np.full((1, 3), np.nan)),
    ],
)
def test_a_hostile_file_is_refused_and_nothing_executed(
    tmp_path: Path, make: Callable[[Path], bytes]
) -> None:
    (tmp_path / ARRAYS_NAME).write_bytes(make(tmp_path))
    with pytest.raises(CheckpointError, match=r"expected"):
        DETECTORS.get("two_sided_error").load(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_a_forest_with_branches_to_nowhere_is_refused(fitted: dict[str, Detector], tmp_path: Path) -> None:
    forest = DETECTORS.get("isolation_forest")
    fitted["isolation_forest"].save(tmp_path)
    arrays = {name: array.copy() for name, array in load_arrays(tmp_path / ARRAYS_NAME, forest.kept).items()}
    for place in (-1, 10**9):
        arrays["left_FD"][0, 0] = place
        save_arrays(tmp_path / ARRAYS_NAME, arrays)
        with pytest.raises(CheckpointError, match="trees"):
            forest.load(tmp_path)


def test_nothing_saved_is_nothing_loaded(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        DETECTORS.get("knn").load(tmp_path)


def test_an_unknown_detector_is_answered_with_the_list() -> None:
    with pytest.raises(ConfigError, match="reconstruction_error"):
        DETECTORS.get("crystal_ball")
    assert set(ALL) <= set(DETECTORS.names())
