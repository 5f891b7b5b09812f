"""The training loop of one process.

Shapes: N windows, B of them in one batch, T samples of a window.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rmsai_ray.errors import ConfigError
from rmsai_ray.models.base import EcgAutoencoder
from rmsai_ray.signals.normalise import Normaliser
from rmsai_ray.training.augment import augment
from rmsai_ray.training.data import WindowSet
from rmsai_ray.training.objective import Objective, window_mse

log = logging.getLogger(__name__)

MAX_GRADIENT_NORM = 1.0
WARMUP_STEPS = 100
WEIGHT_DECAY = 1e-4
EVALUATION_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How to train."""

    epochs: int
    batch_windows: int
    learning_rate: float
    patience: int
    """Epochs without a better validation error after which training ends."""
    seed: int


@dataclass(frozen=True)
class Epoch:
    """One line of the training's history; errors are normalised mean squared errors."""

    epoch: int
    train_mse: float
    validation_mse: float
    seconds: float


def fit(
    network: EcgAutoencoder,
    normaliser: Normaliser,
    train: WindowSet,
    validation: WindowSet,
    config: FitConfig,
) -> list[Epoch]:
    """Trains in place, and leaves the network with the weights that were best on validation, in eval mode.

    AdamW, warm-up and cosine, clipped gradients. The same seed, data and number of threads give the same
    weights.

    Raises:
        ConfigError: nothing to train or to validate with.
    """
    for name, windows in (("train", train), ("validation", validation)):
        if len(windows) == 0:
            raise ConfigError(f"{name} windows", 0, "there are none", "Add archives with Normal events.")
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    objective = Objective(network)
    stepper = _Stepper(
        objective, config, num_steps=config.epochs * math.ceil(len(train) / config.batch_windows)
    )
    history: list[Epoch] = []
    best_weights = copy.deepcopy(network.state_dict())
    for number in range(1, config.epochs + 1):
        started = time.perf_counter()
        objective.train()
        batches = _batches(train, normaliser, config.batch_windows, rng)
        train_mse = float(np.mean([stepper.step(x_BT, is_real_BT) for x_BT, is_real_BT in batches]))
        validation_mse = float(window_errors(network, normaliser, validation).mean())
        if validation_mse < min((epoch.validation_mse for epoch in history), default=math.inf):
            best_weights = copy.deepcopy(network.state_dict())
        history.append(Epoch(number, train_mse, validation_mse, time.perf_counter() - started))
        log.info("epoch %d: train %.4f validation %.4f (%.0f s)", *vars(history[-1]).values())
        if number - best_epoch(history).epoch >= config.patience:
            break
    network.load_state_dict(best_weights)
    network.eval()
    return history


def best_epoch(history: list[Epoch]) -> Epoch:
    """The epoch whose weights were kept."""
    return min(history, key=lambda epoch: epoch.validation_mse)


def window_errors(
    network: EcgAutoencoder, normaliser: Normaliser, windows: WindowSet
) -> npt.NDArray[np.float32]:
    """Normalised mean squared error of every window, (N,); leaves the network in eval mode."""
    network.eval()
    errors = [np.zeros(0, np.float32)]
    with torch.inference_mode():
        for start in range(0, len(windows), EVALUATION_BATCH):
            rows = windows.take(np.arange(start, min(start + EVALUATION_BATCH, len(windows))))
            x_BT, is_real_BT = _tensors(normaliser, rows.signals_NT, rows.num_samples_N, rows.leads_N)
            errors.append(window_mse(x_BT, network(x_BT)[1], is_real_BT).numpy())
    return np.concatenate(errors)


class _Stepper:
    """One optimiser step at a time, with its learning rate."""

    def __init__(self, objective: Objective, config: FitConfig, *, num_steps: int) -> None:
        self._objective = objective
        self._optimiser = torch.optim.AdamW(
            objective.parameters(), lr=config.learning_rate, weight_decay=WEIGHT_DECAY
        )
        warmup = min(WARMUP_STEPS, max(1, num_steps // 10))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser,
            lambda step: min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / num_steps)),
        )

    def step(self, x_BT: Tensor, is_real_BT: Tensor) -> float:
        """Returns the batch's mean squared error before the step."""
        loss, mse = self._objective(x_BT, is_real_BT)
        self._optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._objective.parameters(), MAX_GRADIENT_NORM)
        self._optimiser.step()
        self._schedule.step()
        return float(mse.detach())


def _batches(
    windows: WindowSet, normaliser: Normaliser, batch_windows: int, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every window once, in random order, augmented and normalised."""
    order = rng.permutation(len(windows))
    for start in range(0, len(order), batch_windows):
        rows = windows.take(order[start : start + batch_windows])
        signals_BT, num_samples_B = augment(rows.signals_NT, rows.num_samples_N, rng)
        yield _tensors(normaliser, signals_BT, num_samples_B, rows.leads_N)


def _tensors(
    normaliser: Normaliser,
    signals_BT: npt.NDArray[np.float32],
    num_samples_B: npt.NDArray[np.int32],
    leads_B: npt.NDArray[np.str_],
) -> tuple[Tensor, Tensor]:
    x_BT, _, _ = normaliser.apply(signals_BT, num_samples_B, leads_B.tolist())
    is_real_BT = np.arange(x_BT.shape[1]) < num_samples_B[:, None]
    return torch.from_numpy(x_BT), torch.from_numpy(is_real_BT)
