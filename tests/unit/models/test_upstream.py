"""Upstream's checkpoints in all their forms, and files that only look like one."""

from __future__ import annotations

import importlib
import io
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rmsai_ray.errors import CheckpointError
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.checkpoint import load_model, save_checkpoint
from rmsai_ray.models.unpickling import load_pickle
from tests import original_network

T, E = 20, 16
CLASSES = ("RecurrentAutoencoder", "Encoder", "Decoder")


@pytest.fixture
def original() -> nn.Module:
    torch.manual_seed(1)
    return original_network.RecurrentAutoencoder(T, 1, E).eval()


def record_classes_as(monkeypatch: pytest.MonkeyPatch, module_name: str) -> None:
    """From here on pickles name the original's classes as members of another module."""
    for name in (module_name.partition(".")[0], module_name):
        module = sys.modules.get(name) or ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
    for name in CLASSES:
        cls = getattr(original_network, name)
        monkeypatch.setattr(module, name, cls, raising=False)
        monkeypatch.setattr(cls, "__module__", module_name)


def parallel(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return OrderedDict((f"module.{name}", tensor) for name, tensor in tensors.items())


def assert_same_as(original: nn.Module, bundle: ModelBundle, tolerance: float = 1e-5) -> None:
    """A whole batch of ours against one window at a time of the original."""
    x_BT = torch.randn(5, bundle.spec.window_samples, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        z_BE, y_BT = bundle.network(x_BT)
        for x_T, z_E, y_T in zip(x_BT, z_BE, y_BT, strict=True):
            torch.testing.assert_close(z_E, original.encoder(x_T)[0], atol=tolerance, rtol=0)
            torch.testing.assert_close(y_T, original(x_T)[:, 0], atol=tolerance, rtol=0)


@pytest.mark.parametrize("module_name", ["__main__", "rmsai_model", "rmsai_model.network"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_whole_module_from_a_notebook(
    original: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module_name: str, zipped: bool
) -> None:
    path = tmp_path / "model.pth"
    with monkeypatch.context() as elsewhere:
        record_classes_as(elsewhere, module_name)
        torch.save(original, path, _use_new_zipfile_serialization=zipped)
    assert f"{module_name}\nRecurrentAutoencoder".encode() in path.read_bytes()
    bundle = load_model(path)
    assert bundle.spec.window_samples == T  # remembered by the pickled decoder
    assert_same_as(original, bundle)


def test_legacy_file_with_the_sources_of_its_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older format also holds classes' source code, which is neither run nor compared nor patched."""
    source = Path(original_network.__file__).read_text()
    (tmp_path / "rmsai_model.py").write_text(source)
    with monkeypatch.context() as elsewhere:
        elsewhere.syspath_prepend(tmp_path)
        model = importlib.import_module("rmsai_model").RecurrentAutoencoder(9, 1, 8)
        torch.save(model, tmp_path / "model.pth", _use_new_zipfile_serialization=False)
        del sys.modules["rmsai_model"]
    assert b"def forward" in (tmp_path / "model.pth").read_bytes()
    monkeypatch.chdir(tmp_path)
    assert load_model("model.pth").spec.window_samples == 9
    assert not list(tmp_path.glob("*.patch"))


def test_parity_at_the_documented_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = original_network.RecurrentAutoencoder(140, 1, 128).eval()
    with monkeypatch.context() as elsewhere:
        record_classes_as(elsewhere, "__main__")
        torch.save({"model": original}, tmp_path / "model.pth")
    bundle = load_model(tmp_path / "model.pth")
    assert bundle.spec.profile == "rmsai-140x128"
    assert_same_as(original, bundle)


STATE_DICT_FORMS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda tensors: tensors,
    "state_dict": lambda tensors: {"state_dict": tensors, "epoch": 150},
    "model_state_dict": lambda tensors: {
        "model_state_dict": tensors,
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 1e-3, "params": [0, 1]}]},
        "loss": 24.5,
    },
    "model": lambda tensors: {"model": tensors},
    "distributed": parallel,
    "distributed, wrapped": lambda tensors: {"model": parallel(tensors)},
}


@pytest.mark.parametrize("form", STATE_DICT_FORMS)
def test_state_dicts(original: nn.Module, tmp_path: Path, form: str) -> None:
    torch.save(STATE_DICT_FORMS[form](original.state_dict()), tmp_path / "model.pth")
    bundle = load_model(tmp_path / "model.pth", sequence_samples=T)
    assert bundle.facts["imported"]["coverage"] == 1
    assert_same_as(original, bundle)


def test_ray_train_folder(original: nn.Module, tmp_path: Path) -> None:
    torch.save({"model": original.state_dict()}, tmp_path / "model.pt")
    (tmp_path / ".metadata.json").write_text("{}")
    assert_same_as(original, load_model(tmp_path, sequence_samples=T))


def test_folder_with_two_candidates_is_refused(original: nn.Module, tmp_path: Path) -> None:
    for name in ("best.pt", "last.pt"):
        torch.save(original.state_dict(), tmp_path / name)
    with pytest.raises(CheckpointError, match=r"exactly one.*best.pt, last.pt"):
        load_model(tmp_path)


def test_our_own_folder_after_an_import(original: nn.Module, tmp_path: Path) -> None:
    torch.save(original.state_dict(), tmp_path / "model.pth")
    imported = load_model(tmp_path / "model.pth", sequence_samples=T)
    folder = save_checkpoint(imported, tmp_path / "ours")
    assert load_model(folder).model_id == imported.model_id
    assert_same_as(original, load_model(folder))


def test_safetensors(original: nn.Module, tmp_path: Path) -> None:
    save_file(original.state_dict(), tmp_path / "model.safetensors")
    assert_same_as(original, load_model(tmp_path / "model.safetensors", sequence_samples=T))


def test_partial_checkpoint_gives_what_it_has_and_says_what_it_lacks(
    original: nn.Module, tmp_path: Path
) -> None:
    tensors = original.state_dict()
    tensors["decoder.output_layer.weight"] = torch.zeros(3, 2 * E)  # another shape
    del tensors["decoder.output_layer.bias"]
    tensors["classifier.weight"] = torch.zeros(5, E)
    torch.save(tensors, tmp_path / "model.pth")
    bundle = load_model(tmp_path / "model.pth", sequence_samples=T)
    report = bundle.facts["imported"]
    assert report["missing"] == [
        f"decoder.output_layer.weight (1, {2 * E})",
        "decoder.output_layer.bias (1,)",
    ]
    assert report["ignored"] == ["classifier.weight", "decoder.output_layer.weight"]
    assert 0.99 < report["coverage"] < 1
    x_T = torch.randn(T)
    with torch.inference_mode():
        torch.testing.assert_close(bundle.network.encode(x_T[None]), original.encoder(x_T), atol=1e-5, rtol=0)
    again = load_model(tmp_path / "model.pth", sequence_samples=T)
    assert again.model_id == bundle.model_id, "what is missing must not be filled at random"


def test_an_encoder_alone_is_refused(original: nn.Module, tmp_path: Path) -> None:
    encoder = {name: tensor for name, tensor in original.state_dict().items() if name.startswith("encoder")}
    torch.save(encoder, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"at least 90%.*found 4\d%.*decoder.rnn1.weight_ih_l0"):
        load_model(tmp_path / "model.pth", sequence_samples=T)


def test_numbers_that_are_none_are_refused(original: nn.Module, tmp_path: Path) -> None:
    tensors = original.state_dict()
    tensors["encoder.rnn1.bias_ih_l0"][3] = float("nan")
    torch.save(tensors, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"finite.*encoder.rnn1.bias_ih_l0"):
        load_model(tmp_path / "model.pth", sequence_samples=T)


def test_a_foreign_checkpoint_names_what_was_expected_and_found(tmp_path: Path) -> None:
    torch.save(nn.Linear(7, 3).state_dict(), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"expected.*encoder.rnn2.weight_hh_l0.*found bias \(3,\)"):
        load_model(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("dimensions", "given", "samples", "profile"),
    [
        (64, None, 2400, "seed-2400x64"),
        (128, None, 140, "rmsai-140x128"),
        (128, 280, 280, "recurrent-280x128"),
        (256, 200, 200, "recurrent-200x256"),
    ],
)
def test_dimensions_come_from_the_tensors(
    tmp_path: Path, dimensions: int, given: int | None, samples: int, profile: str
) -> None:
    torch.save(original_network.RecurrentAutoencoder(1, 1, dimensions).state_dict(), tmp_path / "model.pth")
    spec = load_model(tmp_path / "model.pth", sequence_samples=given).spec
    assert (spec.embedding_dim, spec.window_samples, spec.profile) == (dimensions, samples, profile)


def test_a_length_that_nothing_tells_has_to_be_given(original: nn.Module, tmp_path: Path) -> None:
    torch.save(original.state_dict(), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="sequence_samples"):
        load_model(tmp_path / "model.pth")


class Command:
    """Pickles to a call of something that no model needs."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def commands(mark: Path) -> dict[str, Command]:
    import os

    return {
        "system": Command(os.system, f"touch {mark}"),
        "eval": Command(eval, f"open({str(mark)!r}, 'w')"),
        "getattr": Command(getattr, mark, "touch"),
        "popen": Command(subprocess.Popen, ["touch", str(mark)]),
        "torch": Command(torch.load, str(mark)),
    }


@pytest.mark.parametrize("command", ["system", "eval", "getattr", "popen", "torch"])
@pytest.mark.parametrize("container", ["zip", "legacy", "plain pickle"])
def test_a_pickle_that_calls_something_is_refused_and_not_run(
    original: nn.Module, tmp_path: Path, command: str, container: str
) -> None:
    mark, path = tmp_path / "was-run", tmp_path / "model.pth"
    content = {"state_dict": original.state_dict(), "extra": commands(mark)[command]}
    if container == "plain pickle":
        path.write_bytes(pickle.dumps(content["extra"]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=container == "zip")
    with pytest.raises(CheckpointError, match="which no model needs"):
        load_model(path)
    assert not mark.exists()


def torch_zip(path: Path, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
    return path


def test_a_pickle_cannot_alter_the_classes_that_it_names(tmp_path: Path) -> None:
    set_attribute = b"N}U\x09__class__K\x01s\x86b."  # BUILD with a slot state
    path = torch_zip(tmp_path / "model.pth", b"\x80\x02c__main__\nEncoder\n" + set_attribute)
    with pytest.raises(CheckpointError, match="sets __class__"):
        load_pickle(path)
    name = b"ctorch._utils\n_rebuild_tensor_v2\nN}U\x0c__defaults__)s\x86b."
    with pytest.raises(CheckpointError, match="partial"):
        load_pickle(torch_zip(tmp_path / "other.pth", b"\x80\x02" + name))
    assert torch._utils._rebuild_tensor_v2.__defaults__


def test_a_program_is_refused(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="TorchScript"):
        load_model(tmp_path / "model.pt")


def test_sizes_are_checked_before_anything_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huge = torch.zeros(1).expand(4, 10**9)
    torch.save({"encoder.rnn2.weight_hh_l0": huge}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="expected tensors of a recurrent autoencoder"):
        load_model(tmp_path / "model.pth")
    monkeypatch.setattr("rmsai_ray.models.unpickling.MAX_BYTES", 100)
    with pytest.raises(CheckpointError, match="at most 100 bytes"):
        load_model(tmp_path / "model.pth")


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "zip of something else"])
def test_files_that_are_no_checkpoint(original: nn.Module, tmp_path: Path, damage: str) -> None:
    stream = io.BytesIO()
    torch.save(original.state_dict(), stream)
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("notes.txt", "none")
    content = {
        "cut": stream.getvalue()[:2000],
        "text": b"<html>404</html>",
        "empty": b"",
        "zip of something else": other.getvalue(),
    }[damage]
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="expected"):
        load_model(tmp_path / "model.pth")
