"""The checkpoint folder: what is saved comes back to the last bit, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rmsai_ray.errors import CheckpointError, ConfigError
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.checkpoint import PRETRAINED, load_model, save_checkpoint, untrained_model
from rmsai_ray.signals.leads import LEADS
from rmsai_ray.signals.normalise import Normaliser


@pytest.fixture
def bundle() -> ModelBundle:
    thresholds = {"metric": "mse", "percentile": 95, "T_normal": {"ECG1": 0.5}, "num_windows": {"ECG1": 30}}
    made = untrained_model("rmsai-140x128", seed=3)
    return replace(made, trained=True, thresholds=thresholds, metrics={"a": 1.5}, facts={"code": "x"})


def test_everything_comes_back(bundle: ModelBundle, tmp_path: Path) -> None:
    loaded = load_model(save_checkpoint(bundle, tmp_path / "model", card="# Card\n"))
    for name in ("spec", "normaliser", "trained", "thresholds", "metrics", "facts", "model_id"):
        assert getattr(loaded, name) == getattr(bundle, name), name
    x_BT = torch.randn(4, bundle.spec.window_samples)
    with torch.inference_mode():
        for ours, theirs in zip(bundle.network(x_BT), loaded.network(x_BT), strict=True):
            assert ours.equal(theirs)
    assert (tmp_path / "model" / "CARD.md").read_text() == "# Card\n"


def test_saving_replaces_an_older_model_and_leaves_nothing_else(bundle: ModelBundle, tmp_path: Path) -> None:
    save_checkpoint(untrained_model("rmsai-140x128", seed=4), tmp_path / "model", card="old")
    save_checkpoint(bundle, tmp_path / "model")
    assert load_model(tmp_path / "model").model_id == bundle.model_id
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]


def test_a_model_that_cannot_be_written_leaves_the_old_one(bundle: ModelBundle, tmp_path: Path) -> None:
    save_checkpoint(bundle, tmp_path / "model")
    with pytest.raises(TypeError):
        save_checkpoint(replace(bundle, metrics={"not JSON": object()}), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert load_model(tmp_path / "model").metrics == bundle.metrics


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: d.update(format_version=99), "format_version 1, found 99"),
        (lambda d: d.pop("normaliser"), "normaliser"),
        (lambda d: d["spec"].update(colour="red"), "colour"),
        (lambda d: d["spec"].update(embedding_dim=64), "weights of a recurrent"),
        (lambda d: d["spec"].update(window_samples=280), "do not belong together"),
        (lambda d: d["normaliser"].update(floor=0.5), "do not belong together"),
    ],
)
def test_a_description_that_was_changed_is_refused(
    bundle: ModelBundle, tmp_path: Path, change: Any, complaint: str
) -> None:
    path = save_checkpoint(bundle, tmp_path / "model") / "model.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=complaint):
        load_model(tmp_path / "model")


@pytest.mark.parametrize("damage", ["cut", "gone", "other", "not JSON"])
def test_damaged_folders_are_refused(bundle: ModelBundle, tmp_path: Path, damage: str) -> None:
    folder = save_checkpoint(bundle, tmp_path / "model")
    weights = folder / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "gone":
        weights.unlink()
    elif damage == "other":
        other = save_checkpoint(untrained_model("rmsai-140x128", seed=9), tmp_path / "other")
        weights.write_bytes((other / "model.safetensors").read_bytes())
    else:
        (folder / "model.json").write_text("{")
    with pytest.raises(CheckpointError, match="expected"):
        load_model(folder)


def test_no_model_is_silently_fresh() -> None:
    with pytest.raises(CheckpointError, match="found none for this profile"):
        load_model("rmsai-140x128")
    assert load_model("rmsai-140x128", allow_untrained=True).trained is False
    assert load_model("framed-2400x64", allow_untrained=True).trained is True


def test_names_that_are_nothing() -> None:
    with pytest.raises(CheckpointError, match="framed-2400x64"):
        load_model("framed-9999x9")
    with pytest.raises(ConfigError, match="seed-2400x64"):
        untrained_model("framed-9999x9")


def test_an_untrained_model_is_the_same_every_time_and_leaves_the_generator_alone() -> None:
    state = torch.get_rng_state()
    first = untrained_model("rmsai-140x128")
    assert torch.get_rng_state().equal(state)
    assert first.model_id == untrained_model("rmsai-140x128").model_id
    assert first.model_id != untrained_model("rmsai-140x128", seed=1).model_id


def test_the_id_names_profile_weights_architecture_and_normaliser(bundle: ModelBundle) -> None:
    profile, _, fingerprint = bundle.model_id.rpartition("-")
    assert profile == "rmsai-140x128"
    assert len(fingerprint) == 12
    different = [
        replace(bundle, normaliser=Normaliser("identity")),
        replace(bundle, spec=replace(bundle.spec, window_samples=280)),
        replace(bundle, spec=replace(bundle.spec, stride_samples=140)),
        replace(bundle, spec=replace(bundle.spec, sampling_rate_hz=125.0)),
    ]
    alike = [
        replace(bundle, thresholds=None, metrics={}, facts={}),
        replace(bundle, spec=replace(bundle.spec, leads=LEADS[:2])),
    ]
    assert len({made.model_id for made in [bundle, *different]}) == 5
    assert {made.model_id for made in alike} == {bundle.model_id}
    with torch.no_grad():
        bundle.network.decoder.output_layer.bias += 1e-7
    changed = replace(bundle)
    assert changed.model_id != alike[0].model_id


def test_the_packaged_model_says_what_it_is() -> None:
    bundle = load_model("framed-2400x64")
    assert bundle.trained
    assert bundle.thresholds is not None
    assert list(bundle.thresholds["T_normal"]) == list(LEADS)
    assert all(0.01 < threshold < 1 for threshold in bundle.thresholds["T_normal"].values())
    assert all(error < 0.2 for error in bundle.metrics["held_out"]["mse_normal_by_source"].values())
    patients = [patient for part in bundle.facts["splits"].values() for patient in part]
    assert len(set(patients)) == len(patients) > 300
    assert bundle.model_id in (PRETRAINED / "framed-2400x64" / "CARD.md").read_text()
