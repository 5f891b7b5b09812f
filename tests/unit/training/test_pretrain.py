"""Pre-training from archives to a checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.errors import ConfigError
from rmsai_ray.models.checkpoint import load_model
from rmsai_ray.signals.leads import LEADS
from rmsai_ray.training.data import read_training_data
from rmsai_ray.training.loop import window_errors
from rmsai_ray.training.pretrain import PretrainConfig, pretrain


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PretrainConfig:
    root = tmp_path_factory.mktemp("pretrain")
    (root / "icu").mkdir()
    for patient in range(4):
        name, content = simulate_archive(patient, 3, seed=1, proportions=(0.67, 0.33, 0, 0, 0))
        (root / "icu" / name).write_bytes(content)
    return PretrainConfig(
        archives=(str(root / "icu"),), output=str(root / "models" / "mine"), epochs=1, licences=("Made up.",)
    )


def test_the_checkpoint_holds_what_its_users_need(config: PretrainConfig) -> None:
    made = pretrain(config)
    bundle = load_model(config.output)
    assert bundle.model_id == made.model_id
    assert bundle.trained
    assert bundle.thresholds is not None
    assert set(bundle.thresholds["T_normal"]) == set(LEADS)
    facts = bundle.facts
    everyone = sorted(patient for part in facts["splits"].values() for patient in part)
    assert everyone == ["PT0000", "PT0001", "PT0002", "PT0003"]
    assert [facts["num_windows"][part] for part in ("train", "validation", "test")] == [
        [42, 28],
        [21, 14],
        [21, 14],
    ]
    assert facts["code_version"]
    assert len(facts["data_hash"]) == 16
    assert 0 < bundle.metrics["held_out"]["mse_normal"] < 2


def test_the_card_has_the_figures_and_no_machine_paths(config: PretrainConfig) -> None:
    bundle = pretrain(config)
    card = (Path(config.output) / "CARD.md").read_text()
    assert bundle.model_id in card
    assert f"| icu | {bundle.metrics['held_out']['mse_normal']:.3f} |" in card
    assert "- Made up." in card
    assert "not a medical device" in card
    for text in (card, (Path(config.output) / "model.json").read_text()):
        assert str(Path(config.output).parent) not in text


def test_the_same_command_makes_the_same_model_and_another_seed_another(config: PretrainConfig) -> None:
    first = pretrain(config)
    assert pretrain(config).model_id == first.model_id
    other = replace(config, seed=1, output=f"{config.output}-other")
    assert pretrain(other).model_id != first.model_id
    records = sorted((Path(config.output).parent / "runs").glob("*/run.json"))
    assert len(records) == 2
    record = json.loads(records[0].read_text())
    assert record["status"] == "done"
    assert record["facts"]["model_id"] in (first.model_id, load_model(other.output).model_id)


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"archives": ()}, {"learning_rate": 2.0}, {"batch_windows": 0}]
)
def test_bad_values_are_refused(config: PretrainConfig, change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        replace(config, **change)


def test_the_packaged_model_tells_simulated_rhythms_apart(tmp_path: Path) -> None:
    """Of patients of another seed than in its training."""
    for patient in range(2):
        name, content = simulate_archive(patient, 5, seed=99, proportions=(0.6, 0, 0, 0.2, 0.2))
        (tmp_path / name).write_bytes(content)
    bundle = load_model("framed-2400x64")
    windows = read_training_data([str(tmp_path)], bundle.spec).windows
    errors = window_errors(bundle.network, bundle.normaliser, windows)
    normal = errors[windows.is_normal_N]
    assert normal.mean() < 0.2
    assert normal.max() < 1
    for condition in ("Atrial Fibrillation (PTB-XL)", "Ventricular Tachycardia (MIT-BIH)"):
        abnormal = errors[windows.conditions_N == condition]
        assert len(abnormal) == 14
        assert abnormal.mean() > 3 * normal.mean()
