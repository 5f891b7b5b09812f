"""Models on disk: the checkpoint folder, and finding a model by name, folder or file."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

from rmsai_ray.errors import CheckpointError
from rmsai_ray.models import upstream
from rmsai_ray.models.base import build_network
from rmsai_ray.models.bundle import ModelBundle, ModelSpec
from rmsai_ray.models.frozen import (
    DESCRIPTION_NAME,
    FORMAT_VERSION,
    WEIGHTS_NAME,
    check_model_id,
    read_folder,
)
from rmsai_ray.models.profiles import NORMALISERS, PROFILES, get_profile
from rmsai_ray.models.quantised import pack, unpack
from rmsai_ray.signals.normalise import Normaliser
from rmsai_ray.storage import replace_folder

CARD_NAME = "CARD.md"
PRETRAINED = Path(__file__).parent / "pretrained"


def load_model(
    name_or_path: str | Path, *, sequence_samples: int | None = None, allow_untrained: bool = False
) -> ModelBundle:
    """A model by the name of a packaged one, a checkpoint folder, or a file in one of upstream's forms.

    Args:
        name_or_path: ``framed-2400x64``, a folder, or a file.
        sequence_samples: window length of an upstream checkpoint, which does not hold it.
        allow_untrained: a profile without packaged weights gives a freshly initialised network.

    Raises:
        CheckpointError: nothing loadable is there; says what was expected and what was found.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if name in PROFILES and not path.exists():
        return _load_packaged(name, allow_untrained)
    if (path / DESCRIPTION_NAME).is_file():
        return _load_folder(path)
    if path.is_dir():
        return upstream.load(_only_weights_file(path), sequence_samples=sequence_samples)
    if path.is_file():
        return upstream.load(path, sequence_samples=sequence_samples)
    raise CheckpointError(
        f"{name}: expected a checkpoint folder, a file, or one of {', '.join(PROFILES)}; found nothing there"
    )


def untrained_model(profile: str, *, seed: int = 0) -> ModelBundle:
    """A freshly initialised network of a profile, marked as untrained: for tests and as a start of training.

    Raises:
        ConfigError: there is no such profile.
    """
    return untrained_like(get_profile(profile), seed=seed)


def untrained_like(spec: ModelSpec, *, seed: int = 0) -> ModelBundle:
    """A freshly initialised network of a specification, normalising per window, marked as untrained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _build(spec)
    normaliser = NORMALISERS.get(spec.profile, Normaliser("window"))
    return ModelBundle(network=network, spec=spec, normaliser=normaliser, trained=False)


def save_checkpoint(bundle: ModelBundle, folder: str | Path, *, card: str | None = None) -> Path:
    """Writes the model as a folder, all of it or nothing; an older one of that name is replaced."""
    files = {
        WEIGHTS_NAME: save(_stored_tensors(bundle)),
        DESCRIPTION_NAME: (json.dumps(_describe(bundle), indent=1) + "\n").encode(),
        **({CARD_NAME: card.encode()} if card is not None else {}),
    }
    target = Path(folder).absolute()
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    temporary.mkdir(parents=True)
    for name, content in files.items():
        (temporary / name).write_bytes(content)
    replace_folder(temporary, target)
    return target


def _stored_tensors(bundle: ModelBundle) -> dict[str, Any]:
    if bundle.precision == "float32":
        return {name: np.ascontiguousarray(array) for name, array in bundle.tensors.items()}
    packed = pack(bundle.tensors)
    if not all(np.array_equal(array, bundle.tensors[name]) for name, array in unpack(packed).items()):
        raise CheckpointError(
            f"{bundle.model_id}: expected weights that int8 holds, found others: quantise it again"
        )
    return packed


def _describe(bundle: ModelBundle) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "model_id": bundle.model_id,
        **({"precision": bundle.precision} if bundle.precision != "float32" else {}),
        "trained": bundle.trained,
        "spec": bundle.spec.to_json(),
        "normaliser": bundle.normaliser.to_json(),
        "thresholds": bundle.thresholds,
        "metrics": bundle.metrics,
        "facts": bundle.facts,
    }


def _load_packaged(name: str, allow_untrained: bool) -> ModelBundle:
    if (PRETRAINED / name / DESCRIPTION_NAME).is_file():
        return _load_folder(PRETRAINED / name)
    if allow_untrained:
        return untrained_model(name)
    raise CheckpointError(
        f"{name}: expected packaged weights, found none for this profile. Give the path of a checkpoint, or "
        "allow an untrained model explicitly"
    )


def _load_folder(folder: Path) -> ModelBundle:
    frozen, description = read_folder(folder)
    try:
        bundle = ModelBundle(
            network=_build(frozen.spec),
            spec=frozen.spec,
            normaliser=frozen.normaliser,
            precision=description.get("precision", "float32"),
            trained=description["trained"],
            thresholds=description["thresholds"],
            metrics=description["metrics"],
            facts=description["facts"],
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / DESCRIPTION_NAME}: field missing or foreign: {error}") from error
    try:
        weights = {name: torch.tensor(array) for name, array in frozen.tensors.items()}
        bundle.network.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{folder / WEIGHTS_NAME}: expected the weights of a {bundle.spec.family} network: {error}"
        ) from error
    check_model_id(folder, description, bundle.model_id)
    return bundle


def _build(spec: ModelSpec) -> Any:
    return build_network(
        spec.family,
        window_samples=spec.window_samples,
        embedding_dim=spec.embedding_dim,
        architecture=spec.architecture,
    )


def _only_weights_file(folder: Path) -> Path:
    """The one file in a Ray Train checkpoint folder that can hold weights."""
    found = sorted(file for file in folder.iterdir() if file.suffix in upstream.SUFFIXES)
    if len(found) == 1:
        return found[0]
    names = ", ".join(sorted(file.name for file in found or folder.iterdir())) or "an empty folder"
    raise CheckpointError(
        f"{folder}: expected {DESCRIPTION_NAME}, or exactly one file ending in "
        f"{', '.join(upstream.SUFFIXES)}; found {names}"
    )
