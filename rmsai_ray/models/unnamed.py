"""A model's description without the names of those whom it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.privacy import Pseudonymiser

KEPT_FACTS = frozenset({"code_version", "data_hash", "num_windows", "licences", "pseudonyms"})
BY_NAMES = ("_by_source", "_by_condition")
"""How figures are called that are told apart by where archives lie, or by what a monitor wrote."""


def without_names(bundle: ModelBundle, pseudonyms: Pseudonymiser) -> ModelBundle:
    """The same model: facts by an allow-list, patients as pseudonyms, no figures by source or condition.

    A model that was trained with pseudonyms under this key keeps them.
    """
    return replace(bundle, facts=_facts(bundle.facts, pseudonyms), metrics=_metrics(bundle.metrics))


def _facts(facts: Mapping[str, Any], pseudonyms: Pseudonymiser) -> dict[str, Any]:
    kept = {name: value for name, value in facts.items() if name in KEPT_FACTS}
    splits = facts.get("splits")
    if isinstance(splits, Mapping):
        kept["splits"] = {
            part: sorted(_patient(patient, facts, pseudonyms) for patient in patients)
            for part, patients in splits.items()
        }
    return kept | {"pseudonyms": pseudonyms.fingerprint}


def _patient(patient: str, facts: Mapping[str, Any], pseudonyms: Pseudonymiser) -> str:
    return patient if facts.get("pseudonyms") == pseudonyms.fingerprint else pseudonyms.patient(patient)


def _metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _metrics(value) if isinstance(value, Mapping) else value
        for name, value in metrics.items()
        if not name.endswith(BY_NAMES)
    }
