"""What a model is beyond its network: contract with the data, normaliser, figures, identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt

from rmsai_ray.signals.normalise import Normaliser

if TYPE_CHECKING:
    from rmsai_ray.models.base import EcgAutoencoder  # torch takes seconds to import; a worker does without

FINGERPRINT_LENGTH = 12


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Which windows a model takes and what it makes of them."""

    family: str
    """Name in :data:`rmsai_ray.models.base.FAMILIES`."""
    profile: str
    window_samples: int
    stride_samples: int
    sampling_rate_hz: float
    embedding_dim: int
    leads: tuple[str, ...]
    """The leads that it was made for."""
    architecture: dict[str, Any] = field(default_factory=dict)
    """The family's own options."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self) | {"leads": list(self.leads)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelSpec:
        """The inverse of :meth:`to_json`; TypeError or KeyError where fields are missing or foreign."""
        return cls(**{**values, "leads": tuple(values["leads"])})


@dataclass(frozen=True, kw_only=True)
class ModelBundle:
    """A network with everything that is needed to use it and to trust it."""

    network: EcgAutoencoder
    """In eval mode, on the CPU."""
    spec: ModelSpec
    normaliser: Normaliser
    precision: Literal["float32", "int8"] = "float32"
    """How the weights are stored; int8 only of a model whose weights are such numbers."""
    trained: bool = True
    """False for a freshly initialised network: its numbers mean nothing."""
    thresholds: dict[str, Any] | None = None
    """``{"metric": "mse", "percentile": 95, "T_normal": {lead: error}, "num_windows": {lead: n}}``."""
    metrics: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    """For people and audits: training data hash, splits, licences, code version, or the import's report."""

    @cached_property
    def model_id(self) -> str:
        """``<profile>-<12 hex digits>``: changes with weights, architecture, windowing and normaliser."""
        return make_model_id(self.spec, self.normaliser, self.tensors)

    @property
    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """The network's weights by name, as they are now."""
        return {name: tensor.numpy(force=True) for name, tensor in self.network.state_dict().items()}


def make_model_id(spec: ModelSpec, normaliser: Normaliser, tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    """``<profile>-<fingerprint>``. Types are named as torch names them."""
    identity = spec.to_json() | {"normaliser": normaliser.to_json()}
    for name in ("profile", "leads"):  # names only; they change no number
        del identity[name]
    hasher = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for name, array in sorted(tensors.items()):
        hasher.update(f"{name} torch.{array.dtype} {array.shape}".encode())
        hasher.update(array.tobytes())
    return f"{spec.profile}-{hasher.hexdigest()[:FINGERPRINT_LENGTH]}"
