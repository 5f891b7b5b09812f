"""HDF5 bytes as plain values without the library, for the layout that h5py writes by default.

Changes when that layout is to be read faster still, or in more of its variants. Several times as fast as
:mod:`~rmsai_ray.archives.hdf5`, and never of another opinion: whatever is unusual or damaged is left to it.
Nothing is looked at but the bytes.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np

from rmsai_ray.archives.chunks import decode_chunk
from rmsai_ray.archives.direct_headers import (
    GROUP_HEADER,
    ScalarType,
    UnknownLayoutError,
    dataset_at,
    group_at,
)
from rmsai_ray.archives.direct_trees import Link, chunks_of, links_of
from rmsai_ray.archives.hdf5 import HOLE, SIGNATURE
from rmsai_ray.archives.heaps import DamagedHeapError, GlobalHeaps
from rmsai_ray.archives.limits import Budget
from rmsai_ray.archives.nodes import LONGEST_TEXT, Array, Scalar, decoded

NOT_DIRECT: Final = (UnknownLayoutError, DamagedHeapError, IndexError, OverflowError, struct.error)
"""What reading raises where the library has to be asked."""

_SUPERBLOCK: Final = (
    SIGNATURE + bytes.fromhex("0000000000080800 0400100000000000 0000000000000000") + b"\xff" * 8
)
"""Version 0; addresses and lengths of 8 bytes, the usual ranks of trees, nothing before the signature."""
_SUPERBLOCK_END: Final = struct.Struct("<QQQQI4x16s")
"""End of the file, driver's block; the root's name, its header, 1 for a group, its tree and heap."""
_GROUP_PLACES: Final = struct.Struct("<QQ")
_UNDEFINED: Final = 2**64 - 1


def open_direct(raw: bytes, budget: Budget) -> Group:
    """The root group of an archive of the known layout.

    Raises:
        ArchiveError: it costs more than the budget; so do the group's methods.
        UnknownLayoutError: it is of another, or damaged; so do the group's methods, or one of
            :data:`NOT_DIRECT`.
        struct.error: the file is too short.
    """
    if not raw.startswith(_SUPERBLOCK) or raw.endswith(HOLE):
        raise UnknownLayoutError("an unusual superblock, or a file that ends in a hole")
    end, driver, name, header, cached, places = _SUPERBLOCK_END.unpack_from(raw, len(_SUPERBLOCK))
    if (end, driver, name, cached) != (len(raw), _UNDEFINED, 0, 1):
        raise UnknownLayoutError("a superblock whose end is not that of the file")
    return Group(_File(raw, budget), (header, cached, places), "")


class _File:
    """The bytes, their texts, and what they may still cost."""

    __slots__ = ("budget", "heaps", "raw")

    def __init__(self, raw: bytes, budget: Budget) -> None:
        self.raw = raw
        self.heaps = GlobalHeaps(raw, 0, budget)
        self.budget = budget

    def value(self, kind: ScalarType, place: int) -> Scalar:
        """Of this type, at this place of the file."""
        if kind.unpack is not None:
            number: int | float = kind.unpack(self.raw, place)[0]
            if not kind.is_flag:
                return number
            if number > 1:
                raise UnknownLayoutError("a flag that is neither true nor false")
            return bool(number)
        if kind.is_reference:
            return decoded(self.heaps.text(place)[:LONGEST_TEXT])
        text = self.raw[place : place + kind.size]
        if len(text) != kind.size:
            raise UnknownLayoutError("a text ends outside the file")
        return decoded(text.rstrip(b"\0"))


class Group:
    """A group; its links are looked at once, when it is opened."""

    __slots__ = ("_attributes", "_file", "_links", "path")

    def __init__(self, file: _File, link: Link, path: str) -> None:
        raw = file.raw
        file.budget.enter(path)
        header, is_group, places = link
        self.path = path
        self._file = file
        self._attributes: dict[str, tuple[ScalarType, int]] = {}
        if is_group and raw.startswith(GROUP_HEADER + places, header):
            tree, heap = _GROUP_PLACES.unpack(places)
        else:
            tree, heap, self._attributes = group_at(raw, header)
            file.budget.count_attributes(len(self._attributes))
            if is_group and places != _GROUP_PLACES.pack(tree, heap):
                raise UnknownLayoutError(f"{path} is said to have other members than it has")
        self._links = links_of(raw, tree, heap, file.budget)

    def __contains__(self, name: object) -> bool:
        return name in self._links

    @property
    def budget(self) -> Budget:
        """Of the archive."""
        return self._file.budget

    @property
    def names(self) -> list[str]:
        """In the file's order, which is alphabetical."""
        return list(self._links)

    def group(self, name: str) -> Group | None:
        """The subgroup of that name; None where there is none."""
        link = self._links.get(name)
        return None if link is None else Group(self._file, link, f"{self.path}/{name}" if self.path else name)

    def dataset(self, name: str) -> Dataset | None:
        """The dataset of that name; None where there is none."""
        link = self._links.get(name)
        return None if link is None else Dataset(self._file, link[0], f"{self.path}/{name}")

    def scalar(self, name: str) -> Scalar | None:
        """The value of a scalar dataset; None where there is none of that name."""
        link = self._links.get(name)
        if link is None:
            return None
        shape, place = dataset_at(self._file.raw, link[0])
        if shape.length is not None:
            raise UnknownLayoutError(f"{self.path}/{name} is no scalar")
        return self._file.value(shape.type, place)

    def attribute(self, name: str) -> Scalar | None:
        """A scalar attribute; None where there is none of that name."""
        found = self._attributes.get(name)
        return None if found is None else self._file.value(*found)

    def attributes(self) -> dict[str, Scalar]:
        """All attributes, alphabetically."""
        return {name: self._file.value(*self._attributes[name]) for name in sorted(self._attributes)}

    @staticmethod
    def parsed_extras() -> None:
        """None: HDF5 holds them as text only."""


class Dataset:
    """A dataset."""

    __slots__ = ("_file", "_header", "_place", "_shape", "path")

    def __init__(self, file: _File, header: int, path: str) -> None:
        self.path = path
        self._file = file
        self._header = header
        self._shape, self._place = dataset_at(file.raw, header)

    def attribute(self, name: str) -> Scalar | None:
        """A scalar attribute; None where there is none of that name."""
        found = self._shape.attributes.get(name)
        return None if found is None else self._file.value(found[0], self._header + found[1])

    def array(self) -> Array:
        """All samples of a one-dimensional numeric dataset, in the type that they are stored in."""
        kind, length, chunk_samples, filters, _ = self._shape
        if length is None or kind.dtype is None:
            raise UnknownLayoutError(f"{self.path} is no signal")
        budget = self._file.budget
        budget.charge(length * kind.size, self.path)
        if chunk_samples is None:
            return self._contiguous(length, kind.dtype)
        budget.charge(chunk_samples * kind.size, self.path)
        values = self._chunked(length, chunk_samples, filters, kind.dtype)
        budget.refund(chunk_samples * kind.size)
        return values

    def _contiguous(self, length: int, dtype: np.dtype[Any]) -> Array:
        content = self._file.raw[self._place : self._place + length * dtype.itemsize]
        if len(content) != length * dtype.itemsize or not length:
            raise UnknownLayoutError(f"{self.path} has no samples, or ends outside the file")
        return np.frombuffer(content, dtype).copy()

    def _chunked(
        self, length: int, chunk_samples: int, filters: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Array:
        raw = memoryview(self._file.raw)  # whose slices are no copies
        places = chunks_of(self._file.raw, self._place, length, chunk_samples, dtype.itemsize)
        values = np.empty(length, dtype)
        for i, (address, size) in enumerate(places):
            stored = raw[address : address + size]
            if len(stored) != size or not size:
                raise UnknownLayoutError(f"a chunk of {self.path} ends outside the file")
            start = i * chunk_samples
            chunk = decode_chunk(stored, 0, filters, chunk_samples, dtype)
            values[start : start + chunk_samples] = chunk[: length - start]
        return values
