"""What training minimises.

Shapes: B windows, T samples of a window, S frames of a window, G places on the envelope's grid (T / 4).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rmsai_ray.models.base import EcgAutoencoder
from rmsai_ray.models.framed import FramedAutoencoder

GRID_SAMPLES = 4
"""Samples per place of the envelope's grid: 20 ms at 200 Hz."""
ENVELOPE_WIDTHS = (10.0, 5.0, 2.5, 1.0)
"""Standard deviations of the Gaussians that blur the envelope, in places of the grid: 200 to 20 ms."""
ENVELOPE_WEIGHT = 0.5


class Objective(nn.Module):
    """Mean squared error over real samples; framed networks also learn where the steep parts are.

    To a network that does not know where the beats are, a narrow QRS complex in the wrong place costs more
    than none, so plain training stays for long at smooth reconstructions without beats. The decoder's states
    are therefore also asked, through a linear layer that is thrown away, for the envelope of the signal's
    slope at four degrees of blur: the widest is easy to learn, and leads to the narrower ones and to the
    signal itself.
    """

    def __init__(self, network: EcgAutoencoder) -> None:
        super().__init__()
        self.network = network
        self.envelope_head: nn.Linear | None = None
        if isinstance(network, FramedAutoencoder):
            places_per_frame = network.window_samples // GRID_SAMPLES // network.num_frames
            self.envelope_head = nn.Linear(network.states_dim, len(ENVELOPE_WIDTHS) * places_per_frame)

    def forward(self, x_BT: Tensor, is_real_BT: Tensor) -> tuple[Tensor, Tensor]:
        """(what to minimise, the mean squared error in it), both scalars."""
        if not isinstance(self.network, FramedAutoencoder) or self.envelope_head is None:
            mse = window_mse(x_BT, self.network(x_BT)[1], is_real_BT).mean()
            return mse, mse
        h_BSH = self.network.decoder_states(self.network.encode(x_BT))
        mse = window_mse(x_BT, self.network.render(h_BSH), is_real_BT).mean()
        wanted_BSW = envelopes(x_BT, is_real_BT, self.network.num_frames)
        return mse + ENVELOPE_WEIGHT * functional.mse_loss(self.envelope_head(h_BSH), wanted_BSW), mse


def window_mse(x_BT: Tensor, y_BT: Tensor, is_real_BT: Tensor) -> Tensor:
    """Mean squared error of each window over its real samples, (B,)."""
    return ((y_BT - x_BT).square() * is_real_BT).sum(1) / is_real_BT.sum(1).clamp(min=1)


def envelopes(x_BT: Tensor, is_real_BT: Tensor, num_frames: int) -> Tensor:
    """The signal's absolute slope, blurred to each of the widths, with mean 0 and variance 1 per window.

    Returns:
        (B, S, widths · places per frame)
    """
    slope_BT = functional.pad(x_BT[:, 4:] - x_BT[:, :-4], (2, 2)) * is_real_BT
    sharp_B1G = functional.avg_pool1d(slope_BT.abs().unsqueeze(1), GRID_SAMPLES)
    blurred = [functional.conv1d(sharp_B1G, kernel, padding="same") for kernel in _kernels(x_BT)]
    envelope_BWG = torch.cat(blurred, 1)
    envelope_BWG = envelope_BWG - envelope_BWG.mean(-1, keepdim=True)
    envelope_BWG = envelope_BWG / (envelope_BWG.std(-1, keepdim=True) + 1e-3)
    return envelope_BWG.reshape(*envelope_BWG.shape[:2], num_frames, -1).transpose(1, 2).flatten(2)


def _kernels(like: Tensor) -> list[Tensor]:
    """Gaussians of sum 1, each (1, 1, length), cut at three standard deviations."""
    kernels = []
    for width in ENVELOPE_WIDTHS:
        reach = int(3 * width) + 1
        places = torch.arange(-reach, reach + 1, device=like.device, dtype=like.dtype)
        kernels.append(torch.softmax(-0.5 * (places / width).square(), 0)[None, None])
    return kernels
