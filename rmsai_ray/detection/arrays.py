"""Arrays by name in one file that holds data only: nothing in it can be executed when it is read."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from rmsai_ray.errors import CheckpointError

Arrays = dict[str, npt.NDArray[Any]]

KINDS = {"f": "floating", "i": "integer", "U": "text"}
MAX_BYTES = 64 << 20
"""Of all arrays of a file together; a file that claims more is refused before anything is allocated."""


def save_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Writes an ``.npz``; the same arrays give the same bytes."""
    contiguous = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    np.savez(path, allow_pickle=False, **contiguous)


def load_arrays(path: Path, expected: Mapping[str, tuple[str, int]]) -> Arrays:
    """The arrays of a file of :func:`save_arrays`.

    Args:
        path: the ``.npz`` file.
        expected: (kind of :data:`KINDS`, number of dimensions) by name; all of these, and no other.

    Raises:
        CheckpointError: it is no such file; a name, a kind or a number of dimensions differs; a number is not
            finite; it is too large, or holds anything but plain numbers and text.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if found.keys() != expected.keys() or len(found) != len(archive.infolist()):
                raise CheckpointError(f"{path}: expected {sorted(expected)}, found {sorted(found)}")
            if sum(info.file_size for info in found.values()) > MAX_BYTES:
                raise CheckpointError(f"{path}: expected arrays of {MAX_BYTES} bytes at most, found more")
            arrays = {}
            for name, info in found.items():
                with archive.open(info) as file:
                    arrays[name] = _read(file, f"{path}: {name}", *expected[name], info.file_size)
            return arrays
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: expected arrays, found something else: {error}") from error


def _read(file: IO[bytes], where: str, kind: str, ndim: int, num_bytes: int) -> npt.NDArray[Any]:
    if npy.read_magic(file) != (1, 0):
        raise CheckpointError(f"{where}: expected version 1.0 of the npy format")
    shape, is_fortran, dtype = npy.read_array_header_1_0(file)
    if dtype.kind != kind or len(shape) != ndim or is_fortran or dtype.hasobject:
        raise CheckpointError(
            f"{where}: expected {ndim} dimensions of {KINDS[kind]} values, found {dtype} {shape}"
        )
    content = file.read(num_bytes)
    if len(content) != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise CheckpointError(f"{where}: expected {dtype} {shape}, found {len(content)} bytes")
    array = np.frombuffer(content, dtype).reshape(shape)
    if kind == "f" and not np.isfinite(array).all():
        raise CheckpointError(f"{where}: expected finite numbers, found others")
    return array
