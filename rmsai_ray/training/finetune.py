"""Fine-tuning: a trained model learns further, all of it or some of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from rmsai_ray.errors import ConfigError
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.checkpoint import load_model
from rmsai_ray.signals.leads import select_leads
from rmsai_ray.training.config import FinetuneConfig
from rmsai_ray.training.flow import Start, train_model

__all__ = ["FinetuneConfig", "finetune", "freeze", "known_parts", "lineage"]


def finetune(config: FinetuneConfig) -> ModelBundle:
    """Trains a model further; see :func:`~rmsai_ray.training.flow.train_model`.

    Patients whom the model or an ancestor of it knew stay in their parts.
    """
    parent = load_model(config.model)
    freeze(parent.network, config.freeze)
    spec = replace(parent.spec, leads=select_leads(config.leads or parent.spec.leads))
    ancestors = lineage(parent)
    start = Start(
        job="finetune",
        bundle=replace(parent, spec=spec),
        known_parts=known_parts(ancestors),
        facts={"lineage": ancestors, "frozen": list(config.freeze)},
    )
    return train_model(start, config)


def freeze(network: nn.Module, prefixes: Sequence[str]) -> None:
    """Lets the parameters be whose names begin with one of the prefixes.

    Raises:
        ConfigError: a prefix is of no parameter, or nothing is left to train.
    """
    groups = sorted({name.split(".")[0] for name, _ in network.named_parameters()})
    for prefix in prefixes:
        found = [weights for name, weights in network.named_parameters() if name.startswith(prefix)]
        if not found:
            raise ConfigError(
                "freeze", prefix, "begins no parameter's name", f"They begin with {', '.join(groups)}."
            )
        for weights in found:
            weights.requires_grad_(False)
    if not any(weights.requires_grad for weights in network.parameters()):
        raise ConfigError(
            "freeze", list(prefixes), "leaves nothing to train", f"Groups: {', '.join(groups)}."
        )


def lineage(parent: ModelBundle) -> list[dict[str, Any]]:
    """The ancestors of a model's child, the oldest first: who they are, and which patients they knew.

    Raises:
        ConfigError: the parent is a pseudonymised lake's copy, which does not name those that it knew.
    """
    facts = parent.facts
    if facts.get("pseudonyms"):
        rule = "names the patients that trained it by pseudonyms, so that nobody can keep them apart"
        raise ConfigError(
            "model", parent.model_id, rule, "Start from the checkpoint, not from a lake's copy."
        )
    own = {"model_id": parent.model_id, "data_hash": facts.get("data_hash"), "splits": facts.get("splits")}
    return [*facts.get("lineage", ()), own]


def known_parts(ancestors: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The part of every patient whom an ancestor knew; who trained one of them stays in training."""
    parts: dict[str, str] = {}
    for part in ("test", "validation", "train"):
        for ancestor in ancestors:
            parts |= dict.fromkeys((ancestor["splits"] or {}).get(part, ()), part)
    return parts
