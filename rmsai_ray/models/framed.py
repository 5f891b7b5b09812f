"""The default network: an LSTM autoencoder that reads and writes frames and is told where the beats are.

Shapes: B windows, T samples of a window, S frames of F samples (T = S·F), H states of an LSTM in both
directions, G places per frame of the beats' grid, E dimensions of the embedding.

An embedding that has to say *when* every beat comes spends itself on that, and changes when the window
slides. Here the places of the beats go around it: they are found in the signal by a fixed rule, and both
LSTMs get them as an input. What is left for the embedding is what the beats look like. It is made from the
mean and the spread of the encoder's states over the frames, so that it hardly depends on where the window was
cut.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rmsai_ray.models.base import FAMILIES, EcgAutoencoder
from rmsai_ray.models.beat_rule import (
    APART_S,
    BLUR_S,
    ENERGY_S,
    GRID_SAMPLES,
    LEAST_ENERGY,
    LEAST_SHARE,
    SECTION_S,
    SLOPE_S,
    odd_samples,
)


@FAMILIES.register("framed")
class FramedAutoencoder(EcgAutoencoder):
    """Frames and beats → LSTM → embedding; embedding and beats → LSTM → frames. Both LSTMs run both ways."""

    def __init__(
        self,
        *,
        window_samples: int,
        embedding_dim: int,
        sampling_rate_hz: float,
        frame_samples: int,
        stem_dim: int,
        hidden_dim: int,
        head_dim: int,
    ) -> None:
        super().__init__(window_samples=window_samples, embedding_dim=embedding_dim)
        if window_samples % frame_samples or frame_samples % GRID_SAMPLES:
            raise ValueError(
                f"{window_samples} samples do not divide into frames of {frame_samples}, or these into "
                f"places of {GRID_SAMPLES}"
            )
        self.sampling_rate_hz = sampling_rate_hz
        self.num_frames, self.frame_samples = window_samples // frame_samples, frame_samples
        num_places = len(BLUR_S) * frame_samples // GRID_SAMPLES
        self.encoder_stem = nn.Sequential(nn.Linear(frame_samples + num_places, stem_dim), nn.Tanh())
        self.encoder_rnn = nn.LSTM(stem_dim, hidden_dim, batch_first=True, bidirectional=True)
        self.to_embedding = nn.Linear(4 * hidden_dim, embedding_dim)
        self.decoder_stem = nn.Sequential(nn.Linear(embedding_dim + num_places, stem_dim), nn.Tanh())
        self.decoder_rnn = nn.LSTM(stem_dim, hidden_dim, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(
            nn.Linear(2 * hidden_dim, head_dim), nn.GELU(), nn.Linear(head_dim, frame_samples)
        )

    def find_beats(self, x_BT: Tensor) -> Tensor:
        """1 at every beat's steepest place, else 0, (B, T): peaks of the slope's energy."""
        return find_beats(x_BT, self.sampling_rate_hz)

    def _encode(self, x_BT: Tensor, beats_BT: Tensor) -> Tensor:
        x_BSF = x_BT.reshape(len(x_BT), self.num_frames, -1)
        h_BSH, _ = self.encoder_rnn(self.encoder_stem(torch.cat([x_BSF, self._grid(beats_BT)], -1)))
        is_real_BS1 = (x_BSF != 0).any(-1, keepdim=True).to(h_BSH.dtype)  # padding is exactly 0
        num_real_B1 = is_real_BS1.sum(1).clamp(min=1)
        mean_BH = (h_BSH * is_real_BS1).sum(1) / num_real_B1
        variance_BH = ((h_BSH - mean_BH[:, None]).square() * is_real_BS1).sum(1) / num_real_B1
        z_BE: Tensor = self.to_embedding(torch.cat([mean_BH, (variance_BH + 1e-6).sqrt()], 1))
        return z_BE

    def _decode(self, z_BE: Tensor, beats_BT: Tensor) -> Tensor:
        grid_BSG = self._grid(beats_BT)
        inputs = torch.cat([z_BE[:, None].expand(-1, self.num_frames, -1), grid_BSG], -1)
        h_BSH, _ = self.decoder_rnn(self.decoder_stem(inputs))
        y_BT: Tensor = self.head(h_BSH).flatten(1)
        return y_BT

    def _grid(self, beats_BT: Tensor) -> Tensor:
        """The beats, blurred, on the grid, frame by frame: (B, S, G)."""
        blurred = [_triangles(beats_BT, self._odd(width_s)) for width_s in BLUR_S]
        grid_BKG = functional.avg_pool1d(torch.stack(blurred, 1), GRID_SAMPLES)
        return grid_BKG.reshape(len(beats_BT), len(BLUR_S), self.num_frames, -1).transpose(1, 2).flatten(2)

    def _odd(self, seconds: float) -> int:
        return odd_samples(seconds, self.sampling_rate_hz)


def find_beats(x_BT: Tensor, fs: float) -> Tensor:
    """1 where the slope's energy has a peak among its neighbours that is not small for its window, (B, T)."""
    reach = max(1, round(SLOPE_S / 2 * fs))
    slope_BT = functional.pad(x_BT[:, 2 * reach :] - x_BT[:, : -2 * reach], (reach, reach))
    energy_BT = _moving(_moving(slope_BT.square(), odd_samples(ENERGY_S, fs)), odd_samples(ENERGY_S / 2, fs))
    apart = odd_samples(2 * APART_S, fs)
    largest_BT = functional.max_pool1d(energy_BT, apart, 1, apart // 2)
    section = min(x_BT.shape[1], round(SECTION_S * fs))
    maxima_BN = functional.max_pool1d(energy_BT, section).sort(1).values
    middle = maxima_BN.shape[1] // 2
    level_B1 = (maxima_BN[:, max(0, middle - 1), None] + maxima_BN[:, middle, None]) / 2
    is_beat_BT = (energy_BT == largest_BT) & (energy_BT > LEAST_SHARE * level_B1) & (energy_BT > LEAST_ENERGY)
    return is_beat_BT.to(x_BT.dtype)


def _moving(x_BT: Tensor, width: int) -> Tensor:
    return functional.avg_pool1d(x_BT, width, 1, width // 2)


def _triangles(x_BT: Tensor, width: int) -> Tensor:
    """Each 1 becomes a triangle of height 1, (2 · width − 1) samples wide."""
    return _moving(_moving(x_BT, width), width) * width
