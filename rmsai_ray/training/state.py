"""Everything that changes while a network is trained, and its form on disk.

Shapes: B windows, T samples of a window.
"""

from __future__ import annotations

import copy
import io
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rmsai_ray.models.base import EcgAutoencoder
from rmsai_ray.training.objective import Objective
from rmsai_ray.training.team import Team

MAX_GRADIENT_NORM = 1.0
WARMUP_STEPS = 100
WEIGHT_DECAY = 1e-4


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How to train."""

    epochs: int
    batch_windows: int
    """Windows per step, of all workers together."""
    learning_rate: float
    patience: int
    """Epochs without a better validation error after which training ends."""
    seed: int
    augmentation: str = "pretrain"
    """A name in :data:`rmsai_ray.training.augment.PRESETS`."""
    fs: float = 200.0
    """Sampling rate of the windows in Hz."""


@dataclass(frozen=True)
class Epoch:
    """One line of the training's history; errors are normalised mean squared errors."""

    epoch: int
    train_mse: float
    validation_mse: float
    seconds: float
    steps: int = 0


def best_epoch(history: list[Epoch]) -> Epoch:
    """The epoch whose weights were kept."""
    return min(history, key=lambda epoch: epoch.validation_mse)


class TrainingState:
    """Network, optimiser, rate, history and the best weights so far.

    Nothing random is in it: each step draws from a generator of its own, seeded by the configuration's seed
    and the step's number.
    """

    def __init__(self, network: EcgAutoencoder, config: FitConfig, team: Team, *, num_steps: int) -> None:
        torch.manual_seed(config.seed)  # the objective's own layers
        self.network, self.config, self.history = network, config, list[Epoch]()
        self._objective = Objective(network).to(team.device)
        self._shared, self._team = team.share_gradients(self._objective), team
        self._trained = [weights for weights in self._objective.parameters() if weights.requires_grad]
        self._optimiser = torch.optim.AdamW(self._trained, lr=0.0, weight_decay=WEIGHT_DECAY)
        self._num_steps, self._steps_done = num_steps, 0
        self.best_weights = copy.deepcopy(network.state_dict())

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or nothing has become better for too long."""
        done = len(self.history)
        return done >= self.config.epochs or (
            done > 0 and done - best_epoch(self.history).epoch >= self.config.patience
        )

    def train_mode(self) -> None:
        """Dropout on, where there is any."""
        self._objective.train()

    def step(self, x_BT: Tensor, is_real_BT: Tensor) -> Tensor:
        """One step of the optimiser; gives the batch's mean squared error before it, still on the device."""
        device = self._team.device
        torch.manual_seed(_step_seed(self.config.seed, self._steps_done, self._team.rank))
        for group in self._optimiser.param_groups:
            group["lr"] = self.config.learning_rate * rate_factor(self._steps_done, self._num_steps)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            loss = self._shared(x_BT.to(device), is_real_BT.to(device))
        self._optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._trained, MAX_GRADIENT_NORM)
        self._optimiser.step()
        self._steps_done += 1
        error: Tensor = loss.detach()
        return error

    def add(self, epoch: Epoch) -> None:
        """Ends an epoch, keeping its weights where none before had a lower validation error."""
        if epoch.validation_mse < min((past.validation_mse for past in self.history), default=math.inf):
            self.best_weights = copy.deepcopy(self.network.state_dict())
        self.history.append(epoch)

    def to_bytes(self) -> bytes:
        """Tensors and plain values only, as ``torch.save`` writes them."""
        content = io.BytesIO()
        torch.save(
            {
                "objective": self._objective.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "steps_done": self._steps_done,
                "history": [asdict(epoch) for epoch in self.history],
                "best_weights": self.best_weights,
            },
            content,
        )
        return content.getvalue()

    def load(self, content: bytes) -> None:
        """Goes on where :meth:`to_bytes` was called, to the bit."""
        saved = read_state(content)
        self._objective.load_state_dict(saved["objective"])
        self._optimiser.load_state_dict(saved["optimiser"])
        self._steps_done, self.best_weights = saved["steps_done"], saved["best_weights"]
        self.history = read_history(saved)


def read_state(content: bytes) -> dict[str, Any]:
    """What :meth:`TrainingState.to_bytes` wrote; nothing in the file is run."""
    saved: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return saved


def read_history(saved: dict[str, Any]) -> list[Epoch]:
    """The epochs of a saved state."""
    return [Epoch(**epoch) for epoch in saved["history"]]


def rate_factor(step: int, num_steps: int) -> float:
    """Share of the learning rate: a linear warm-up, under a cosine from 1 to 0."""
    warmup = min(WARMUP_STEPS, max(1, num_steps // 10))
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / num_steps))


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0])
