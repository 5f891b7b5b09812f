"""The models that a lake was made with lie in it, so that any worker and any later reader finds them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rmsai_ray.errors import CheckpointError
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.frozen import DESCRIPTION_NAME, WEIGHTS_NAME, FrozenModel, load_frozen
from rmsai_ray.storage import Store


def shelve_model(lake: Store, bundle: ModelBundle) -> None:
    """Writes a model's checkpoint to ``models/<model_id>/``, the description last, unless it is there."""
    from rmsai_ray.models.checkpoint import save_checkpoint  # torch takes seconds; a worker does without

    key = _folder(bundle.model_id)
    if lake.find(f"{key}/{DESCRIPTION_NAME}") is not None:
        return
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = save_checkpoint(bundle, Path(folder) / bundle.model_id)
        shelve_files(lake, key, checkpoint, last=DESCRIPTION_NAME)


def load_shelved_model(lake: Store, model_id: str) -> ModelBundle:
    """The model that made the lake's rows of ``model_id``.

    Raises:
        CheckpointError: what the lake holds is not that model.
    """
    from rmsai_ray.models.checkpoint import load_model  # torch takes seconds; a worker does without

    with _fetched(lake, model_id) as folder:
        bundle = load_model(folder)
    _check(model_id, bundle.model_id)
    return bundle


def load_shelved_frozen(lake: Store, model_id: str) -> FrozenModel:
    """The same without torch, for encoding.

    Raises:
        CheckpointError: what the lake holds is not that model.
    """
    with _fetched(lake, model_id) as folder:
        model = load_frozen(folder)
    _check(model_id, model.model_id)
    return model


def shelve_files(lake: Store, key: str, folder: Path, *, last: str) -> None:
    """Writes the files of a folder below a key, the one named ``last`` last, unless that is there."""
    if lake.find(f"{key}/{last}") is not None:
        return
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    for name in sorted(names, key=lambda name: name == last):
        lake.put(f"{key}/{name}", (folder / name).read_bytes())


def fetch_files(lake: Store, key: str, folder: Path) -> None:
    """Copies all files below a key into a folder."""
    for info in lake.list(key):
        path = folder / info.key.removeprefix(f"{key}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lake.get(info.key))


@contextmanager
def _fetched(lake: Store, model_id: str) -> Iterator[Path]:
    """The checkpoint's folder, for as long as it is read."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (WEIGHTS_NAME, DESCRIPTION_NAME):
            (Path(folder) / name).write_bytes(lake.get(f"{_folder(model_id)}/{name}"))
        yield Path(folder)


def _check(expected: str, found: str) -> None:
    if found != expected:
        raise CheckpointError(f"expected the model {expected}, found {found} in its place")


def _folder(model_id: str) -> str:
    return f"models/{model_id}"
