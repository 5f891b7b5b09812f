"""The models that a lake was made with lie in it, so that any worker and any later reader finds them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rmsai_ray.errors import CheckpointError
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.checkpoint import DESCRIPTION_NAME, WEIGHTS_NAME, load_model, save_checkpoint
from rmsai_ray.storage import Store


def shelve_model(lake: Store, bundle: ModelBundle) -> None:
    """Writes a model's checkpoint to ``models/<model_id>/``, the description last, unless it is there."""
    if lake.find(_key(bundle.model_id, DESCRIPTION_NAME)) is not None:
        return
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = save_checkpoint(bundle, Path(folder) / bundle.model_id)
        for name in (WEIGHTS_NAME, DESCRIPTION_NAME):
            lake.put(_key(bundle.model_id, name), (checkpoint / name).read_bytes())


def load_shelved_model(lake: Store, model_id: str) -> ModelBundle:
    """The model that made the lake's rows of ``model_id``.

    Raises:
        CheckpointError: what the lake holds is not that model.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in (WEIGHTS_NAME, DESCRIPTION_NAME):
            (Path(folder) / name).write_bytes(lake.get(_key(model_id, name)))
        bundle = load_model(folder)
    if bundle.model_id != model_id:
        raise CheckpointError(f"expected the model {model_id}, found {bundle.model_id} in its place")
    return bundle


def _key(model_id: str, name: str) -> str:
    return f"models/{model_id}/{name}"
