"""The copy of a model that a pseudonymised lake keeps."""

from __future__ import annotations

from dataclasses import replace

from rmsai_ray.models.checkpoint import untrained_model
from rmsai_ray.models.unnamed import without_names
from rmsai_ray.privacy import Pseudonymiser

KEY = Pseudonymiser(bytes(range(32)))
SECRET = "Zqdoe"


def test_a_copy_names_nobody_and_is_the_same_model() -> None:
    facts = {
        "splits": {"train": [SECRET, "PT2"], "test": ["PT3"]},
        "data_hash": "ab",
        "lineage": [{"splits": {"train": [SECRET]}}],
        "training": {"cohort": f"patient_id = '{SECRET}'"},
        "imported": SECRET,
    }
    figures = {"mse_normal": 0.5, "mse_normal_by_source": {SECRET: 1.0}, "mse_by_condition": {SECRET: 1.0}}
    model = replace(
        untrained_model("framed-2400x64", seed=0), facts=facts, metrics={"held_out": figures, "other": 1}
    )
    copy = without_names(model, KEY)
    assert SECRET not in str(copy.facts) + str(copy.metrics)
    assert copy.metrics == {"held_out": {"mse_normal": 0.5}, "other": 1}
    assert copy.facts == {
        "splits": {"train": sorted(map(KEY.patient, (SECRET, "PT2"))), "test": [KEY.patient("PT3")]},
        "data_hash": "ab",
        "pseudonyms": KEY.fingerprint,
    }
    assert copy.model_id == model.model_id
    assert without_names(copy, KEY).facts == copy.facts
