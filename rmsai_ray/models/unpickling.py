"""Reading torch's pickles without running anything that they name."""

from __future__ import annotations

import collections
import functools
import io
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._utils

from rmsai_ray.errors import CheckpointError

MAX_BYTES = 1 << 30

_MODULES_OF_UPSTREAM = ("__main__", "rmsai_model")
"""A notebook's classes are recorded as ``__main__``."""
_CLASSES_OF_UPSTREAM = ("RecurrentAutoencoder", "Encoder", "Decoder")

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": torch._utils._rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
    "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
}
_TYPES: dict[str, Any] = {
    "collections.OrderedDict": collections.OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "torch.device": torch.device,
    "torch.Size": torch.Size,
}
_BROKEN_FILE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)
"""What a damaged or hostile pickle makes the unpickler or torch raise."""


class _Frozen(type):
    """A pickle can set attributes on what it names; not on this."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise pickle.UnpicklingError(f"the pickle sets {name} on {cls.__name__}")


class PickledModule(metaclass=_Frozen):
    """Stands in for every module class in a pickle: holds the pickled attributes, and has no behaviour."""

    dump_patches = False  # torch asks, where a file in the older format also holds the class's source


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        name = f"{module_name}.{global_name}"
        if name in _FUNCTIONS:
            return functools.partial(_FUNCTIONS[name])  # a new object, so that the pickle cannot alter ours
        if name in _TYPES:
            return _TYPES[name]
        if _is_module_class(module_name, global_name):
            return PickledModule
        raise pickle.UnpicklingError(f"it names {name}, which no model needs")


def _is_module_class(module_name: str, global_name: str) -> bool:
    if module_name.startswith("torch.nn.modules."):
        return True
    return module_name.split(".")[0] in _MODULES_OF_UPSTREAM and global_name in _CLASSES_OF_UPSTREAM


class _PickleModule:
    """What torch.load wants of a pickle module; both of torch's formats go through it entirely."""

    Unpickler = _Unpickler

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        return _Unpickler(file, **options).load()


def load_pickle(path: Path) -> Any:
    """What a torch file holds, its module objects as :class:`PickledModule`.

    Raises:
        CheckpointError: the file is too large, not torch's, damaged, or names anything beyond tensors,
            containers and the known model classes. Nothing of it has been run then.
    """
    if path.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"{path}: expected at most {MAX_BYTES} bytes, found {path.stat().st_size}")
    content = path.read_bytes()
    _check_zip(path, content)
    try:
        with warnings.catch_warnings(action="ignore"):  # about the sources of classes, which we do not use
            return torch.load(
                io.BytesIO(content), map_location="cpu", pickle_module=_PickleModule, weights_only=False
            )
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: expected tensors in a file of torch; refused: {error}") from error
    except _BROKEN_FILE_ERRORS as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{path}: expected a file written by torch.save; found {reason}") from error


def _check_zip(path: Path, content: bytes) -> None:
    """Refuses programs, and archives that unpack to more than they should."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return
    try:
        members = zipfile.ZipFile(io.BytesIO(content)).infolist()
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path}: expected a file written by torch.save; found {error}") from error
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise CheckpointError(f"{path}: expected tensors, found a TorchScript program; save the state dict")
    if sum(member.file_size for member in members) > MAX_BYTES:
        raise CheckpointError(f"{path}: expected at most {MAX_BYTES} bytes unpacked, found more")
