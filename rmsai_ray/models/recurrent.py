"""The recurrent autoencoder of the source documents, tensor by tensor, for whole batches.

Shapes: B windows, T samples of a window, E dimensions of the embedding, H = 2E.
"""

from __future__ import annotations

from torch import Tensor, nn

from rmsai_ray.models.base import FAMILIES, EcgAutoencoder


class Encoder(nn.Module):
    """LSTM(1 → 2E), LSTM(2E → E); the last hidden state is the embedding."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.rnn1 = nn.LSTM(1, 2 * embedding_dim, batch_first=True)
        self.rnn2 = nn.LSTM(2 * embedding_dim, embedding_dim, batch_first=True)

    def forward(self, x_BT: Tensor) -> Tensor:
        """Embeddings (B, E) of windows (B, T)."""
        h_BTH, _ = self.rnn1(x_BT.unsqueeze(-1))
        _, (last_1BE, _) = self.rnn2(h_BTH)
        z_BE: Tensor = last_1BE.squeeze(0)
        return z_BE


class Decoder(nn.Module):
    """The embedding, repeated T times, through LSTM(E → E), LSTM(E → 2E) and Linear(2E → 1)."""

    def __init__(self, window_samples: int, embedding_dim: int) -> None:
        super().__init__()
        self.window_samples = window_samples
        self.rnn1 = nn.LSTM(embedding_dim, embedding_dim, batch_first=True)
        self.rnn2 = nn.LSTM(embedding_dim, 2 * embedding_dim, batch_first=True)
        self.output_layer = nn.Linear(2 * embedding_dim, 1)

    def forward(self, z_BE: Tensor) -> Tensor:
        """Windows (B, T) of embeddings (B, E)."""
        h_BTE, _ = self.rnn1(z_BE.unsqueeze(1).expand(-1, self.window_samples, -1))
        h_BTH, _ = self.rnn2(h_BTE)
        y_BT: Tensor = self.output_layer(h_BTH).squeeze(-1)
        return y_BT


@FAMILIES.register("recurrent")
class RecurrentAutoencoder(EcgAutoencoder):
    """The network that upstream's checkpoints hold; its tensors have upstream's names and shapes."""

    def __init__(self, *, window_samples: int, embedding_dim: int) -> None:
        super().__init__(window_samples=window_samples, embedding_dim=embedding_dim)
        self.encoder = Encoder(embedding_dim)
        self.decoder = Decoder(window_samples, embedding_dim)

    def _encode(self, x_BT: Tensor, beats_BT: Tensor) -> Tensor:
        z_BE: Tensor = self.encoder(x_BT)
        return z_BE

    def _decode(self, z_BE: Tensor, beats_BT: Tensor) -> Tensor:
        y_BT: Tensor = self.decoder(z_BE)
        return y_BT
