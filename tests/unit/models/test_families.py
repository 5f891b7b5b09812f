"""What every family of networks promises, and that a family can come from outside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rmsai_ray.errors import ConfigError
from rmsai_ray.models.base import EcgAutoencoder, build_network
from rmsai_ray.models.bundle import ModelBundle, ModelSpec
from rmsai_ray.models.checkpoint import load_model, save_checkpoint, untrained_model
from rmsai_ray.models.profiles import PROFILES
from rmsai_ray.plugins import load_plugins
from rmsai_ray.signals.leads import LEADS
from rmsai_ray.signals.normalise import Normaliser


@pytest.mark.parametrize("profile", ["framed-2400x64", "rmsai-140x128"])
def test_shapes_and_determinism(profile: str) -> None:
    spec, network = PROFILES[profile], untrained_model(profile).network
    x_BT = torch.randn(3, spec.window_samples)
    with torch.inference_mode():
        z_BE, y_BT = network(x_BT)
        assert (z_BE.shape, y_BT.shape) == ((3, spec.embedding_dim), x_BT.shape)
        assert z_BE.equal(network.encode(x_BT))
        beats_BT = network.find_beats(x_BT)
        assert y_BT.equal(network.decode(z_BE, beats_BT)), "nothing but embedding and beats is needed"
    assert not network.training


@pytest.mark.parametrize(("profile", "samples"), [("framed-2400x64", 2400), ("rmsai-140x128", 20)])
def test_no_row_depends_on_the_batch_to_the_last_bit(profile: str, samples: int) -> None:
    spec = PROFILES[profile]
    network = build_network(
        spec.family,
        window_samples=samples,
        embedding_dim=spec.embedding_dim,
        architecture=spec.architecture,
    )
    x_BT = torch.randn(40, samples)
    with torch.inference_mode():
        z_BE, y_BT = network(x_BT)
        for size in (1, 2, 3, 7, 15, 16, 17, 33):
            for rows in (slice(0, size), slice(40 - size, 40)):
                z_bE, y_bT = network(x_BT[rows])
                assert z_bE.equal(z_BE[rows]), rows
                assert y_bT.equal(y_BT[rows]), rows


def test_an_empty_batch_is_no_error() -> None:
    with torch.inference_mode():
        z_BE, y_BT = untrained_model("rmsai-140x128").network(torch.zeros(0, 140))
    assert (z_BE.shape, y_BT.shape) == ((0, 128), (0, 140))


@pytest.mark.parametrize(
    ("profile", "num_parameters"), [("seed-2400x64", 249_473), ("rmsai-140x128", 990_465)]
)
def test_recurrent_networks_have_the_documented_tensors(profile: str, num_parameters: int) -> None:
    embedding_dim = PROFILES[profile].embedding_dim
    tensors = untrained_model(profile).network.state_dict()
    assert sum(tensor.numel() for tensor in tensors.values()) == num_parameters
    widths = {
        "encoder.rnn1": (1, 2 * embedding_dim),
        "encoder.rnn2": (2 * embedding_dim, embedding_dim),
        "decoder.rnn1": (embedding_dim, embedding_dim),
        "decoder.rnn2": (embedding_dim, 2 * embedding_dim),
    }
    expected = {"decoder.output_layer.weight": (1, 2 * embedding_dim), "decoder.output_layer.bias": (1,)}
    for name, (inputs, states) in widths.items():
        expected |= {
            f"{name}.weight_ih_l0": (4 * states, inputs),
            f"{name}.weight_hh_l0": (4 * states, states),
        }
        expected |= {f"{name}.bias_ih_l0": (4 * states,), f"{name}.bias_hh_l0": (4 * states,)}
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == expected


def test_the_default_network_is_small() -> None:
    tensors = untrained_model("framed-2400x64").network.state_dict().values()
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) < 4 << 20


@pytest.mark.parametrize("change", [{"frame_samples": 41}, {"frame_samples": 50}])
def test_frames_that_do_not_fit_are_refused(change: dict[str, int]) -> None:
    spec = PROFILES["framed-2400x64"]
    with pytest.raises(ValueError, match="do not divide"):
        build_network(
            "framed", window_samples=2400, embedding_dim=64, architecture={**spec.architecture, **change}
        )


def test_an_unknown_family_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="framed, recurrent"):
        build_network("transformer", window_samples=8, embedding_dim=2, architecture={})


PLUGIN = """
from torch import nn
from rmsai_ray.models.base import FAMILIES, EcgAutoencoder

@FAMILIES.register("straight")
class Straight(EcgAutoencoder):
    def __init__(self, *, window_samples, embedding_dim, bias):
        super().__init__(window_samples=window_samples, embedding_dim=embedding_dim)
        self.down = nn.Linear(window_samples, embedding_dim, bias=bias)
        self.up = nn.Linear(embedding_dim, window_samples, bias=bias)

    def _encode(self, x_BT, beats_BT):
        return self.down(x_BT)

    def _decode(self, z_BE, beats_BT):
        return self.up(z_BE)
"""


def test_a_family_from_outside_is_saved_and_loaded_like_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "straight_family.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("RMSAI_PLUGINS", "straight_family")
    load_plugins.cache_clear()
    spec = ModelSpec(
        family="straight",
        profile="straight-30x4",
        window_samples=30,
        stride_samples=30,
        sampling_rate_hz=100.0,
        embedding_dim=4,
        leads=LEADS,
        architecture={"bias": False},
    )
    network: EcgAutoencoder = build_network(
        "straight", window_samples=30, embedding_dim=4, architecture=spec.architecture
    )
    bundle = ModelBundle(network=network, spec=spec, normaliser=Normaliser("window"))
    loaded = load_model(save_checkpoint(bundle, tmp_path / "model"))
    assert loaded.model_id == bundle.model_id
    assert replace(loaded.spec) == spec
    with torch.inference_mode():
        assert loaded.network(torch.ones(2, 30))[1].equal(network(torch.ones(2, 30))[1])
