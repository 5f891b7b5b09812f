"""Checks the heaps in which HDF5 keeps strings, because HDF5 itself goes round for ever in a damaged one.

Layout: HDF5 file format specification 3.0, section III.E, "Global Heap".
"""

from __future__ import annotations

import struct

from rmsai_ray.errors import ArchiveError

_HEADER = b"GCOL\x01\x00\x00\x00"
"""Signature, version 1 and three reserved zeros."""
_HEADER_BYTES = 16
_OBJECT_HEADER = struct.Struct("<H6xQ")
"""Index and size of an object; the reference count between them does not matter here."""


def check_heaps(raw: bytes) -> None:
    """Walks every global heap in a file as HDF5 does, but insists on getting ahead.

    A file that was written only in part holds zeros where a heap's next object should be: an object of no
    size, from which HDF5 2.0 never moves on, deaf to signals and to time limits of the same process.

    Raises:
        ArchiveError: corrupt.
    """
    start = raw.find(_HEADER)
    while start >= 0:
        _check_heap(raw, start)
        start = raw.find(_HEADER, start + 1)


def _check_heap(raw: bytes, start: int) -> None:
    end = start + int.from_bytes(raw[start + 8 : start + 16], "little")
    place = start + _HEADER_BYTES
    while place + _OBJECT_HEADER.size <= min(end, len(raw)):
        index, size = _OBJECT_HEADER.unpack_from(raw, place)
        # Object 0 is the free space, and its size counts its header; others are padded to 8 bytes.
        step = size if index == 0 else _OBJECT_HEADER.size + (size + 7) // 8 * 8
        if not 0 < step <= end - place:
            raise ArchiveError("corrupt", f"the heap at byte {start} is damaged at byte {place}")
        place += step
