"""Rounds of adaptive thresholds over a small lake whose scores are known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rmsai_ray.detection.adapt import AdaptConfig, adapt
from rmsai_ray.detection.detector_set import fit_detector_set
from rmsai_ray.detection.profiles import NamedProfiles, find_profile, profile_to_json, versioned
from rmsai_ray.detection.shelf import shelve_detector_set
from rmsai_ray.detection.thresholds import NORMAL_RATIOS, ThresholdProfile, resolve_profile
from rmsai_ray.errors import ConfigError, LakeError
from rmsai_ray.storage import Store
from rmsai_ray.tables.audit import read_audit
from tests import lake_builder, measured_windows
from tests.lake_builder import MODEL_A, build_lake

SCORER = f"{MODEL_A}+0a1b2c3d"
START = ThresholdProfile(
    "mine", "", "ensemble", {"*": 1.5}, {name: {"*": 1.5 * ratio} for name, ratio in NORMAL_RATIOS.items()}
)
LEVELS = {"Normal": 0.8, "Atrial Fibrillation (PTB-XL)": 3.0, "Tachycardia": 2.0, "Bradycardia": 1.9}
Change = Callable[[pd.DataFrame], object]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 windows per event and lead, whose scores lie around a level per condition."""
    lake = tmp_path_factory.mktemp("built") / "lake"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lake_builder, "STARTS", tuple(range(0, 2800, 70)))
        build_lake(lake, (MODEL_A,))
    rng = np.random.default_rng(0)

    def score(rows: pd.DataFrame) -> None:
        level = rows["condition"].map(LEVELS)
        rows["anomaly_score"] = np.float32(level * (1 + 0.1 * rng.standard_normal(len(rows))))

    rewrite(lake, "windows", score)
    return lake


@pytest.fixture
def lake(built: Path, tmp_path: Path) -> Path:
    """A copy of that lake, and beside it ``start.json``."""
    shutil.copytree(built, tmp_path / "lake", ignore=shutil.ignore_patterns("lance"))
    (tmp_path / "start.json").write_text(json.dumps(profile_to_json(versioned(START, "hand"))))
    return tmp_path / "lake"


def rewrite(lake: Path, table: str, change: Change) -> None:
    """Changes the rows of every part in place."""
    for file in sorted((lake / table).rglob("*.parquet")):
        part = pq.read_table(file, partitioning=None)
        rows = part.to_pandas()
        change(rows)
        columns = {
            name: pa.array(list(rows[name]), part.schema.field(name).type)
            for name in set(part.column_names) & CHANGED
        }
        for name, column in columns.items():
            place = part.schema.get_field_index(name)
            part = part.set_column(place, part.schema.field(name), column)
        pq.write_table(part, file)


CHANGED = {
    "anomaly_score", "condition", "anomaly_status", "is_anomaly", "detector", "detector_set", "ecg_extras",
}  # fmt: skip


def configure(lake: Path, **options: Any) -> AdaptConfig:
    start = str(lake.parent / "start.json")
    return AdaptConfig(lake=str(lake), **{"days": 60, "start": start, **options})


def present(lake: Path, scorer: str = SCORER) -> ThresholdProfile:
    return NamedProfiles(str(lake), scorer).load("adaptive")


def test_the_first_round_starts_adapts_and_says_why(lake: Path) -> None:
    audits = adapt(configure(lake))
    history = NamedProfiles(str(lake), SCORER).history("adaptive")
    assert [step.action for step in history] == ["start", "adapt"]
    assert history[0].profile.base == {"*": 1.5}
    assert {audit.lead for audit in audits} == {"ECG1", "ECG2", "vVX"}
    by_cell = {(audit.lead, audit.condition): audit for audit in audits}
    normal = by_cell["ECG2", "Normal"]
    assert (normal.num_samples, normal.samples, normal.num_normal, normal.num_abnormal) == (
        40, "reported", 40, 240,
    )  # fmt: skip
    assert normal.applied
    assert 0.9 <= normal.new_threshold < 1.5
    assert present(lake).threshold("ECG2", "Normal") == normal.new_threshold
    assert not by_cell["ECG2", "VT"].applied


def test_the_audit_table_holds_every_threshold_of_every_round(lake: Path) -> None:
    audits = adapt(configure(lake))
    adapt(configure(lake))
    table = read_audit(str(lake), SCORER)
    assert table.num_rows == 2 * len(audits)
    assert table.schema.metadata[b"rmsai_schema"] == b"threshold_audit/1"
    versions = [step.profile.version for step in NamedProfiles(str(lake), SCORER).history("adaptive")]
    rows = table.to_pylist()
    first, second = rows[0], rows[-1]
    assert (first["old_version"], first["new_version"], second["old_version"]) == (*versions[:2], versions[1])
    assert first["methods"].keys() == {"percentile", "youden", "max_f1", "gmm"}
    assert all(row["reason"] for row in rows)
    assert all(row["new_version"] != row["old_version"] for row in rows if row["applied"])
    (record,) = (lake / "runs").glob("adapt-thresholds-*/run.json")
    assert json.loads(record.read_text())["status"] == "done"
    assert len(json.loads(record.read_text())["invocations"]) == 2


def test_decisions_of_the_present_thresholds_are_not_looked_at(lake: Path) -> None:
    adapt(configure(lake))
    expected = present(lake)

    def flip(rows: pd.DataFrame) -> None:
        rows["is_anomaly"] = ~rows["is_anomaly"]
        rows["anomaly_status"] = np.where(rows["anomaly_status"] == "normal", "anomaly", "normal")

    rewrite(lake, "windows", flip)
    for name in ("thresholds", "threshold_audit"):
        shutil.rmtree(lake / name)
    adapt(configure(lake))
    assert present(lake) == expected


def test_rounds_end_at_the_bounds_of_the_start(lake: Path) -> None:
    rewrite(
        lake,
        "windows",
        lambda rows: rows.update(pd.DataFrame({"anomaly_score": rows["anomaly_score"] * np.float32(0.1)})),
    )
    for _ in range(3):
        audits = adapt(configure(lake))
    assert present(lake).threshold("ECG1", "Normal") == pytest.approx(0.6 * 1.5)
    assert present(lake).threshold("ECG1", None) == pytest.approx(0.6 * 1.5)
    assert not any(audit.applied for audit in audits)
    assert len(NamedProfiles(str(lake), SCORER).history("adaptive")) < 4


def test_a_dry_run_writes_nothing(lake: Path) -> None:
    before = sorted(lake.rglob("*"))
    audits = adapt(configure(lake, dry_run=True))
    assert any(audit.applied for audit in audits)
    assert sorted(lake.rglob("*")) == before


def test_events_that_annotations_contradict_are_not_normal(lake: Path) -> None:
    beats = {"annotations": {"samples": [10, 200], "symbols": ["N", "V"]}}

    def annotate(rows: pd.DataFrame) -> None:
        rows["ecg_extras"] = json.dumps(beats)

    rewrite(lake, "events", annotate)
    found = {audit.condition: audit for audit in adapt(configure(lake)) if audit.lead == "ECG1"}
    assert (found["Normal"].num_normal, found["Normal"].num_abnormal) == (0, 280)
    assert found["Normal"].reason.startswith("0 samples")


def test_without_reports_the_unlabelled_windows_count(lake: Path) -> None:
    rewrite(lake, "windows", lambda rows: rows.update(pd.DataFrame({"condition": ["Unknown"] * len(rows)})))
    found = {audit.condition: audit for audit in adapt(configure(lake)) if audit.lead == "ECG1"}
    assert (found["base"].samples, found["base"].num_samples) == ("unlabelled", 280)
    assert found["base"].methods.keys() == {"percentile", "gmm"}


def test_only_recent_windows_of_the_newest_scorer_count(lake: Path) -> None:
    august = adapt(configure(lake, days=20, dry_run=True))  # the Normal event is of August
    assert {audit.num_samples for audit in august if audit.condition == "Normal"} == {0}
    few = adapt(configure(lake, max_windows=30, dry_run=True))
    assert {audit.num_samples for audit in few if audit.condition == "Normal"} == {30}

    def half(rows: pd.DataFrame) -> None:
        if str(rows["patient_id"].iloc[0]) == "PT1000":
            rows["detector_set"] = "another+00000000"

    rewrite(lake, "windows", half)
    audits = adapt(configure(lake, dry_run=True))
    assert {audit.num_samples for audit in audits if audit.condition == "AF"} == {0}


def test_starts_from_what_the_lakes_detectors_are_calibrated_to(lake: Path) -> None:
    train, validation = (measured_windows.normal_windows(400, seed=seed) for seed in (1, 2))
    fitted = fit_detector_set(train, validation, ("worst_error", "rhythm"), model_id=MODEL_A, seed=0)
    shelve_detector_set(Store(str(lake)), fitted)
    rewrite(lake, "windows", lambda rows: rows.__setitem__("detector_set", fitted.set_id))
    adapt(configure(lake, start="calibrated", false_alarm_rate=0.1))
    start = NamedProfiles(str(lake), fitted.set_id).load("adaptive@1")
    expected = resolve_profile(
        "calibrated", None, detector="ensemble", quantiles=fitted.calibration, false_alarm_rate=0.1
    )
    assert (start.base, start.conditions) == (expected.base, expected.conditions)


def test_starts_from_the_models_own_numbers_without_detectors(lake: Path) -> None:
    def plain(rows: pd.DataFrame) -> None:
        rows["detector"], rows["detector_set"] = "reconstruction_error", None

    rewrite(lake, "windows", plain)
    thresholds = {"metric": "mse", "percentile": 95, "T_normal": {"ECG1": 1.0, "ECG2": 1.0, "vVX": 1.0}}
    (lake / "models" / MODEL_A).mkdir(parents=True)
    (lake / "models" / MODEL_A / "model.json").write_text(json.dumps({"thresholds": thresholds}))
    adapt(configure(lake, start="calibrated"))
    start = NamedProfiles(str(lake), MODEL_A).load("adaptive@1")
    assert start.base == {"ECG1": 2.0, "ECG2": 2.0, "vVX": 2.0}
    assert find_profile("adaptive", str(lake), None, scorer=MODEL_A) == present(lake, MODEL_A)
    with pytest.raises(ConfigError, match="thresholds for ensemble"):
        adapt(configure(lake, profile="other"))


def test_bounds_refer_to_the_start_or_import_that_the_present_numbers_came_from(lake: Path) -> None:
    adapt(configure(lake))
    profiles = NamedProfiles(str(lake), SCORER)
    loose = replace(START, name="adaptive", base={"*": 15.0}, conditions={"Normal": {"*": 15.0}})
    profiles.save(versioned(loose, "hand"), "import")
    assert min(audit.new_threshold for audit in adapt(configure(lake, dry_run=True))) >= 9.0
    profiles.rollback("adaptive", 2)
    assert max(audit.new_threshold for audit in adapt(configure(lake, dry_run=True))) < 9.0


def test_a_profile_for_other_scores_is_not_adapted(lake: Path) -> None:
    foreign = versioned(replace(START, name="adaptive", metric="mse"), "x")
    NamedProfiles(str(lake), SCORER).save(foreign, "import")
    with pytest.raises(ConfigError, match="thresholds for mse"):
        adapt(configure(lake))


def test_a_lake_without_times_has_nothing_recent(lake: Path) -> None:
    CHANGED.add("event_time")
    rewrite(lake, "windows", lambda rows: rows.__setitem__("event_time", None))
    CHANGED.discard("event_time")
    with pytest.raises(LakeError, match="nothing is recent"):
        adapt(configure(lake))


@pytest.mark.parametrize("option", [{"days": 0}, {"max_windows": 0}, {"false_alarm_rate": 0.0}])
def test_bad_options(tmp_path: Path, option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        AdaptConfig(lake=str(tmp_path), **option)
