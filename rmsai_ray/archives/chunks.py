"""From stored to plain bytes of a chunk; changes with the filters that archives use, or with who inflates.

Nothing is allocated before its size is known to be honest, and a chunk that grows beyond its declared size is
stopped.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from deflate import DeflateError, zlib_decompress

from rmsai_ray.archives.nodes import UnreadableError
from rmsai_ray.errors import ArchiveError

MOST_EXPANSION: Final = 64
"""Decoded bytes per stored byte. Leads that are all zeros reach 32."""
FREE_ALLOWANCE: Final = 1 << 26
"""Decoded bytes that any file may have, however small."""
LARGEST_CHUNK_BYTES: Final = 1 << 31

Content = bytes | bytearray | memoryview

DEFLATE: Final = 1
SHUFFLE: Final = 2
"""HDF5's numbers of the filters."""


class Allowance:
    """How much one file may still make us allocate."""

    def __init__(self, file_bytes: int) -> None:
        self._file_bytes = file_bytes
        self._left = FREE_ALLOWANCE + MOST_EXPANSION * file_bytes

    def charge(self, num_bytes: int, where: str) -> None:
        """To be called before allocating.

        Raises:
            ArchiveError: oversized.
        """
        self._left -= num_bytes
        if self._left < 0:
            raise ArchiveError(
                "oversized",
                f"{where} declares {num_bytes} bytes more than a file of {self._file_bytes} can hold",
            )


def decode_chunk(
    stored: Content, mask: int, filters: tuple[int, ...], num_samples: int, dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    """Undoes the filters in reverse order; bit i of ``mask`` says that filter i was left out.

    Raises:
        UnreadableError: what comes out has not the declared size.
    """
    num_bytes = num_samples * dtype.itemsize
    content = stored
    for i in reversed(range(len(filters))):
        if mask >> i & 1:
            continue
        inflates = filters[i] == DEFLATE
        content = inflate(content, num_bytes) if inflates else unshuffle(content, dtype.itemsize)
    if len(content) != num_bytes:
        raise UnreadableError(f"a chunk holds {len(content)} bytes instead of {num_bytes}")
    return np.frombuffer(content, dtype)


def inflate(stored: Content, num_bytes: int) -> bytearray:
    """At most ``num_bytes`` from a zlib stream.

    Raises:
        UnreadableError: it is damaged, or holds more.
    """
    if num_bytes > LARGEST_CHUNK_BYTES:
        raise UnreadableError(f"a chunk declares {num_bytes} bytes")
    try:
        inflated: bytearray = zlib_decompress(stored, num_bytes)
    except DeflateError as error:
        detail = f"a chunk is damaged, or does not end after the {num_bytes} bytes that it declares"
        raise UnreadableError(detail) from error
    return inflated


def unshuffle(stored: Content, itemsize: int) -> bytes:
    """Bytes of equal weight lay together, and come back into their numbers.

    Raises:
        UnreadableError: the last of the numbers is not complete.
    """
    if len(stored) % itemsize:
        raise UnreadableError(f"{len(stored)} bytes are no whole numbers of {itemsize} bytes")
    return np.frombuffer(stored, np.uint8).reshape(itemsize, -1).T.tobytes()
