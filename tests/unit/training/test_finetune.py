"""Freezing, lineage, and patients who stay in the part in which an ancestor knew them."""

from __future__ import annotations

import pytest
from torch import nn

from rmsai_ray.errors import ConfigError
from rmsai_ray.models.checkpoint import untrained_model
from rmsai_ray.training.finetune import freeze, known_parts, lineage
from rmsai_ray.training.splits import split_by_patient


def network() -> nn.Module:
    return nn.ModuleDict(
        {"encoder_rnn": nn.LSTM(2, 2), "encoder_stem": nn.Linear(2, 2), "head": nn.Linear(2, 1)}
    )


def test_layers_are_frozen_by_the_beginning_of_their_names() -> None:
    frozen = network()
    freeze(frozen, ("encoder",))
    trained = {name for name, weights in frozen.named_parameters() if weights.requires_grad}
    assert trained == {"head.weight", "head.bias"}


def test_freezing_nothing_known_or_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match="encoder_rnn, encoder_stem, head"):
        freeze(network(), ("decoder",))
    with pytest.raises(ConfigError, match="nothing to train"):
        freeze(network(), ("encoder", "head"))


def test_a_copy_that_names_nobody_has_no_children() -> None:
    model = untrained_model("framed-2400x64", seed=0)
    model.facts.update({"splits": {"train": ["P00"]}, "pseudonyms": "0123456789abcdef"})
    with pytest.raises(ConfigError, match="by pseudonyms"):
        lineage(model)


def test_the_youngest_ancestor_comes_last() -> None:
    model = untrained_model("rmsai-140x128")
    (first,) = lineage(model)
    assert first == {"model_id": model.model_id, "data_hash": None, "splits": None}
    model.facts.update({"lineage": [first], "data_hash": "abc", "splits": {"train": ["A"]}})
    assert [ancestor["data_hash"] for ancestor in lineage(model)] == [None, "abc"]


def test_who_trained_an_ancestor_never_tests_a_descendant() -> None:
    ancestors = [
        {"splits": {"train": ["A"], "validation": ["B"], "test": ["C", "D"]}},
        {"splits": None},
        {"splits": {"train": ["D"], "validation": [], "test": ["A"]}},
    ]
    known = known_parts(ancestors)
    assert known == {"A": "train", "B": "validation", "C": "test", "D": "train"}
    splits = split_by_patient({"ward": ("A", "B", "C", "E", "F", "G", "H")}, 1, known=known)
    assert "A" in splits.train
    assert "B" in splits.validation
    assert "C" in splits.test
    everyone = [*splits.train, *splits.validation, *splits.test]
    assert sorted(everyone) == ["A", "B", "C", "E", "F", "G", "H"], "D is not there"
