"""The default network: an LSTM autoencoder that reads and writes frames instead of single samples.

Shapes: B windows, T samples of a window, S frames of F samples (T = S·F), H states of an LSTM in both
directions, P segments of S/P frames, L dimensions of a segment's own code, E dimensions of the embedding.
The embedding is a code of the whole window (E − P·L: rate, waveform, baseline) and the codes of its segments
(where the beats are). A decoder that had only the former would have to count to find the place of a beat.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rmsai_ray.models.base import FAMILIES, EcgAutoencoder


@FAMILIES.register("framed")
class FramedAutoencoder(EcgAutoencoder):
    """Frames → LSTM → embedding → LSTM → frames; both LSTMs run in both directions."""

    def __init__(
        self,
        *,
        window_samples: int,
        embedding_dim: int,
        frame_samples: int,
        stem_dim: int,
        hidden_dim: int,
        head_dim: int,
        num_segments: int,
        segment_dim: int,
        num_positions: int,
    ) -> None:
        super().__init__(window_samples=window_samples, embedding_dim=embedding_dim)
        self.num_frames, self.num_segments = window_samples // frame_samples, num_segments
        self.global_dim, self.states_dim = embedding_dim - num_segments * segment_dim, 2 * hidden_dim
        _check_divisions(window_samples, frame_samples, num_segments, self.global_dim)
        frames_per_segment = self.num_frames // num_segments
        self.encoder_stem = nn.Sequential(nn.Linear(frame_samples, stem_dim), nn.Tanh())
        self.encoder_rnn = nn.LSTM(stem_dim, hidden_dim, batch_first=True, bidirectional=True)
        self.to_global = nn.Linear(2 * self.states_dim, self.global_dim)
        self.to_segment = nn.Linear(frames_per_segment * self.states_dim, segment_dim)
        inputs_dim = self.global_dim + 3 * segment_dim + num_positions
        self.decoder_stem = nn.Sequential(nn.Linear(inputs_dim, stem_dim), nn.Tanh())
        self.decoder_rnn = nn.LSTM(stem_dim, hidden_dim, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(
            nn.Linear(self.states_dim, head_dim), nn.GELU(), nn.Linear(head_dim, frame_samples)
        )
        self.position_SK: Tensor
        self.register_buffer("position_SK", _positions(self.num_frames, num_positions), persistent=False)

    def _encode(self, x_BT: Tensor) -> Tensor:
        x_BSF = x_BT.reshape(len(x_BT), self.num_frames, -1)
        h_BSH, (last_2BH, _) = self.encoder_rnn(self.encoder_stem(x_BSF))
        global_BE = self.to_global(torch.cat([last_2BH[0], last_2BH[1], h_BSH.mean(1)], 1))
        segments_BPL = self.to_segment(h_BSH.reshape(len(x_BT), self.num_segments, -1))
        return torch.cat([global_BE, segments_BPL.flatten(1)], 1)

    def _decode(self, z_BE: Tensor) -> Tensor:
        return self.render(self.decoder_states(z_BE))

    def decoder_states(self, z_BE: Tensor) -> Tensor:
        """The decoder's hidden states (B, S, H) for embeddings (B, E)."""
        global_B1E = z_BE[:, None, : self.global_dim]
        segments_BPL = z_BE[:, self.global_dim :].reshape(len(z_BE), self.num_segments, -1)
        neighbours_BPL = torch.cat([_shifted(segments_BPL, by) for by in (-1, 0, 1)], -1)
        inputs = (
            global_B1E.expand(-1, self.num_frames, -1),
            neighbours_BPL.repeat_interleave(self.num_frames // self.num_segments, 1),
            self.position_SK.expand(len(z_BE), -1, -1),
        )
        h_BSH: Tensor = self.decoder_rnn(self.decoder_stem(torch.cat(inputs, -1)))[0]
        return h_BSH

    def render(self, h_BSH: Tensor) -> Tensor:
        """Reconstructions (B, T) from the decoder's hidden states (B, S, H)."""
        y_BT: Tensor = self.head(h_BSH).flatten(1)
        return y_BT


def _shifted(segments_BPL: Tensor, by: int) -> Tensor:
    """Each segment's neighbour ``by`` places on; zeros beyond the ends."""
    num_segments = segments_BPL.shape[1]
    padded = nn.functional.pad(segments_BPL, (0, 0, 1, 1))
    return padded[:, 1 + by : 1 + by + num_segments]


def _positions(num_frames: int, num_positions: int) -> Tensor:
    """Sines and cosines of each frame's place in the window, (S, num_positions), from half a turn upwards."""
    angle_SK = (
        math.pi * torch.arange(num_frames)[:, None] / num_frames * torch.arange(1, num_positions // 2 + 1)
    )
    return torch.cat([angle_SK.sin(), angle_SK.cos()], 1)


def _check_divisions(window_samples: int, frame_samples: int, num_segments: int, global_dim: int) -> None:
    if window_samples % (frame_samples * num_segments) or global_dim < 1:
        raise ValueError(
            f"{window_samples} samples do not divide into {num_segments} segments of whole frames of "
            f"{frame_samples}, or the segments' codes leave {global_dim} dimensions for the window as a whole"
        )
