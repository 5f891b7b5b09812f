"""The training loop, the same for one process and for each worker of a team.

Shapes: N windows, B of them in one batch, T samples of a window.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rmsai_ray.errors import ConfigError, RmsaiError
from rmsai_ray.models.base import EcgAutoencoder
from rmsai_ray.signals.normalise import Normaliser
from rmsai_ray.training.augment import augment, get_preset
from rmsai_ray.training.data import WindowSet
from rmsai_ray.training.objective import window_mse
from rmsai_ray.training.state import Epoch, FitConfig, TrainingState, best_epoch
from rmsai_ray.training.team import Team

__all__ = ["Epoch", "FitConfig", "best_epoch", "fit", "log_epoch", "window_errors"]

log = logging.getLogger(__name__)

EVALUATION_BATCH = 256
_ORDER = 1
"""Tells the seed of an epoch's order from those of its windows."""

Batch = tuple[Tensor, Tensor]


def log_epoch(epoch: Epoch) -> None:
    """One line for people."""
    log.info(
        "epoch %d: train %.4f validation %.4f (%.0f s, %.1f steps/s)",
        epoch.epoch,
        epoch.train_mse,
        epoch.validation_mse,
        epoch.seconds,
        epoch.steps / max(epoch.seconds, 1e-9),
    )


def fit(
    network: EcgAutoencoder,
    normaliser: Normaliser,
    train: WindowSet,
    validation: WindowSet,
    config: FitConfig,
    *,
    device: str = "cpu",
    saved: bytes | None = None,
    after_epoch: Callable[[TrainingState], None] = lambda state: log_epoch(state.history[-1]),
) -> list[Epoch]:
    """Trains in place, and leaves the network with the weights that were best on validation, in eval mode.

    AdamW, warm-up and cosine, clipped gradients, bfloat16 where a GPU multiplies. In a process group of
    torch.distributed, every member calls this with its share of the windows: member r of W has the windows
    r, r + W, r + 2W … of both sets. The same seed, data, number of members and of threads give the same
    weights, whether in one go or from a saved state.

    Args:
        network: parameters with ``requires_grad`` off stay as they are.
        normaliser: the model's own.
        train: this member's windows to learn from.
        validation: this member's windows to choose the best epoch by.
        config: how to train; the same for every member.
        device: where to compute.
        saved: :meth:`TrainingState.to_bytes` of an earlier epoch's end, to go on from.
        after_epoch: called when an epoch is complete.

    Raises:
        ConfigError: nothing to train or to validate with.
        RmsaiError: the error is no number any more.
    """
    team = Team.current(torch.device(device))
    steps_per_epoch = _steps_per_epoch(train, validation, config, team)
    state = TrainingState(network.to(device), config, team, num_steps=config.epochs * steps_per_epoch)
    if saved is not None:
        state.load(saved)
    while not state.is_over:
        state.add(_run_epoch(state, normaliser, train, validation, team, steps_per_epoch))
        after_epoch(state)
    network.load_state_dict(state.best_weights)
    network.to("cpu").eval()
    return state.history


def window_errors(
    network: EcgAutoencoder, normaliser: Normaliser, windows: WindowSet
) -> npt.NDArray[np.float32]:
    """Normalised mean squared error of every window, (N,); leaves the network in eval mode."""
    network.eval()
    device = next(network.parameters()).device
    errors = [np.zeros(0, np.float32)]
    with torch.inference_mode():
        for start in range(0, len(windows), EVALUATION_BATCH):
            rows = windows.take(np.arange(start, min(start + EVALUATION_BATCH, len(windows))))
            x_BT, is_real_BT = (
                tensor.to(device)
                for tensor in _tensors(normaliser, rows.signals_NT, rows.num_samples_N, rows.leads_N)
            )
            errors.append(window_mse(x_BT, network(x_BT)[1], is_real_BT).cpu().numpy())
    return np.concatenate(errors)


def _steps_per_epoch(train: WindowSet, validation: WindowSet, config: FitConfig, team: Team) -> int:
    num_train, num_validation = (int(count) for count in team.total(len(train), len(validation)))
    for name, count in (("train", num_train), ("validation", num_validation)):
        if count == 0:
            raise ConfigError(f"{name} windows", 0, "there are none", "Add archives with Normal events.")
    if num_train < team.size:
        raise ConfigError("workers", team.size, f"there are only {num_train} windows to train", "Use fewer.")
    largest_share = math.ceil(num_train / team.size)
    return math.ceil(largest_share / _batch_share(config, team))


def _batch_share(config: FitConfig, team: Team) -> int:
    return math.ceil(config.batch_windows / team.size)


def _run_epoch(
    state: TrainingState,
    normaliser: Normaliser,
    train: WindowSet,
    validation: WindowSet,
    team: Team,
    num_steps: int,
) -> Epoch:
    started, number = time.perf_counter(), len(state.history) + 1
    state.train_mode()
    batches = _batches(train, normaliser, state.config, team, number, num_steps)
    if team.device.type == "cuda":  # on a CPU the thread would only take time from the network
        batches = _one_ahead(batches)
    step_mses = [state.step(x_BT, is_real_BT) for x_BT, is_real_BT in batches]
    own_mse = float(torch.stack(step_mses).double().mean())
    errors_N = window_errors(state.network, normaliser, validation).astype(np.float64)
    train_sum, error_sum, num_errors = team.total(own_mse, float(errors_N.sum()), len(errors_N))
    if not math.isfinite(train_sum + error_sum):
        raise RmsaiError(f"epoch {number}: the error is no number any more. Try a lower learning rate")
    seconds = time.perf_counter() - started
    return Epoch(number, train_sum / team.size, error_sum / num_errors, seconds, num_steps)


def _batches(
    windows: WindowSet, normaliser: Normaliser, config: FitConfig, team: Team, epoch: int, num_steps: int
) -> Iterator[Batch]:
    """Every window of this member once, in random order, augmented and normalised.

    A member with one window less than others sees its first one again, so that all make as many steps.
    """
    share = _batch_share(config, team)
    order_N = np.random.default_rng((config.seed, epoch, team.rank, _ORDER)).permutation(len(windows))
    order_N = np.resize(order_N, max(len(windows), (num_steps - 1) * share + 1))
    modules = get_preset(config.augmentation)
    for start in range(0, len(order_N), share):
        rows_B = order_N[start : start + share]
        rows = windows.take(rows_B)
        numbers_B = (rows_B * team.size + team.rank).tolist()  # in the whole set
        seeds_B = [(config.seed, epoch, number) for number in numbers_B]
        signals_BT, num_samples_B = augment(
            rows.signals_NT, rows.num_samples_N, modules, seeds_B, fs=config.fs
        )
        yield _tensors(normaliser, signals_BT, num_samples_B, rows.leads_N)


def _one_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, each made by a thread while the one before it is used."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        pending = thread.submit(next, batches, None)
        while (batch := pending.result()) is not None:
            pending = thread.submit(next, batches, None)
            yield batch


def _tensors(
    normaliser: Normaliser,
    signals_BT: npt.NDArray[np.float32],
    num_samples_B: npt.NDArray[np.int32],
    leads_B: npt.NDArray[np.str_],
) -> Batch:
    x_BT, _, _ = normaliser.apply(signals_BT, num_samples_B, leads_B.tolist())
    is_real_BT = np.arange(x_BT.shape[1]) < num_samples_B[:, None]
    return torch.from_numpy(x_BT), torch.from_numpy(is_real_BT)
