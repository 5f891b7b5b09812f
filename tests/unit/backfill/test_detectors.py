"""A backfill with fitted detectors: which are chosen, and what they make of the rows."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.detectors import choose_detector, choose_detector_set
from rmsai_ray.backfill.flow import recorded
from rmsai_ray.backfill.report import Summary
from rmsai_ray.backfill.resolve import resolve, shelve, tasks_of
from rmsai_ray.backfill.score import Scoring, score_unit
from rmsai_ray.backfill.stages import EncodeWindows
from rmsai_ray.detection.detector_set import DESCRIPTION_NAME, DetectorSet, fit_detector_set
from rmsai_ray.detection.rows import measured_of
from rmsai_ray.detection.shelf import load_shelved_detector_set, shelve_detector_set
from rmsai_ray.detection.thresholds import resolve_profile
from rmsai_ray.encoding.encoder import WindowEncoder
from rmsai_ray.errors import CheckpointError, ConfigError
from rmsai_ray.models.checkpoint import save_checkpoint
from rmsai_ray.signals.rhythm import rhythm
from rmsai_ray.storage import Store
from rmsai_ray.tables.blocks import UnitTables
from tests.local_backfill import tiny_bundle
from tests.unit.backfill.test_score import SCORING, archives, unit_of

NAMES = ("worst_error", "mahalanobis", "knn", "rhythm", "two_sided_error")


def unit(raws: tuple[bytes, ...]) -> UnitTables:
    return unit_of(tiny_bundle(), raws, ("ECG1", "ECG2"))


@cache
def detectors() -> DetectorSet:
    """Fitted on what the tiny model measures of the test's own archives."""
    scored = score_unit(unit(archives()), WindowEncoder(tiny_bundle()), SCORING)
    measured = measured_of(scored.windows)
    return fit_detector_set(measured, measured, NAMES, model_id=tiny_bundle().model_id, seed=0)


def scoring(detector: str = "ensemble") -> Scoring:
    profile = resolve_profile("calibrated", None, detector=detector, quantiles=detectors().calibration)
    return replace(SCORING, profile=profile, detector=detector, detector_set=detectors().set_id)


def config(folder: Path, **options: Any) -> BackfillConfig:
    """For a checkpoint of the tiny model in ``folder``."""
    model = folder / "model"
    if not model.exists():
        thresholds = {"metric": "mse", "percentile": 95, "T_normal": {"ECG1": 0.5, "ECG2": 0.5}}
        save_checkpoint(replace(tiny_bundle(), trained=True, thresholds=thresholds), model)
    return BackfillConfig(
        archives=str(folder / "archives"), lake=str(folder / "lake"), **{"model": str(model), **options}
    )


def test_every_detector_scores_every_window_and_one_decides() -> None:
    for detector in ("ensemble", "knn"):
        scored = score_unit(
            unit(archives()), WindowEncoder(tiny_bundle()), scoring(detector), detectors()
        ).windows
        expected = detectors().scores(measured_of(scored))
        for place, row in enumerate(scored.to_pylist()):
            found = {pair["detector"]: pair["score"] for pair in row["scores"]}
            assert found == {name: float(score_N[place]) for name, score_N in expected.items()}
            assert list(found)[-1] == "ensemble"
            assert row["anomaly_score"] == found[detector]
            assert (row["detector"], row["detector_set"]) == (detector, detectors().set_id)
            assert row["is_anomaly"] == (row["anomaly_score"] > row["threshold"])


def test_without_a_set_the_error_alone_scores() -> None:
    for row in score_unit(unit(archives()), WindowEncoder(tiny_bundle()), SCORING).windows.to_pylist():
        assert row["scores"] == [{"detector": "reconstruction_error", "score": row["reconstruction_error"]}]
        assert row["detector_set"] is None


def test_the_error_can_decide_beside_a_set() -> None:
    chosen = replace(SCORING, detector_set=detectors().set_id)
    rows = score_unit(unit(archives()), WindowEncoder(tiny_bundle()), chosen, detectors()).windows.to_pylist()
    for row in rows:
        assert row["anomaly_score"] == row["reconstruction_error"] == row["scores"][-1]["score"]
        assert len(row["scores"]) == len(NAMES) + 2


def test_scores_do_not_depend_on_order_or_batches() -> None:
    _, one, two = archives()
    expected = score_unit(unit((one, two)), WindowEncoder(tiny_bundle()), scoring(), detectors())
    by_id = {row["window_id"]: row for row in expected.windows.to_pylist()}
    for batch_windows, raws in ((1, (two,)), (3, (two, one))):
        encoder = WindowEncoder(tiny_bundle(), batch_windows=batch_windows)
        rows = score_unit(unit(raws), encoder, scoring(), detectors()).windows.to_pylist()
        assert len(rows) > 0
        assert repr(rows) == repr([by_id[row["window_id"]] for row in rows])


def test_the_rhythm_is_that_of_the_window() -> None:
    read = unit(archives()).windows
    signals_NT = np.stack(read["signal"].to_pylist()).astype(np.float32)
    expected = rhythm(signals_NT, read["num_samples"].to_numpy(), 200.0)
    scored = score_unit(unit(archives()), WindowEncoder(tiny_bundle()), SCORING).windows
    found = measured_of(scored).rhythm
    for name, values in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), values, err_msg=name)
    short = [row for row in scored.to_pylist() if row["num_samples"] == 100]
    assert short
    for row in short:
        assert (row["num_beats"], row["ecg_rate"], row["rr_irregularity"]) == (0, None, None)
    assert any(row["ecg_rate"] for row in scored.to_pylist())


def test_a_model_brings_its_own_detectors(tmp_path: Path) -> None:
    model_id = detectors().model_id
    assert choose_detector_set(config(tmp_path), model_id) is None
    detectors().save(tmp_path / "model" / "detectors")
    for option in (None, "packaged", str(tmp_path / "model" / "detectors")):
        chosen = choose_detector_set(config(tmp_path, detectors=option), model_id)
        assert chosen is not None
        assert chosen.set_id == detectors().set_id
    assert choose_detector_set(config(tmp_path, detectors="none"), model_id) is None


def test_detectors_that_are_not_there_or_not_of_this_model_are_bad_configuration(tmp_path: Path) -> None:
    for option in ("packaged", str(tmp_path / "nowhere")):
        with pytest.raises(ConfigError, match=r"fit_detectors\.py"):
            resolve(config(tmp_path, detectors=option))
    folder = detectors().save(tmp_path / "set")
    with pytest.raises(ConfigError, match="fitted for the model"):
        choose_detector_set(config(tmp_path, detectors=str(folder)), "another-model")
    (folder / DESCRIPTION_NAME).write_text("{}")
    with pytest.raises(ConfigError, match="Fit them again"):
        resolve(config(tmp_path, detectors=str(folder)))


def test_the_ensemble_decides_where_there_is_one(tmp_path: Path) -> None:
    plain = config(tmp_path)
    assert choose_detector(plain, None) == "reconstruction_error"
    assert choose_detector(plain, detectors()) == "ensemble"
    for name in ("knn", "reconstruction_error", "worst_error"):
        assert choose_detector(replace(plain, detector=name), detectors()) == name
    for name, fitted in (("isolation_forest", detectors()), ("knn", None), ("ensemble", None)):
        with pytest.raises(ConfigError, match="not among the fitted"):
            choose_detector(replace(plain, detector=name), fitted)
    with pytest.raises(ConfigError, match="not registered"):
        choose_detector(replace(plain, detector="crystal_ball"), detectors())


def test_the_run_is_named_and_recorded_with_its_detectors(tmp_path: Path) -> None:
    without = resolve(config(tmp_path))
    assert without.detectors is None
    assert without.scoring.detector == "reconstruction_error"
    detectors().save(tmp_path / "model" / "detectors")
    run = resolve(config(tmp_path))
    assert run.run_id != without.run_id
    assert resolve(config(tmp_path, detectors="none")).run_id == without.run_id
    assert run.scoring.detector_set == detectors().set_id
    assert run.scoring.profile.metric == "ensemble"
    assert resolve(config(tmp_path, detector="knn")).run_id != run.run_id
    with recorded(run, Summary()) as record:
        assert (record.facts["detector"], record.facts["detector_set"]) == ("ensemble", detectors().set_id)


def test_thresholds_for_errors_do_not_judge_other_scores(tmp_path: Path) -> None:
    config(tmp_path)
    detectors().save(tmp_path / "model" / "detectors")
    with pytest.raises(ConfigError, match="threshold_profile"):
        resolve(config(tmp_path, threshold_profile="seed", detector="ensemble"))
    scoring = resolve(config(tmp_path, threshold_profile="seed")).scoring
    assert scoring.detector == "reconstruction_error", "what the documents' numbers were written for"
    assert scoring.detector_set == detectors().set_id


def test_workers_find_the_detectors_in_the_lake(tmp_path: Path) -> None:
    config(tmp_path)
    detectors().save(tmp_path / "model" / "detectors")
    run = resolve(config(tmp_path))
    shelve(run)
    tasks = tasks_of(run, on_gpu=False)
    encode = EncodeWindows(tasks.encode, tasks.log)
    [scored] = UnitTables.from_block(encode(unit(archives()).to_block()))
    expected = score_unit(unit(archives()), WindowEncoder(tiny_bundle()), run.scoring, detectors())
    assert scored.windows.equals(expected.windows)


def test_a_shelf_holds_each_set_once_and_whole(tmp_path: Path) -> None:
    lake = Store(str(tmp_path))
    shelve_detector_set(lake, detectors())
    before = {info.key: info.etag for info in lake.list()}
    shelve_detector_set(lake, detectors())
    assert {info.key: info.etag for info in lake.list()} == before
    loaded = load_shelved_detector_set(lake, detectors().model_id, detectors().set_id)
    assert loaded.set_id == detectors().set_id
    with pytest.raises(CheckpointError):
        load_shelved_detector_set(lake, detectors().model_id, f"{detectors().model_id}+00000000")
