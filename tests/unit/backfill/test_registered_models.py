"""A backfill with a registered model: its alias is resolved at the start, and the run is the model's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.flow import recorded
from rmsai_ray.backfill.report import Summary
from rmsai_ray.backfill.resolve import resolve
from rmsai_ray.detection.detector_set import fit_detector_set
from rmsai_ray.detection.profiles import NamedProfiles, profile_to_json, versioned
from rmsai_ray.detection.thresholds import ThresholdProfile
from rmsai_ray.errors import CheckpointError, ConfigError
from rmsai_ray.models.checkpoint import save_checkpoint
from rmsai_ray.registry import ModelRegistry
from tests import measured_windows
from tests.local_backfill import tiny_bundle

THRESHOLDS = {"metric": "mse", "percentile": 95, "T_normal": {"ECG1": 0.5}}


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    """Two versions of ``ecg`` that differ in what they are normalised to; the first is the champion."""
    registry = ModelRegistry(str(tmp_path / "registry"))
    for number, alias in enumerate(("champion", "challenger")):
        bundle = replace(tiny_bundle(), trained=True, thresholds=THRESHOLDS)
        bundle = replace(bundle, normaliser=replace(bundle.normaliser, floor=0.01 * (1 + number)))
        registry.register("ecg", save_checkpoint(bundle, tmp_path / f"model-{number}"), alias=alias)
    return registry


@pytest.fixture
def configure(tmp_path: Path, registry: ModelRegistry) -> Callable[[str], BackfillConfig]:
    return lambda model: BackfillConfig(
        archives=str(tmp_path / "archives"),
        lake=str(tmp_path / "lake"),
        model=model,
        registry=str(tmp_path / "registry"),
    )


def test_the_run_is_named_by_the_model_and_not_by_the_way_to_it(
    configure: Callable[[str], BackfillConfig], tmp_path: Path
) -> None:
    runs = {model: resolve(configure(model)) for model in ("ecg", "ecg@champion", "ecg@1", "ecg@challenger")}
    assert runs["ecg"].run_id == runs["ecg@champion"].run_id == runs["ecg@1"].run_id
    assert runs["ecg@challenger"].run_id != runs["ecg"].run_id
    plain = resolve(replace(configure("ecg"), model=str(tmp_path / "model-0"), registry=None))
    assert plain.run_id == runs["ecg"].run_id
    assert plain.registered == {}


def test_a_moved_alias_is_another_run_and_the_old_one_again_after_a_roll_back(
    configure: Callable[[str], BackfillConfig], registry: ModelRegistry
) -> None:
    before = resolve(configure("ecg")).run_id
    registry.promote("ecg@challenger")
    assert resolve(configure("ecg")).run_id != before
    registry.rollback("ecg")
    assert resolve(configure("ecg")).run_id == before


def test_the_record_says_what_the_alias_stood_for(
    configure: Callable[[str], BackfillConfig], registry: ModelRegistry
) -> None:
    run = resolve(configure("ecg@challenger"))
    registry.promote("ecg@1", "challenger")  # too late for this run
    with recorded(run, Summary()) as record:
        pass
    version = registry.entry("ecg").versions[1]
    assert record.facts["model"] == {"name_or_path": "ecg@challenger", "model_id": version.content_id}
    assert record.facts["registered"] == {
        "model": {
            "reference": "ecg@challenger",
            "alias": "challenger",
            "name": "ecg",
            "version": 2,
            "kind": "model",
            "content_id": version.content_id,
            "content_hash": version.content_hash,
        },
    }
    assert record.config["model"] == "ecg@challenger"


def test_detectors_are_resolved_like_models(
    configure: Callable[[str], BackfillConfig], registry: ModelRegistry, tmp_path: Path
) -> None:
    model_id = registry.resolve("ecg").version.content_id
    train, validation = (measured_windows.normal_windows(300, seed=seed) for seed in (1, 2))
    fitted = fit_detector_set(train, validation, ("worst_error", "rhythm"), model_id=model_id, seed=0)
    registry.register("ecg-detectors", fitted.save(tmp_path / "set"), alias="champion")
    run = resolve(replace(configure("ecg"), detectors="ecg-detectors@champion"))
    assert run.scoring.detector_set == fitted.set_id == run.registered["detectors"]["content_id"]
    assert run.scoring.detector == "ensemble"
    assert run.scoring.profile.version.startswith("far5-")
    folder = resolve(replace(configure("ecg"), detectors=str(tmp_path / "set")))
    assert folder.run_id == run.run_id
    for options in ({"detectors": "ecg"}, {"model": "ecg-detectors"}):
        with pytest.raises(ConfigError, match="is registered as"):
            resolve(replace(configure("ecg"), **options))


def test_what_was_changed_after_registration_scores_nothing(
    configure: Callable[[str], BackfillConfig], registry: ModelRegistry, tmp_path: Path
) -> None:
    folder = tmp_path / "registry" / registry.resolve("ecg").version.folder
    (folder / "model.json").write_text((folder / "model.json").read_text().replace("0.5", "5.0"))
    with pytest.raises(CheckpointError, match="changed after it was registered"):
        resolve(configure("ecg"))


def test_a_threshold_profile_names_the_run_by_its_numbers_and_not_by_the_way_to_it(
    configure: Callable[[str], BackfillConfig], tmp_path: Path
) -> None:
    config = configure("ecg")
    profile = versioned(ThresholdProfile("adaptive", "", "mse", {"*": 1.0}, {}), "20251001")
    profiles = NamedProfiles(config.lake, resolve(config).bundle.model_id)
    profiles.save(profile, "import")
    (tmp_path / "mine.json").write_text(json.dumps(profile_to_json(profile)))
    names = ("adaptive", "adaptive@1", str(tmp_path / "mine.json"))
    runs = [resolve(replace(config, threshold_profile=name)) for name in names]
    assert all(run.scoring.profile == profile for run in runs)
    assert len({run.run_id for run in runs}) == 1
    assert runs[0].run_id != resolve(config).run_id
    profiles.save(versioned(replace(profile, base={"*": 2.0}), "20251002"), "adapt")
    assert resolve(replace(config, threshold_profile="adaptive")).run_id != runs[0].run_id
    assert resolve(replace(config, threshold_profile="adaptive@1")).run_id == runs[0].run_id


def test_a_registry_needs_a_name_that_it_has(configure: Callable[[str], BackfillConfig]) -> None:
    with pytest.raises(ConfigError, match="NAME@ALIAS"):
        replace(configure("ecg"), model=None)
    with pytest.raises(ConfigError, match="aliases: challenger = 2, champion = 1"):
        resolve(configure("ecg@prod"))


def test_a_rate_that_the_model_cannot_follow_is_refused(configure: Callable[[str], BackfillConfig]) -> None:
    with pytest.raises(ConfigError, match="false_alarm_rate"):
        resolve(replace(configure("ecg"), false_alarm_rate=0.01))
