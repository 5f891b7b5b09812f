"""Texts of variable length, straight from HDF5's global heaps; goes when the library survives damaged ones.

HDF5 2.0 believes what a heap and a reference into it say: after one damaged byte it may walk a heap for ever
(an object of size 0) or allocate 4 GB (a text of that length), and no caller can stop it. So it never gets to
see them: heaps are walked here, as section III.E of the file format specification describes them.
"""

from __future__ import annotations

import struct
from typing import Final

from rmsai_ray.archives.limits import Budget

REFERENCE_BYTES: Final = 16
"""A text's place in a dataset: its length, the address of a heap, the number of an object in it."""

OBJECTS_BETWEEN_TICKS: Final = 1 << 12
_PLACE_BYTES: Final = 250
"""What is remembered of an object, at most."""

_SIGNATURE_AND_VERSION: Final = b"GCOL\x01"
_HEAP: Final = struct.Struct("<8xQ")  # signature, version, reserved; size of the heap
_OBJECT: Final = struct.Struct("<H6xQ")  # number (0: free space); reference count, reserved; size
_REFERENCE: Final = struct.Struct("<IQI")


class DamagedHeapError(ValueError):
    """A reference leads nowhere, or to less than it says."""


class GlobalHeaps:
    """Where the texts of a file lie."""

    def __init__(self, raw: bytes, base: int, budget: Budget) -> None:
        """``base`` is the offset of the file's signature, from which HDF5 counts its addresses."""
        self._raw = raw
        self._base = base
        self._budget = budget
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}  # address → number → (start, size)
        self._objects_left = len(raw) // _OBJECT.size  # more only where heaps lie in heaps

    def text(self, reference_offset: int) -> bytes:
        """The text that the reference at this offset of the file leads to.

        Raises:
            DamagedHeapError: it leads nowhere, or to an object that is shorter than the text.
        """
        if not 0 <= reference_offset <= len(self._raw) - REFERENCE_BYTES:
            raise DamagedHeapError(f"there is no byte {reference_offset}")
        length, address, number = _REFERENCE.unpack_from(self._raw, reference_offset)
        if length == 0:
            return b""
        objects = self._heaps.get(address)
        if objects is None:
            objects = self._heaps[address] = self._walk(self._base + address)
        start, size = objects.get(number, (0, 0))
        if length > size:
            raise DamagedHeapError(f"object {number} of the heap at {address} has {size} bytes, not {length}")
        self._budget.charge(length, "its texts")  # any number of references may lead to one text
        return self._raw[start : start + length].partition(b"\0")[0]

    def _walk(self, start: int) -> dict[int, tuple[int, int]]:
        """Start and size of the objects of a heap by number, up to the first that does not fit into it."""
        places: dict[int, tuple[int, int]] = {}
        position = start + _HEAP.size
        if not self._raw.startswith(_SIGNATURE_AND_VERSION, start) or position > len(self._raw):
            return places
        end = min(start + _HEAP.unpack_from(self._raw, start)[0], len(self._raw))
        while end - position >= _OBJECT.size:  # what is smaller than an object's header counts as free
            number, size = _OBJECT.unpack_from(self._raw, position)
            step = _OBJECT.size + (size + 7) // 8 * 8 if number else size
            if not _OBJECT.size <= step <= end - position or not self._objects_left:
                break
            self._objects_left -= 1
            if not self._objects_left % OBJECTS_BETWEEN_TICKS:
                self._budget.tick()
                self._budget.charge(OBJECTS_BETWEEN_TICKS * _PLACE_BYTES, "its heaps")
            if number:
                places[number] = (position + _OBJECT.size, size)
            position += step
        return places
