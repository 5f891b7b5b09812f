"""Evaluations of an untrained network on small simulated archives: who is asked, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.errors import ConfigError
from rmsai_ray.evaluation.config import EvaluateConfig
from rmsai_ray.evaluation.corpus import Corpus, read_corpus
from rmsai_ray.evaluation.flow import evaluate
from rmsai_ray.evaluation.models import contests
from rmsai_ray.evaluation.probes import linear_probe
from rmsai_ray.evaluation.protocol import Split
from rmsai_ray.evaluation.scoring import combine
from rmsai_ray.evaluation.splits import divide
from rmsai_ray.evaluation.stability import shift_stability
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.checkpoint import save_checkpoint, untrained_like
from rmsai_ray.models.profiles import get_profile

LEADS = ("ECG2", "vVX")


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archives")
    for patient in range(8):
        name, content = simulate_archive(patient, 6, seed=3, proportions=(0.7, 0.0, 0.0, 0.3, 0.0))
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    spec = get_profile("framed-2400x64")
    small = {**spec.architecture, "hidden_dim": 8, "stem_dim": 8, "head_dim": 8}
    return untrained_like(replace(spec, architecture=small, leads=LEADS), seed=0)


@pytest.fixture(scope="module")
def corpus(archives: Path, bundle: ModelBundle) -> Corpus:
    return read_corpus([str(archives)], bundle.spec)


def test_a_moment_is_one_stretch_of_time_with_a_window_a_lead(corpus: Corpus) -> None:
    assert len(corpus.moments) == 48
    assert len(corpus.windows) == 96
    assert (np.bincount(corpus.moment_N) == 2).all()
    assert corpus.moments["HR"].between(20, 250).all()
    some = corpus.of_patients(["PT0003"])
    assert len(some.moments) == 6
    assert set(some.windows.patients_N) == {"PT0003"}
    np.testing.assert_array_equal(np.unique(some.moment_N), np.arange(6))


def test_every_patient_tests_in_one_fold_and_fits_in_none_of_the_same(corpus: Corpus) -> None:
    rounds = divide(corpus.moments, Split(by="patient-folds", folds=4))
    assert sorted(patient for one in rounds for patient in one.test) == corpus.patients
    for one in rounds:
        parts = (set(one.train), set(one.validation), set(one.test))
        assert set.union(*parts) == set(corpus.patients)
        assert sum(map(len, parts)) == len(corpus.patients)
    assert rounds == divide(corpus.moments.sample(frac=1, random_state=0), Split(by="patient-folds", folds=4))


def ask(corpus: Corpus, bundle: ModelBundle, folder: Path, **options: object) -> list:
    values = {"fold_models": None, "retrain_epochs": 0, "unseen_only": False, "seed": 0, "keep": folder}
    return contests(corpus, Split(by="patient-folds", folds=4), bundle, **(values | options))  # type: ignore[arg-type]


def test_a_model_meets_only_patients_that_it_has_not_seen(
    corpus: Corpus, bundle: ModelBundle, tmp_path: Path
) -> None:
    splits = {"train": ["PT0000", "PT0001"], "validation": ["PT0002"], "test": []}
    trained = replace(bundle, trained=True, facts={"splits": splits})
    with pytest.raises(ConfigError, match="was trained or validated on"):
        ask(corpus, trained, tmp_path)
    [only] = ask(corpus, trained, tmp_path, unseen_only=True)
    assert only.round.train == ("PT0000", "PT0001")
    assert only.round.validation == ("PT0002",)
    assert only.round.test == ("PT0003", "PT0004", "PT0005", "PT0006", "PT0007")


def test_fold_models_are_checked_against_their_fold(
    corpus: Corpus, bundle: ModelBundle, tmp_path: Path
) -> None:
    rounds = divide(corpus.moments, Split(by="patient-folds", folds=4))
    for one in rounds:
        facts = {"splits": one.to_json()}
        save_checkpoint(replace(bundle, trained=True, facts=facts), tmp_path / one.name)
    found = ask(corpus, bundle, tmp_path, fold_models=str(tmp_path))
    assert [contest.round for contest in found] == rounds
    (tmp_path / "fold-0").rename(tmp_path / "kept")
    (tmp_path / "fold-1").rename(tmp_path / "fold-0")
    (tmp_path / "kept").rename(tmp_path / "fold-1")
    with pytest.raises(ConfigError, match="test patients"):
        ask(corpus, bundle, tmp_path, fold_models=str(tmp_path))


def test_leads_are_combined_by_mean_or_maximum() -> None:
    scores, moments = np.array([1, 3, 5, 5], np.float32), np.array([4, 4, 9, 9])
    assert combine(scores, moments, "mean").tolist() == [2, 5]
    assert combine(scores, moments, "max").tolist() == [3, 5]


def test_a_linear_probe_finds_what_is_linear_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    x_UD = rng.standard_normal((300, 5)).astype(np.float32)
    classes = np.stack([x_UD[:, 0] > 0, rng.random(300) < 0.5, np.zeros(300, bool)], 1)
    is_test = np.arange(300) >= 200
    patients = np.array([f"p{i // 2}" for i in range(300)])
    found = linear_probe(
        x_UD, classes, ("seen", "coin", "absent"), patients, ~is_test, is_test, seed=0, num_draws=20
    )
    assert found["classes"] == ["seen", "coin"]
    assert found["auroc"]["seen"] > 0.97
    assert abs(found["auroc"]["coin"] - 0.5) < 0.15


def test_events_with_gaps_between_have_no_shift(corpus: Corpus, bundle: ModelBundle) -> None:
    assert shift_stability(corpus, bundle, query_patients=("PT0000",), gallery_windows=100, seed=0) is None


def test_shifts_are_cut_from_one_recording(corpus: Corpus, bundle: ModelBundle) -> None:
    place = corpus.moments.groupby("record").cumcount().to_numpy()
    joined = replace(corpus, moments=corpus.moments.assign(start_s=12.0 * place))
    found = shift_stability(joined, bundle, query_patients=("PT0000",), gallery_windows=200, seed=0)
    assert found is not None
    assert 0 <= found["cosine"] <= 1
    assert found["queries"] > 10


def test_an_evaluation_leaves_a_report_and_opens_its_test_part_once(
    archives: Path, bundle: ModelBundle, tmp_path: Path
) -> None:
    save_checkpoint(bundle, tmp_path / "model")
    config = EvaluateConfig(
        protocol="simulated",
        archives=(str(archives),),
        model=str(tmp_path / "model"),
        output=str(tmp_path / "out"),
        draws=10,
    )
    folder = evaluate(config)
    found = json.loads((folder / "report.json").read_text())
    af = {row["score"]: row for row in found["conditions"]["Atrial Fibrillation (PTB-XL)"]}
    assert af["rr_irregularity"]["auroc"]["value"] > 0.95
    assert af["heart_rate"]["circular"]
    assert found["condition_aware"]["Atrial Fibrillation (PTB-XL)"].keys() == {
        "declared",
        "all_vitals",
        "masked_vitals",
    }
    assert "| `ensemble` | declared |" in (folder / "report.md").read_text()
    assert evaluate(config) == folder  # the same again does nothing
    with pytest.raises(ConfigError, match="test part was used"):
        evaluate(replace(config, seed=1))
    again = evaluate(replace(config, seed=1, reopen_test="another seed of the detectors"))
    assert "another seed of the detectors" in (again / "report.md").read_text()
