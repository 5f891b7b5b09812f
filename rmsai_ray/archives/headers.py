"""The bytes of an attribute, straight from its object's header; goes when HDF5 can hand them out.

HDF5 reads a text attribute only by following the text's reference, whose length it believes: one damaged byte
makes it allocate gigabytes. So the reference is looked up here, as section IV.A of the file format
specification describes object headers, and followed by :class:`~rmsai_ray.archives.heaps.GlobalHeaps`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import Final

MOST_MESSAGES: Final = 10_000
"""In one object's header. A damaged one may lead in circles."""

_ATTRIBUTE, _CONTINUATION = 0x0C, 0x10
_V1_SIZE: Final = struct.Struct("<8xI4x")
_V1_MESSAGE: Final = struct.Struct("<HHB3x")  # type, size, flags
_V2_MESSAGE: Final = struct.Struct("<BHB")  # type, size, flags
_BLOCK: Final = struct.Struct("<QQ")  # offset, length
_ATTRIBUTE_SIZES: Final = struct.Struct("<BBHHH")  # version, flags, bytes of name, type and shape


class DamagedHeaderError(ValueError):
    """An object's header does not add up, or is of a kind that nobody writes."""


def attribute_offset(raw: bytes, base: int, address: int, name: bytes) -> int | None:
    """Where in the file the content of an attribute begins.

    None where its object's header does not hold it: it does not exist, or it is one of more than eight in a
    file of the newest layout, which keeps so many elsewhere.

    Args:
        raw: the whole file.
        base: the offset of the file's signature, from which HDF5 counts its addresses.
        address: that of the object's header.
        name: the attribute's.

    Raises:
        DamagedHeaderError: the header does not add up.
    """
    try:
        is_v2 = raw.startswith(b"OHDR", base + address)
        messages = (_messages_v2 if is_v2 else _messages_v1)(raw, base, base + address)
        for kind, body in islice(messages, MOST_MESSAGES):
            if kind == _ATTRIBUTE:
                found = _content_of(raw, body, name)
                if found is not None:
                    return found
    except (struct.error, OverflowError) as error:
        raise DamagedHeaderError(f"the object header at {address} does not add up: {error}") from error
    return None


def _content_of(raw: bytes, body: int, name: bytes) -> int | None:
    version, flags, name_bytes, type_bytes, shape_bytes = _ATTRIBUTE_SIZES.unpack_from(raw, body)
    start = body + _ATTRIBUTE_SIZES.size + (1 if version == 3 else 0)
    if raw[start : start + name_bytes].rstrip(b"\0") != name:
        return None
    if version not in (1, 2, 3) or (version > 1 and flags & 3):
        raise DamagedHeaderError(f"attribute of version {version}, flags {flags}")
    if version == 1:  # its parts are padded to 8 bytes
        name_bytes, type_bytes, shape_bytes = (-(-n // 8) * 8 for n in (name_bytes, type_bytes, shape_bytes))
    return int(start + name_bytes + type_bytes + shape_bytes)


def _messages_v1(raw: bytes, base: int, start: int) -> Iterator[tuple[int, int]]:
    """(type, offset of the body) of every message of a header of version 1."""
    blocks = [(start + 16, _V1_SIZE.unpack_from(raw, start)[0])]
    for position, size in blocks:
        end = position + size
        while position + _V1_MESSAGE.size <= end:
            kind, num_bytes, _ = _V1_MESSAGE.unpack_from(raw, position)
            body = position + _V1_MESSAGE.size
            if kind == _CONTINUATION:
                offset, length = _BLOCK.unpack_from(raw, body)
                blocks.append((base + offset, length))
            yield kind, body
            position = body + num_bytes


def _messages_v2(raw: bytes, base: int, start: int) -> Iterator[tuple[int, int]]:
    """Likewise, of version 2: what h5py writes with ``libver="latest"``."""
    flags = raw[start + 5]
    position = start + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    blocks = [(position + width, int.from_bytes(raw[position : position + width], "little"))]
    overhead = _V2_MESSAGE.size + (2 if flags & 4 else 0)
    for position, size in blocks:
        end = position + size
        while position + overhead <= end:
            kind, num_bytes, _ = _V2_MESSAGE.unpack_from(raw, position)
            body = position + overhead
            if kind == _CONTINUATION:
                offset, length = _BLOCK.unpack_from(raw, body)
                blocks.append((base + offset + 4, length - 8))  # without signature and checksum
            yield kind, body
            position = body + num_bytes
