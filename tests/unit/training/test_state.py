"""A training that is taken up from a saved state ends like one that was never put down, to the bit."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import pytest
import torch

from rmsai_ray.signals.normalise import Normaliser
from rmsai_ray.training.curve import draw_learning_curve
from rmsai_ray.training.loop import fit
from rmsai_ray.training.state import Epoch, FitConfig, TrainingState, rate_factor, read_state
from tests.unit.training.test_loop import small_network, spikes

CONFIG = FitConfig(epochs=4, batch_windows=12, learning_rate=1e-2, patience=9, seed=1)
WINDOW = Normaliser("window")


class KilledError(Exception):
    """What ends the first process."""


def test_going_on_from_any_epoch_changes_no_bit() -> None:
    states: list[bytes] = []
    whole = small_network()
    history = fit(
        whole,
        WINDOW,
        spikes(32, 1),
        spikes(6, 2),
        CONFIG,
        after_epoch=lambda state: states.append(state.to_bytes()),
    )
    for saved in states[1:]:  # the last one is complete: nothing is left to do
        network = small_network(seed=7)
        again = fit(network, WINDOW, spikes(32, 1), spikes(6, 2), CONFIG, saved=saved)
        assert [(e.epoch, e.train_mse, e.validation_mse) for e in again] == [
            (e.epoch, e.train_mse, e.validation_mse) for e in history
        ]
        for ours, theirs in zip(network.state_dict().values(), whole.state_dict().values(), strict=True):
            assert ours.equal(theirs)


def test_dropping_out_in_the_middle_of_an_epoch_repeats_it_from_its_beginning() -> None:
    saved: list[bytes] = []
    steps = 0

    class Dying(TrainingState):
        def step(self, x_BT: torch.Tensor, is_real_BT: torch.Tensor) -> torch.Tensor:
            nonlocal steps
            steps += 1
            if steps == 5:  # the second step of the second epoch
                raise KilledError
            return super().step(x_BT, is_real_BT)

    def keep(state: TrainingState) -> None:
        saved.append(state.to_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rmsai_ray.training.loop.TrainingState", Dying)
        with pytest.raises(KilledError):
            fit(small_network(), WINDOW, spikes(32, 1), spikes(6, 2), CONFIG, after_epoch=keep)
    assert len(saved) == 1
    resumed, whole = small_network(seed=7), small_network()
    fit(resumed, WINDOW, spikes(32, 1), spikes(6, 2), CONFIG, saved=saved[0])
    fit(whole, WINDOW, spikes(32, 1), spikes(6, 2), CONFIG)
    for ours, theirs in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True):
        assert ours.equal(theirs)


def test_frozen_layers_stay_to_the_bit() -> None:
    network = small_network()
    for name, weights in network.named_parameters():
        weights.requires_grad_(not name.startswith("encoder"))
    before = {name: weights.clone() for name, weights in network.state_dict().items()}
    fit(network, WINDOW, spikes(16, 1), spikes(4, 2), CONFIG)
    changed = {name for name, weights in network.state_dict().items() if not weights.equal(before[name])}
    assert changed
    assert not any(name.startswith("encoder") for name in changed)


def test_a_state_that_holds_code_is_refused() -> None:
    class Program:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (Path("/tmp/never"),)

    content = io.BytesIO()
    torch.save({"objective": Program()}, content)
    with pytest.raises(pickle.UnpicklingError):
        read_state(content.getvalue())


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    factors = [rate_factor(step, 1000) for step in range(1000)]
    assert factors[0] == pytest.approx(0.01)
    assert max(factors) == pytest.approx(factors[99], rel=0.01)
    assert factors[500] == pytest.approx(0.5, rel=0.01)
    assert factors[-1] < 1e-5


def test_the_learning_curve_is_a_picture() -> None:
    history = [Epoch(1, 0.9, 0.8, 1.0), Epoch(2, 0.5, 0.6, 1.0), Epoch(3, 0.4, 0.7, 1.0)]
    assert draw_learning_curve(history, "mine").startswith(b"\x89PNG")
