"""The card tells what a reader has to know: figures, limits, and where a model comes from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.checkpoint import untrained_model
from rmsai_ray.training.card import write_card

FACTS: dict[str, Any] = {
    "code_version": "0.1.0+abc",
    "data_hash": "0123",
    "splits": {"train": ["A", "B"], "validation": ["C"], "test": ["D"]},
    "num_windows": {"train": [10, 8], "validation": [5, 4], "test": [6, 3]},
    "left_out": {"flat": 2},
    "licences": ["Made up."],
    "training": {"seed": 42, "epochs": 9, "epochs_run": 7, "best_epoch": 5, "cohort": None},
}


@pytest.fixture
def bundle() -> ModelBundle:
    held_out = {
        "mse_normal_by_source": {"icu": 0.1234},
        "auroc_abnormal_by_source": {"icu": None},
        "mse_normal_by_lead": {"ECG1": 0.2},
        "mse_by_condition": {"Bradycardia": 0.125, "Normal": 0.228, "Tachycardia": 0.672},
    }
    thresholds = {"percentile": 95, "T_normal": {"ECG1": 0.5}, "num_windows": {"ECG1": 4}}
    made = untrained_model("rmsai-140x128")
    return replace(made, thresholds=thresholds, metrics={"held_out": held_out}, facts=FACTS)


def test_figures_and_what_was_left_out(bundle: ModelBundle) -> None:
    card = write_card(bundle)
    assert bundle.model_id in card
    assert "| icu | 0.123 | – |" in card
    assert "| train | 2 | 10 | 8 |" in card
    assert "- Made up." in card
    assert "{'flat': 2}" in card
    assert "not a medical device" in card
    assert "Fine-tuned" not in card


def test_conditions_like_normal_are_named_as_a_limit(bundle: ModelBundle) -> None:
    limits = write_card(bundle).partition("## Limits")[2]
    (line,) = (line for line in limits.splitlines() if "no worse than what is reported as Normal" in line)
    assert "Bradycardia" in line
    assert "Tachycardia" not in line


def test_without_such_conditions_there_is_no_such_limit(bundle: ModelBundle) -> None:
    bundle.metrics["held_out"]["mse_by_condition"] = {"Normal": 0.1, "Tachycardia": 0.6}
    assert "no worse than" not in write_card(bundle)


def test_limits_of_a_family_are_on_the_cards_of_that_family(bundle: ModelBundle) -> None:
    framed = replace(bundle, spec=replace(bundle.spec, family="framed"))
    assert "kept apart" in write_card(framed)
    assert "kept apart" not in write_card(bundle)


def test_lineage_and_cohort(bundle: ModelBundle) -> None:
    ancestors = [
        {"model_id": "first-1", "data_hash": "aaa", "splits": None},
        {"model_id": "second-2", "data_hash": "bbb", "splits": None},
    ]
    training = {**FACTS["training"], "cohort": "heart_rate < 100"}
    facts = {**FACTS, "lineage": ancestors, "frozen": ["encoder"], "training": training}
    card = write_card(replace(bundle, facts=facts))
    assert "Fine-tuned from `second-2`, trained on data `bbb`" in card
    assert "`encoder…`" in card
    assert "Before that: `first-1`." in card
    assert "`heart_rate < 100`" in card
