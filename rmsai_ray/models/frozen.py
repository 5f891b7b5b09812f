"""A model ready for use and no longer for training, read from its folder without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from rmsai_ray.errors import CheckpointError
from rmsai_ray.models.bundle import ModelSpec, make_model_id
from rmsai_ray.models.quantised import unpack
from rmsai_ray.signals.normalise import Normaliser

if TYPE_CHECKING:
    from rmsai_ray.models.base import EcgAutoencoder

WEIGHTS_NAME, DESCRIPTION_NAME = "model.safetensors", "model.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class FrozenModel:
    """What encoding needs of a model. Torch takes seconds to import, and a worker's encoder does without."""

    spec: ModelSpec
    normaliser: Normaliser
    tensors: Mapping[str, npt.NDArray[Any]]
    """The network's weights by torch's names."""

    @cached_property
    def model_id(self) -> str:
        """As :attr:`rmsai_ray.models.bundle.ModelBundle.model_id`."""
        return make_model_id(self.spec, self.normaliser, self.tensors)

    @cached_property
    def network(self) -> EcgAutoencoder:
        """The torch network, built when it is first asked for."""
        import torch  # here, as the class says

        from rmsai_ray.models.base import build_network

        network = build_network(
            self.spec.family,
            window_samples=self.spec.window_samples,
            embedding_dim=self.spec.embedding_dim,
            architecture=self.spec.architecture,
        )
        network.load_state_dict({name: torch.tensor(array) for name, array in self.tensors.items()})
        return network


def load_frozen(folder: Path) -> FrozenModel:
    """The model of a checkpoint folder.

    Raises:
        CheckpointError: the folder is broken, or its weights are not those that its description names.
    """
    model, description = read_folder(folder)
    check_model_id(folder, description, model.model_id)
    return model


def read_folder(folder: Path) -> tuple[FrozenModel, dict[str, Any]]:
    """What a checkpoint folder holds, and its whole description.

    Raises:
        CheckpointError: says what was expected and what was found.
    """
    description = _read_description(folder / DESCRIPTION_NAME)
    try:
        spec = ModelSpec.from_json(description["spec"])
        normaliser = Normaliser.from_json(description["normaliser"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / DESCRIPTION_NAME}: field missing or foreign: {error}") from error
    tensors = _read_tensors(folder / WEIGHTS_NAME, spec.family)
    return FrozenModel(spec=spec, normaliser=normaliser, tensors=tensors), description


def check_model_id(folder: Path, description: Mapping[str, Any], found: str) -> None:
    """Raises CheckpointError where weights and description are of two models."""
    if found != description.get("model_id"):
        raise CheckpointError(
            f"{folder}: expected the model {description.get('model_id')} of {DESCRIPTION_NAME}, found "
            f"{found}: weights and description do not belong together"
        )


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path}: expected JSON, found something else: {error}") from error
    if description.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: expected format_version {FORMAT_VERSION}, found {description.get('format_version')!r}"
        )
    return description


def _read_tensors(path: Path, family: str) -> dict[str, npt.NDArray[Any]]:
    try:
        return unpack(load_file(path))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: expected the weights of a {family} network: {error}") from error
