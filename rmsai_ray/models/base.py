"""The interface of every ECG autoencoder, and the registry of model families.

Shapes: B windows, T samples of a window, E dimensions of the embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from rmsai_ray.plugins import Registry

MIN_ROWS = 16
"""A few rows alone go through other kernels than rows among many; in company, none depends on the batch."""


class EcgAutoencoder(nn.Module):
    """Compresses windows of one lead to embeddings, and back. Subclasses fill in the two underscored halves.

    A row's result is the same to the last bit whatever other rows are in the batch; nothing is random in
    ``eval`` mode.
    """

    def __init__(self, *, window_samples: int, embedding_dim: int) -> None:
        super().__init__()
        self.window_samples, self.embedding_dim = window_samples, embedding_dim

    def forward(self, x_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, E) and reconstructions (B, T) of normalised float32 windows (B, T)."""
        beats_BT = self.find_beats(x_BT)
        z_BE = self.encode(x_BT, beats_BT)
        return z_BE, self.decode(z_BE, beats_BT)

    def find_beats(self, x_BT: Tensor) -> Tensor:
        """1 at the beats that the family wants to be told of, else 0, (B, T); (B, 0) if it wants none."""
        return x_BT.new_zeros(len(x_BT), 0)

    def encode(self, x_BT: Tensor, beats_BT: Tensor | None = None) -> Tensor:
        """Embeddings (B, E) of normalised float32 windows (B, T), whose beats are looked for if not given."""
        return _in_company(self._encode, x_BT, self.find_beats(x_BT) if beats_BT is None else beats_BT)

    def decode(self, z_BE: Tensor, beats_BT: Tensor) -> Tensor:
        """Reconstructions (B, T), in normalised units, of embeddings (B, E) and the places of the beats."""
        return _in_company(self._decode, z_BE, beats_BT)

    def _encode(self, x_BT: Tensor, beats_BT: Tensor) -> Tensor:
        raise NotImplementedError

    def _decode(self, z_BE: Tensor, beats_BT: Tensor) -> Tensor:
        raise NotImplementedError


def _in_company(half: Callable[[Tensor, Tensor], Tensor], rows: Tensor, beats_BT: Tensor) -> Tensor:
    if len(rows) >= MIN_ROWS:
        return half(rows, beats_BT)
    company = MIN_ROWS - len(rows)
    padded = (functional.pad(tensor, (0, 0, 0, company)) for tensor in (rows, beats_BT))
    return half(*padded)[: len(rows)]


FAMILIES: Registry[Callable[..., EcgAutoencoder]] = Registry("model family")
"""Constructors by family, called with ``window_samples``, ``embedding_dim`` and the architecture's keys."""


def build_network(
    family: str, *, window_samples: int, embedding_dim: int, architecture: dict[str, Any]
) -> EcgAutoencoder:
    """A network of a registered family, freshly initialised, in eval mode.

    Raises:
        ConfigError: the family is not registered.
    """
    from rmsai_ray.models import framed, recurrent  # noqa: F401 - importing a family registers it

    make = FAMILIES.get(family)
    return make(window_samples=window_samples, embedding_dim=embedding_dim, **architecture).eval()
