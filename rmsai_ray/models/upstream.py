"""Import of upstream's checkpoints, in every form in which they come, as a :class:`ModelBundle`.

E is the embedding's dimensions, T the samples of a window; T lies in no tensor.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rmsai_ray.errors import CheckpointError
from rmsai_ray.models.base import EcgAutoencoder, build_network
from rmsai_ray.models.bundle import ModelBundle, ModelSpec
from rmsai_ray.models.profiles import PROFILES
from rmsai_ray.models.unpickling import PickledModule, load_pickle
from rmsai_ray.signals.leads import LEADS
from rmsai_ray.signals.normalise import Normaliser

logger = logging.getLogger(__name__)

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
MIN_COVERAGE = 0.9
"""Share of the network's parameters that a checkpoint must provide; an encoder alone is 0.4 of it."""

WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
"""Left in tensor names by distributed training and by compilation."""
DEFAULT_SAMPLES = {64: 2400, 128: 140}
"""T by E, where the checkpoint is of no help."""
MAX_SAMPLES, MAX_DIMENSIONS = 1 << 20, 1 << 12
SAMPLING_RATE_HZ = 200.0

_DIMENSION_SOURCES = (
    ("encoder.rnn2.weight_hh_l0", 1),
    ("decoder.rnn1.weight_hh_l0", 1),
    ("decoder.rnn1.weight_ih_l0", 1),
    ("decoder.rnn2.weight_ih_l0", 1),
)
"""Tensors and axes whose length is E."""


def load(path: Path, *, sequence_samples: int | None = None) -> ModelBundle:
    """The recurrent network that a file holds.

    Reads a pickled module, or a state dict, bare or wrapped, in torch's formats or as safetensors. Tensors of
    the network's names and shapes are taken; what was taken and what not stands in the bundle's facts.

    Raises:
        CheckpointError: the file is refused, or holds less than :data:`MIN_COVERAGE` of such a network.
    """
    content = _read(path)
    tensors = _strip_prefixes(_find_tensors(content))
    embedding_dim = _embedding_dim(path, tensors)
    window_samples = sequence_samples or _sequence_length(content) or DEFAULT_SAMPLES.get(embedding_dim)
    if window_samples is None or not 0 < window_samples <= MAX_SAMPLES:
        raise CheckpointError(
            f"{path}: expected a window length, found {window_samples}: it lies in no tensor and there is no "
            f"default for {embedding_dim} dimensions. Give it as sequence_samples"
        )
    spec = _spec(window_samples, embedding_dim)
    network = _seeded_network(spec)
    report = _copy_tensors(path, tensors, network)
    return ModelBundle(
        network=network, spec=spec, normaliser=Normaliser("window"), facts={"imported": report}
    )


def _read(path: Path) -> Any:
    if path.suffix != ".safetensors":
        return load_pickle(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: expected safetensors, found {error}") from error


def _find_tensors(content: Any) -> dict[str, Tensor]:
    """The named tensors of a module, a state dict or a wrapped state dict; empty if it is none of them."""
    if isinstance(content, PickledModule):
        return _tensors_of_module(content)
    if not isinstance(content, Mapping):
        return {}
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), PickledModule | Mapping):
            return _find_tensors(content[wrapper])
    return {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def _tensors_of_module(module: PickledModule, prefix: str = "") -> dict[str, Tensor]:
    tensors = {f"{prefix}{name}": tensor for name, tensor in _items(module, "_parameters", Tensor)}
    for name, child in _items(module, "_modules", PickledModule):
        tensors |= _tensors_of_module(child, f"{prefix}{name}.")
    return tensors


def _items(module: PickledModule, attribute: str, kind: type) -> list[tuple[str, Any]]:
    items = vars(module).get(attribute)
    return [(k, v) for k, v in items.items() if isinstance(v, kind)] if isinstance(items, Mapping) else []


def _strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _embedding_dim(path: Path, tensors: dict[str, Tensor]) -> int:
    for name, axis in _DIMENSION_SOURCES:
        if name in tensors and tensors[name].ndim == 2 and 0 < tensors[name].shape[axis] <= MAX_DIMENSIONS:
            return tensors[name].shape[axis]
    raise CheckpointError(
        f"{path}: expected tensors of a recurrent autoencoder, such as {_DIMENSION_SOURCES[0][0]} (4E, E); "
        f"found {_summary(tensors)}"
    )


def _summary(tensors: dict[str, Tensor]) -> str:
    shapes = [f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(tensors.items())]
    return ", ".join(shapes[:6]) + (f" and {len(shapes) - 6} more" if len(shapes) > 6 else "") or "no tensors"


def _sequence_length(content: Any) -> int | None:
    """T, which a pickled module's decoder remembers as ``seq_len``."""
    if isinstance(content, Mapping):
        content = next((content[wrapper] for wrapper in WRAPPERS if wrapper in content), None)
    if not isinstance(content, PickledModule):
        return None
    decoder = dict(_items(content, "_modules", PickledModule)).get("decoder")
    length = None if decoder is None else vars(decoder).get("seq_len")
    return length if isinstance(length, int) else None


def _spec(window_samples: int, embedding_dim: int) -> ModelSpec:
    for spec in PROFILES.values():
        if (spec.family, spec.window_samples, spec.embedding_dim) == (
            "recurrent",
            window_samples,
            embedding_dim,
        ):
            return spec
    return ModelSpec(
        family="recurrent",
        profile=f"recurrent-{window_samples}x{embedding_dim}",
        window_samples=window_samples,
        stride_samples=max(1, window_samples // 2),
        sampling_rate_hz=SAMPLING_RATE_HZ,
        embedding_dim=embedding_dim,
        leads=LEADS,
    )


def _seeded_network(spec: ModelSpec) -> EcgAutoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # what a partial checkpoint leaves out is the same in every process
        return build_network(
            spec.family, window_samples=spec.window_samples, embedding_dim=spec.embedding_dim, architecture={}
        )


def _copy_tensors(path: Path, tensors: dict[str, Tensor], network: EcgAutoencoder) -> dict[str, Any]:
    wanted = network.state_dict()
    taken = {
        name: tensor
        for name, tensor in tensors.items()
        if name in wanted and tensor.shape == wanted[name].shape and tensor.is_floating_point()
    }
    coverage = sum(map(Tensor.numel, taken.values())) / sum(map(Tensor.numel, wanted.values()))
    missing = [f"{name} {tuple(wanted[name].shape)}" for name in wanted if name not in taken]
    if coverage < MIN_COVERAGE:
        raise CheckpointError(
            f"{path}: expected at least {MIN_COVERAGE:.0%} of the network's parameters, found "
            f"{coverage:.0%}. Missing or of another shape: {', '.join(missing)}. Found: {_summary(tensors)}"
        )
    broken = [name for name, tensor in taken.items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(f"{path}: expected finite numbers, found others in {', '.join(broken)}")
    if missing:
        logger.warning("%s: covers %.1f %% of the network, without %s", path, 100 * coverage, missing)
    network.load_state_dict({**wanted, **taken})
    return {
        "file": path.name,
        "coverage": coverage,
        "missing": missing,
        "ignored": sorted(set(tensors) - set(taken)),
    }
