"""What training minimises.

Shapes: B windows, T samples of a window.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rmsai_ray.models.base import EcgAutoencoder
from rmsai_ray.models.framed import FramedAutoencoder

HIDDEN_SHARE = 0.7
"""Of the windows that have a part hidden from the encoder."""
LEAST_HIDDEN, MOST_HIDDEN = 1 / 6, 2 / 3
"""Of such a window."""


class Objective(nn.Module):
    """Mean squared error over real samples; framed networks learn it with a part of the window hidden.

    The encoder does not see that part, the decoder has to draw it all the same, from the embedding and the
    places of the beats. So an embedding cannot be a copy of this cut of the signal: it must say what holds
    for the patient's beats beyond it, and stays put when the window slides.
    """

    def __init__(self, network: EcgAutoencoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BT: Tensor, is_real_BT: Tensor) -> Tensor:
        """The batch's mean squared error, a scalar."""
        return window_mse(x_BT, self._reconstruct(x_BT), is_real_BT).mean()

    def _reconstruct(self, x_BT: Tensor) -> Tensor:
        if not isinstance(self.network, FramedAutoencoder):
            y_BT: Tensor = self.network(x_BT)[1]
            return y_BT
        beats_BT = self.network.find_beats(x_BT)
        draws_B3 = torch.rand(len(x_BT), 3, device=x_BT.device)
        is_seen_BT = seen(draws_B3, self.network.num_frames).repeat_interleave(self.network.frame_samples, 1)
        return self.network.decode(self.network.encode(x_BT * is_seen_BT, beats_BT * is_seen_BT), beats_BT)


def seen(draws_B3: Tensor, num_frames: int) -> Tensor:
    """Which frames of each window the encoder may see, (B, num_frames).

    Args:
        draws_B3: numbers in [0, 1) that decide whether, how much and where to hide.
        num_frames: of a window.
    """
    is_hidden_B1, share_B1, place_B1 = (draw_B[:, None] for draw_B in draws_B3.unbind(1))
    length_B1 = (LEAST_HIDDEN + share_B1 * (MOST_HIDDEN - LEAST_HIDDEN)) * num_frames
    start_B1 = place_B1 * (num_frames - length_B1)
    frames_S = torch.arange(num_frames, device=draws_B3.device)
    is_inside_BS = (frames_S >= start_B1) & (frames_S < start_B1 + length_B1)
    return ~(is_inside_BS & (is_hidden_B1 < HIDDEN_SHARE))


def window_mse(x_BT: Tensor, y_BT: Tensor, is_real_BT: Tensor) -> Tensor:
    """Mean squared error of each window over its real samples, (B,)."""
    return ((y_BT - x_BT).square() * is_real_BT).sum(1) / is_real_BT.sum(1).clamp(min=1)
