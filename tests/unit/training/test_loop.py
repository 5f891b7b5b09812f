"""The loop, what it minimises, and what it does to its input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rmsai_ray.errors import ConfigError
from rmsai_ray.models.base import EcgAutoencoder, build_network
from rmsai_ray.models.profiles import PROFILES
from rmsai_ray.signals.normalise import Normaliser
from rmsai_ray.training.augment import PRESETS, augment
from rmsai_ray.training.data import WindowSet
from rmsai_ray.training.loop import FitConfig, best_epoch, fit, window_errors
from rmsai_ray.training.objective import HIDDEN_SHARE, MOST_HIDDEN, Objective, seen, window_mse

T = 480
CONFIG = FitConfig(epochs=5, batch_windows=16, learning_rate=1e-2, patience=8, seed=1)
WINDOW = Normaliser("window")


def small_network(seed: int = 0) -> EcgAutoencoder:
    sizes = {"stem_dim": 16, "hidden_dim": 24, "head_dim": 16}
    architecture = {**PROFILES["framed-2400x64"].architecture, **sizes}
    torch.manual_seed(seed)
    return build_network("framed", window_samples=T, embedding_dim=24, architecture=architecture)


def spikes(num_windows: int, seed: int) -> WindowSet:
    """Regular narrow beats over a slow wave."""
    rng = np.random.default_rng(seed)
    places_NT = (np.arange(T) - rng.uniform(0, 150, (num_windows, 1))) % rng.uniform(
        140, 200, (num_windows, 1)
    )
    signals_NT = np.exp(-((places_NT / 4) ** 2)) + 0.3 * np.sin(places_NT / 25)
    return WindowSet(
        signals_NT=signals_NT.astype(np.float32),
        num_samples_N=np.full(num_windows, T, np.int32),
        leads_N=np.full(num_windows, "ECG2"),
        patients_N=np.full(num_windows, "PT0001"),
        conditions_N=np.full(num_windows, "Normal"),
        is_normal_N=np.ones(num_windows, np.bool_),
    )


def test_training_learns_and_keeps_the_best_weights() -> None:
    train, validation = spikes(96, 1), spikes(20, 2)
    network = small_network()
    before = float(window_errors(network, WINDOW, validation).mean())
    history = fit(network, WINDOW, train, validation, CONFIG)
    after = float(window_errors(network, WINDOW, validation).mean())
    assert before > 0.95
    assert after < 0.95 * before
    assert after == pytest.approx(best_epoch(history).validation_mse, rel=1e-6)
    assert not network.training


def test_training_repeats_itself() -> None:
    config = replace(CONFIG, epochs=2)
    networks = [small_network(), small_network()]
    first, second = (fit(network, WINDOW, spikes(32, 1), spikes(4, 2), config) for network in networks)
    assert [epoch.train_mse for epoch in first] == [epoch.train_mse for epoch in second]
    for ours, theirs in zip(*(network.state_dict().values() for network in networks), strict=True):
        assert ours.equal(theirs)


def test_training_ends_when_validation_stays_worse_and_returns_to_the_best() -> None:
    """Validation windows upside down and noisy, so that learning the training windows makes them worse."""
    train, validation = spikes(64, 1), spikes(20, 2)
    noise = np.random.default_rng(0).normal(0, 1, validation.signals_NT.shape).astype(np.float32)
    config = replace(CONFIG, epochs=40, patience=2, learning_rate=2e-2)
    network = small_network()
    history = fit(network, WINDOW, train, replace(validation, signals_NT=noise), config)
    best = best_epoch(history)
    assert len(history) == best.epoch + 2 < 40
    error = window_errors(network, WINDOW, replace(validation, signals_NT=noise)).mean()
    assert float(error) == pytest.approx(best.validation_mse, rel=1e-6)


def test_nothing_to_train_with_is_an_error() -> None:
    some = spikes(4, 1)
    none = some.take(np.zeros(4, np.bool_))
    with pytest.raises(ConfigError, match="train windows"):
        fit(small_network(), WINDOW, none, some, CONFIG)
    with pytest.raises(ConfigError, match="validation windows"):
        fit(small_network(), WINDOW, some, none, CONFIG)


def test_errors_are_of_real_samples_only() -> None:
    x_BT, y_BT = torch.zeros(2, 4), torch.tensor([[1.0, 1.0, 9.0, 9.0], [2.0, 0.0, 0.0, 0.0]])
    is_real_BT = torch.tensor([[True, True, False, False], [True, True, True, True]])
    assert window_mse(x_BT, y_BT, is_real_BT).tolist() == [1.0, 1.0]


def test_the_error_of_a_window_does_not_depend_on_its_neighbours() -> None:
    windows = spikes(30, 3)
    network = small_network()
    alone = window_errors(network, WINDOW, windows.take(np.array([7])))
    assert alone[0] == window_errors(network, WINDOW, windows)[7]


def test_a_part_of_most_windows_is_hidden_and_never_all() -> None:
    is_seen_BS = seen(torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)), 60)
    share_B = is_seen_BS.float().mean(1)
    assert (share_B < 1).float().mean() == pytest.approx(HIDDEN_SHARE, abs=0.04)
    assert share_B.min() >= 1 - MOST_HIDDEN - 1 / 60
    edges_B = is_seen_BS.diff(dim=1).sum(1)
    assert edges_B.max() <= 2, "one part, in one piece"


def test_other_families_train_on_the_error_alone() -> None:
    network = build_network("recurrent", window_samples=12, embedding_dim=4, architecture={})
    x_BT, is_real_BT = torch.randn(3, 12), torch.ones(3, 12, dtype=torch.bool)
    loss = Objective(network)(x_BT, is_real_BT)
    assert loss.equal(window_mse(x_BT, network(x_BT)[1], is_real_BT).mean())
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_augmented_windows_are_real_up_to_their_padding() -> None:
    windows = spikes(200, 4)
    seeds = [(1, number) for number in range(200)]
    x_BT, num_samples_B = augment(
        windows.signals_NT, windows.num_samples_N, PRESETS["pretrain"], seeds, fs=200.0
    )
    again, _ = augment(windows.signals_NT, windows.num_samples_N, PRESETS["pretrain"], seeds, fs=200.0)
    assert np.array_equal(x_BT, again)
    assert x_BT.shape == windows.signals_NT.shape
    assert np.isfinite(x_BT).all()
    assert num_samples_B.min() > T // 2
    assert (num_samples_B == T).any()
    assert all((row[n:] == 0).all() for row, n in zip(x_BT, num_samples_B, strict=True))
    is_flipped_B = x_BT.min(1) < -0.9
    assert 0.1 < is_flipped_B.mean() < 0.3
