"""A model without torch, and one with eight-bit weights."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rmsai_ray.archives.reader import read_archive
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.encoding.encoder import WindowEncoder
from rmsai_ray.errors import CheckpointError
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.checkpoint import PRETRAINED, load_model, save_checkpoint, untrained_model
from rmsai_ray.models.frozen import DESCRIPTION_NAME, WEIGHTS_NAME, load_frozen
from rmsai_ray.models.quantised import pack, quantise_model, unpack
from rmsai_ray.models.shelf import load_shelved_frozen, shelve_model
from rmsai_ray.storage import Store

PACKAGED = PRETRAINED / "framed-2400x64"

WITHOUT_TORCH = """
import sys
from pathlib import Path
import numpy as np
import rmsai_ray.models.shelf
from rmsai_ray.archives.reader import read_archive
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.encoding.encoder import WindowEncoder, limit_threads
from rmsai_ray.models.frozen import load_frozen
limit_threads(1)
encoder = WindowEncoder(load_frozen(Path(sys.argv[1])))
encoder.encode(np.zeros((2, 2400), np.float32), np.full(2, 2400, np.int32), ["ECG1", "ECG2"])
print("torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def packaged() -> ModelBundle:
    return load_model("framed-2400x64")


def test_encoding_imports_no_torch() -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, str(PACKAGED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr


def test_a_frozen_model_is_the_same_model(packaged: ModelBundle, tmp_path: Path) -> None:
    frozen = load_frozen(PACKAGED)
    assert frozen.model_id == packaged.model_id
    for name, array in packaged.tensors.items():
        np.testing.assert_array_equal(frozen.tensors[name], array)
    weights = frozen.network.state_dict()
    assert all(weights[name].equal(tensor) for name, tensor in packaged.network.state_dict().items())
    store = Store(str(tmp_path))
    shelve_model(store, packaged)
    assert load_shelved_frozen(store, packaged.model_id).model_id == packaged.model_id


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    one, other = (
        save_checkpoint(untrained_model("rmsai-140x128", seed=n), tmp_path / f"{n}") for n in (1, 2)
    )
    (one / WEIGHTS_NAME).write_bytes((other / WEIGHTS_NAME).read_bytes())
    with pytest.raises(CheckpointError, match="do not belong together"):
        load_frozen(one)


def test_another_models_folder_on_the_shelf_is_refused(packaged: ModelBundle, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for name in (WEIGHTS_NAME, DESCRIPTION_NAME):
        store.put(f"models/another/{name}", (PACKAGED / name).read_bytes())
    with pytest.raises(CheckpointError, match="expected the model another"):
        load_shelved_frozen(store, "another")


def test_eight_bits_are_a_smaller_other_model_with_nearly_the_same_scores(
    packaged: ModelBundle, tmp_path: Path
) -> None:
    small = quantise_model(packaged)
    assert small.model_id != packaged.model_id
    folder = save_checkpoint(small, tmp_path / "small")
    assert (folder / WEIGHTS_NAME).stat().st_size < 0.3 * (PACKAGED / WEIGHTS_NAME).stat().st_size
    leads = [
        lead
        for number in range(2)
        for event in read_archive(simulate_archive(number, 10, seed=0)[1], "a").events
        for lead in event.leads.values()
    ]
    signals_NT = np.stack([lead.samples[:2400] for lead in leads]).astype(np.float32)
    arguments = np.nan_to_num(signals_NT), np.full(len(leads), 2400, np.int32), ["ECG2"] * len(leads)
    expected, found = (WindowEncoder(model).encode(*arguments) for model in (packaged, load_frozen(folder)))
    for name in ("mse_N", "mae_N", "worst_mse_N"):
        correlation = np.corrcoef(getattr(found, name), getattr(expected, name))[0, 1]
        assert correlation >= 0.98, name
    assert np.corrcoef(found.embedding_NE.ravel(), expected.embedding_NE.ravel())[0, 1] >= 0.98


def test_eight_bits_come_back_to_the_bit(packaged: ModelBundle, tmp_path: Path) -> None:
    small = quantise_model(packaged)
    loaded = load_model(save_checkpoint(small, tmp_path / "small"))
    assert (loaded.model_id, loaded.precision) == (small.model_id, "int8")
    assert quantise_model(loaded).model_id == small.model_id


def test_weights_that_eight_bits_do_not_hold_are_not_saved_as_such(
    packaged: ModelBundle, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="quantise it again"):
        save_checkpoint(replace(packaged, precision="int8"), tmp_path / "model")


def test_rounding_is_at_most_half_a_step_and_rows_of_zeros_stay() -> None:
    weights = np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32)
    weights[3], weights[4] = 0, 1e-30
    rounded = unpack(packed := pack({"w": weights, "b": weights[0]}))
    steps = np.exp2(packed["w.log2_step"].astype(np.float64))[:, None]
    assert (np.abs(rounded["w"] - weights) <= steps / 2).all()
    assert (np.abs(packed["w"][5:]).max(1) >= 64).all()
    np.testing.assert_array_equal(rounded["b"], weights[0])
    assert not rounded["w"][3].any()
