"""Windows in lanes: what torch says, whatever stands beside a window, on any matrix library."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from rmsai_ray.encoding import encoder as encoder_module
from rmsai_ray.encoding.beats import fill_grid, find_beats
from rmsai_ray.encoding.encoder import Encoded, WindowEncoder
from rmsai_ray.encoding.errors import lane_errors
from rmsai_ray.encoding.kernels import compiled, gelu, tanh_rows
from rmsai_ray.encoding.lanes import (
    WIDTHS,
    Buffers,
    LaneEngine,
    Lanes,
    _around_the_middle,
    cheapest_batches,
    usable_lanes,
)
from rmsai_ray.encoding.torch_engine import TorchEngine, masked_errors
from rmsai_ray.errors import RmsaiError
from rmsai_ray.models import framed
from rmsai_ray.models.bundle import ModelBundle, ModelSpec
from rmsai_ray.models.checkpoint import load_model, untrained_like, untrained_model
from rmsai_ray.models.profiles import get_profile

FS = 200.0
SMALL = {"rmsai-140x128": 70, "framed-2400x64": 150}
"""Windows that need more than one batch, in little time."""


def windows(spec: ModelSpec, num_windows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Beats at many rates with noise; some windows are mostly padding, one is flat."""
    random, time_s = np.random.default_rng(seed), np.arange(spec.window_samples) / FS
    periods_s = random.uniform(0.4, 1.5, num_windows)
    signals = [np.exp(-0.5 * ((time_s % period - period / 2) / 0.02) ** 2) for period in periods_s]
    signals_NT = (np.stack(signals) + 0.02 * random.standard_normal((num_windows, len(time_s)))).astype("f4")
    num_samples_N = np.full(num_windows, len(time_s), np.int32)
    num_samples_N[::7] = random.integers(1, len(time_s), len(num_samples_N[::7]))
    signals_NT[3] = 0.5
    return signals_NT, num_samples_N, ["ECG2"] * num_windows


@pytest.fixture(scope="module", params=SMALL)
def bundle(request: pytest.FixtureRequest) -> ModelBundle:
    name: str = request.param
    if name == "framed-2400x64":
        return load_model(name)
    return untrained_like(replace(get_profile(name), window_samples=60))


def assert_same_bits(found: Encoded, expected: Encoded, rows: np.ndarray) -> None:
    for name in ("embedding_NE", "mse_N", "mae_N", "worst_mse_N"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name)[rows], err_msg=name)
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(found.beats_N[place], expected.beats_N[row])


def test_lanes_say_what_torch_says(bundle: ModelBundle) -> None:
    signals_NT, num_samples_N, leads = windows(bundle.spec, SMALL[bundle.spec.profile])
    x_NT, _, _ = bundle.normaliser.apply(signals_NT, num_samples_N, leads)
    encoder = WindowEncoder(bundle)
    assert isinstance(encoder._engine, LaneEngine)
    found = encoder._engine.measure(x_NT, num_samples_N)
    expected = TorchEngine(bundle.network, FS).measure(x_NT, num_samples_N)
    np.testing.assert_allclose(found.embedding_NE, expected.embedding_NE, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.errors_3N, expected.errors_3N, rtol=1e-5, atol=1e-5)
    for beats, expected_beats in zip(found.beats_N, expected.beats_N, strict=True):
        np.testing.assert_array_equal(beats, expected_beats)


def test_seed_profile_says_what_torch_says() -> None:
    bundle = untrained_like(replace(get_profile("seed-2400x64"), window_samples=300))
    signals_NT, num_samples_N, leads = windows(bundle.spec, 20)
    encoded = WindowEncoder(bundle).encode(signals_NT, num_samples_N, leads)
    x_NT, _, _ = bundle.normaliser.apply(signals_NT, num_samples_N, leads)
    expected = TorchEngine(bundle.network, FS).measure(x_NT, num_samples_N)
    np.testing.assert_allclose(encoded.embedding_NE, expected.embedding_NE, rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoded.mse_N, expected.errors_3N[0], rtol=1e-5)


def test_reconstructions_have_the_errors_of_the_lanes(bundle: ModelBundle) -> None:
    signals_NT, num_samples_N, leads = windows(bundle.spec, 20)
    encoder = WindowEncoder(bundle)
    encoded = encoder.encode(signals_NT, num_samples_N, leads)
    x_NT, _, _ = bundle.normaliser.apply(signals_NT, num_samples_N, leads)
    y_NT = encoder.reconstruct(encoded.embedding_NE, encoded.beats_N)
    is_real_NT = np.arange(x_NT.shape[1]) < num_samples_N[:, None]
    mse_N = (((y_NT - x_NT) ** 2) * is_real_NT).sum(1) / num_samples_N
    np.testing.assert_allclose(encoded.mse_N, mse_N, rtol=2e-5, atol=1e-6)


def test_a_row_is_the_same_to_the_bit_in_any_company(bundle: ModelBundle) -> None:
    signals_NT, num_samples_N, leads = windows(bundle.spec, num := SMALL[bundle.spec.profile])
    expected = (whole := WindowEncoder(bundle)).encode(signals_NT, num_samples_N, leads)
    shuffled = np.random.default_rng(1).permutation(num)
    narrow = WindowEncoder(bundle, batch_windows=1)
    for rows in (shuffled, np.arange(1), np.arange(num - 33, num)):
        for encoder in (whole, narrow):
            found = encoder.encode(signals_NT[rows], num_samples_N[rows], ["ECG2"] * len(rows))
            assert_same_bits(found, expected, rows)


SAME_IN_ANY_COMPANY = """
import numpy as np
from rmsai_ray.encoding.lanes import usable_lanes
weights, x_K1 = np.random.default_rng(7).standard_normal((448, 193)).astype("f4"), np.ones((193, 1), "f4")
lanes = usable_lanes([weights], 256)
rows = [np.matmul(weights, np.repeat(x_K1, each.width, 1))[:, each.first : each.last] for each in lanes]
assert all((row == rows[0][:, :1]).all() for row in rows)
print(*(each.num_usable for each in lanes))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names a kernel of OpenBLAS for x86")
def test_lanes_whose_bits_depend_on_their_place_are_left_out() -> None:
    """OpenBLAS's AVX2 kernels add in another order in the first and the last columns."""
    environment = os.environ | {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SAME_IN_ANY_COMPANY]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    usable = [int(number) for number in done.stdout.split()]
    assert usable
    assert all(number <= width for number, width in zip(usable, WIDTHS, strict=False))


def test_usable_lanes_lie_around_the_middle() -> None:
    is_same_L = np.ones(32, np.bool_)
    is_same_L[[0, 3, 30]] = False
    assert (_around_the_middle(is_same_L).first, _around_the_middle(is_same_L).last) == (4, 30)


def test_widths_are_bounded_by_what_was_asked_for_and_never_none() -> None:
    weights = np.zeros((64, 16), np.float32)
    assert [lanes.width for lanes in usable_lanes([weights], 1)] == [32]
    assert max(lanes.width for lanes in usable_lanes([weights], 128)) == 128


@pytest.mark.parametrize(
    ("num_windows", "widths"),
    [(0, []), (1, [32]), (33, [64]), (70, [64, 32]), (230, [256]), (256, [256]), (600, [256, 256, 64, 32])],
)
def test_batches_waste_few_lanes(num_windows: int, widths: list[int]) -> None:
    lanes = [Lanes(width, 0, width) for width in WIDTHS]
    assert [each.width for each in cheapest_batches(num_windows, lanes)] == widths


def test_batches_hold_every_window_where_lanes_are_left_out() -> None:
    lanes = [Lanes(width, 8, width - 8) for width in WIDTHS]
    for num_windows in range(1, 700):
        batches = cheapest_batches(num_windows, lanes)
        assert sum(each.num_usable for each in batches) >= num_windows
        assert sum(each.num_usable for each in batches[:-1]) < num_windows


def test_no_window_is_no_row(bundle: ModelBundle) -> None:
    encoded = WindowEncoder(bundle).encode(
        np.zeros((0, bundle.spec.window_samples), np.float32), np.zeros(0, np.int32), []
    )
    assert encoded.embedding_NE.shape == (0, bundle.spec.embedding_dim)
    assert encoded.beats_N == []


def test_lanes_that_differ_from_torch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class OtherNetwork(encoder_module.RecurrentLanes):
        def __init__(self, spec: ModelSpec, tensors: dict[str, np.ndarray]) -> None:
            changed = tensors["encoder.rnn2.bias_hh_l0"] + np.float32(1e-3)
            super().__init__(spec, {**tensors, "encoder.rnn2.bias_hh_l0": changed})

    monkeypatch.setitem(encoder_module.LANE_NETWORKS, "recurrent", OtherNetwork)
    with pytest.raises(RmsaiError, match="lanes and torch differ"):
        WindowEncoder(untrained_model("rmsai-140x128"))


def test_beats_are_those_of_the_network_to_the_sample() -> None:
    spec = get_profile("framed-2400x64")
    signals_NT, num_samples_N, _ = windows(spec, 60)
    signals_NT[np.arange(2400) >= num_samples_N[:, None]] = 0
    signals_NT[10:20] = np.random.default_rng(2).standard_normal((10, 2400)).cumsum(1)
    expected_NT = framed.find_beats(torch.from_numpy(signals_NT), FS).numpy() != 0
    assert expected_NT.sum() > 100
    np.testing.assert_array_equal(find_beats(signals_NT, FS), expected_NT)


def test_grid_is_that_of_the_network() -> None:
    network = untrained_model("framed-2400x64").network
    assert isinstance(network, framed.FramedAutoencoder)
    is_beat_LT = np.zeros((3, 2400), np.bool_)
    is_beat_LT[0, [0, 3, 17, 2399]] = is_beat_LT[1, 100::90] = True
    grid_SGL = np.empty((60, 20, 3), np.float32)
    fill_grid(is_beat_LT, FS, grid_SGL)
    expected_LSG = network._grid(torch.from_numpy(is_beat_LT.astype(np.float32))).numpy()
    np.testing.assert_allclose(grid_SGL, expected_LSG.transpose(1, 2, 0), atol=1e-6)


@pytest.mark.parametrize("num_samples", [2400, 8, 143])
def test_errors_are_those_of_torch(num_samples: int) -> None:
    random = np.random.default_rng(0)
    x_LT, y_LT = random.standard_normal((2, 9, num_samples)).astype(np.float32)
    real_L = random.integers(1, num_samples + 1, 9).astype(np.int32)
    real_L[0] = num_samples
    found_3L = lane_errors(np.ascontiguousarray(x_LT.T), np.ascontiguousarray(y_LT.T), real_L, FS)
    expected_3L = masked_errors(*map(torch.from_numpy, (x_LT, y_LT, real_L)), FS).numpy()
    np.testing.assert_allclose(found_3L, expected_3L, rtol=2e-6)


def test_a_function_whose_machine_code_cannot_be_kept_is_compiled_all_the_same() -> None:
    without_a_file: dict[str, Any] = {}
    exec("def add(x, y): return x + y", without_a_file)
    assert compiled(without_a_file["add"])(1, 2) == 3


def test_buffers_grow_and_are_used_again() -> None:
    buffers = Buffers()
    small, large = buffers.get("x", 2, 3), buffers.get("x", 4, 5)
    assert (small.shape, large.shape) == ((2, 3), (4, 5))
    assert np.shares_memory(buffers.get("x", 3, 2), large)
    assert not np.shares_memory(buffers.get("y", 3, 2), large)


def test_activations_are_exact_to_a_few_parts_in_ten_million() -> None:
    x_SKL = np.linspace(-12, 12, 4096, dtype=np.float32).reshape(2, 1, 2048)
    tanh_SKL, gelu_SKL = x_SKL.copy(), x_SKL.copy()
    tanh_rows(tanh_SKL, 0, np.zeros((1, 2048), np.float32))
    gelu(gelu_SKL, np.zeros(1, np.float32))
    np.testing.assert_allclose(tanh_SKL, np.tanh(x_SKL.astype(np.float64)), rtol=0, atol=4e-7)
    expected = functional.gelu(torch.from_numpy(x_SKL.astype(np.float64))).numpy()
    np.testing.assert_allclose(gelu_SKL, expected, rtol=5e-7, atol=2e-6)
