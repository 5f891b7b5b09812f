"""The recurrent autoencoder as the source documents describe it: one window at a time, with hard reshapes.

A module of its own, so that it can be pickled whole: as its file lies here, and as a notebook's ``__main__``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    def __init__(self, seq_len: int, n_features: int, embedding_dim: int) -> None:
        super().__init__()
        self.seq_len, self.n_features = seq_len, n_features
        self.embedding_dim, self.hidden_dim = embedding_dim, 2 * embedding_dim
        self.rnn1 = nn.LSTM(n_features, self.hidden_dim, num_layers=1, batch_first=True)
        self.rnn2 = nn.LSTM(self.hidden_dim, embedding_dim, num_layers=1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.rnn1(x.reshape((1, self.seq_len, self.n_features)))
        _, (hidden, _) = self.rnn2(x)
        return hidden.reshape((self.n_features, self.embedding_dim))


class Decoder(nn.Module):
    def __init__(self, seq_len: int, input_dim: int, n_features: int) -> None:
        super().__init__()
        self.seq_len, self.input_dim, self.n_features = seq_len, input_dim, n_features
        self.hidden_dim = 2 * input_dim
        self.rnn1 = nn.LSTM(input_dim, input_dim, num_layers=1, batch_first=True)
        self.rnn2 = nn.LSTM(input_dim, self.hidden_dim, num_layers=1, batch_first=True)
        self.output_layer = nn.Linear(self.hidden_dim, n_features)

    def forward(self, x: Tensor) -> Tensor:
        x = x.repeat(self.seq_len, self.n_features)
        x, _ = self.rnn1(x.reshape((self.n_features, self.seq_len, self.input_dim)))
        x, _ = self.rnn2(x)
        return self.output_layer(x.reshape((self.seq_len, self.hidden_dim)))


class RecurrentAutoencoder(nn.Module):
    def __init__(self, seq_len: int, n_features: int, embedding_dim: int) -> None:
        super().__init__()
        self.encoder = Encoder(seq_len, n_features, embedding_dim)
        self.decoder = Decoder(seq_len, embedding_dim, n_features)
        self.device = torch.device("cpu")

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))
