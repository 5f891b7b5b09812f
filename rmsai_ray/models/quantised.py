"""Weights as eight-bit integers: a quarter of the size, and another model, with an id of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from rmsai_ray.models.bundle import ModelBundle

Tensors = dict[str, npt.NDArray[Any]]

STEPS_SUFFIX = ".log2_step"
LARGEST = 127


def quantise_model(bundle: ModelBundle) -> ModelBundle:
    """A copy of a model whose weights are multiples of a step per row, small enough for eight bits.

    Only weights are rounded. Activations stay float32: their range would have to be taken from a batch, and a
    row's result must not depend on its batch. Thresholds and figures are the original's; calibrate anew where
    they matter.
    """
    import torch  # takes seconds to import; reading a model does without

    from rmsai_ray.models.base import build_network

    spec = bundle.spec
    network = build_network(
        spec.family,
        window_samples=spec.window_samples,
        embedding_dim=spec.embedding_dim,
        architecture=spec.architecture,
    )
    rounded = unpack(pack(bundle.tensors))
    network.load_state_dict({name: torch.tensor(array) for name, array in rounded.items()})
    return replace(bundle, network=network, precision="int8")


def pack(tensors: Mapping[str, npt.NDArray[Any]]) -> Tensors:
    """Matrices as int8 with the binary logarithm of each row's step (int8); vectors as they are.

    Steps are powers of two, so that a product with one is exact: packing what was unpacked changes nothing.
    """
    packed: Tensors = {}
    for name, array in tensors.items():
        if array.ndim < 2 or array.dtype != np.float32:
            packed[name] = array
            continue
        largest_R = np.abs(array).reshape(len(array), -1).max(1)
        with np.errstate(divide="ignore"):
            log2_step_R = np.clip(np.ceil(np.log2(largest_R.astype(np.float64) / LARGEST)), -126, 126)
        steps = np.exp2(log2_step_R).reshape(-1, *[1] * (array.ndim - 1))
        packed[name] = np.rint(array / steps).astype(np.int8)
        packed[name + STEPS_SUFFIX] = log2_step_R.astype(np.int8)
    return packed


def unpack(packed: Mapping[str, npt.NDArray[Any]]) -> Tensors:
    """The float32 tensors of packed ones; tensors that were never packed, as they are."""
    tensors: Tensors = {}
    for name, array in packed.items():
        if name.endswith(STEPS_SUFFIX):
            continue
        steps = packed.get(name + STEPS_SUFFIX)
        if steps is not None:
            factors = np.exp2(steps.astype(np.float32)).reshape(-1, *[1] * (array.ndim - 1))
            array = array.astype(np.float32) * factors.astype(np.float32)
        tensors[name] = array
    return tensors
