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

LARGEST_CHUNK_BYTES: Final = 1 << 31

Content = bytes | bytearray | memoryview

DEFLATE: Final = 1
SHUFFLE: Final = 2
"""HDF5's numbers of the filters."""


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
