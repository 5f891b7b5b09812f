"""Object headers of the layout that h5py writes by default; changes when that does, or what we accept of it.

Section IV.A of HDF5's file format specification. Strict: every byte that the library looks at must be one
that is known here, because whoever reads a header here never hears the library's opinion. Headers of one kind
are equal but for an address, so most are recognised whole, and taken apart once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from h5py import h5t

from rmsai_ray.archives.chunks import DEFLATE, SHUFFLE
from rmsai_ray.archives.nodes import LONGEST_TEXT

MOST_SHAPES: Final = 1024
"""Remembered of every kind. An archive has a dozen."""
LONGEST_SHAPE: Final = 4096
"""Bytes of what is remembered."""
UNDEFINED: Final = 2**64 - 1

_NIL, _SPACE, _TYPE, _FILL, _LAYOUT, _FILTERS, _ATTRIBUTE = 0x00, 0x01, 0x03, 0x05, 0x08, 0x0B, 0x0C
_CONTINUATION, _LINKS, _MODIFIED = 0x10, 0x11, 0x12
_CONSTANT: Final = 1
"""The flag of messages that do not change."""

_PREFIX: Final = struct.Struct("<HHIQ")  # version and reserved, messages, references, bytes (and padding)
_MESSAGE: Final = struct.Struct("<HHI")  # type, size, flags (and reserved)
_BLOCK: Final = struct.Struct("<QQ")
_ATTRIBUTE_SIZES: Final = struct.Struct("<HHHH")  # version and reserved, bytes of name, type and shape
_SCALAR_SPACE: Final = bytes.fromhex("0100000000000000")
_SPACE_1D: Final = struct.Struct("<QQQ")
_FILL_VALUES: Final = frozenset(bytes((2, a, w, 1, 0, 0, 0, 0)) for a in (2, 3) for w in (0, 2))
"""Version 2, allocated late or by chunks, written at once or never; the default value."""
_CONTIGUOUS, _CHUNKED = b"\x03\x01", b"\x03\x02\x02"
_FILTER_NAMES: Final = {DEFLATE: b"deflate\0", SHUFFLE: b"shuffle\0"}

GROUP_HEADER: Final = _PREFIX.pack(1, 1, 1, 24) + _MESSAGE.pack(_LINKS, 16, 0)
"""A group without attributes; the addresses of its tree and its heap follow."""


class UnknownLayoutError(Exception):
    """The file is not of the known layout, or damaged: the library has to judge it."""


class ScalarType(NamedTuple):
    """A type of numbers or texts."""

    size: int
    unpack: Callable[[bytes, int], tuple[Any, ...]] | None = None
    """For numbers and flags."""
    dtype: np.dtype[Any] | None = None
    """For numbers."""
    is_flag: bool = False
    is_reference: bool = False
    """A text of variable length; else, without ``unpack``, a text of ``size`` bytes."""


class DatasetShape(NamedTuple):
    """What a dataset's header says, but for the address of its content."""

    type: ScalarType
    length: int | None
    """Of a one-dimensional dataset; None for a scalar."""
    chunk_samples: int | None
    """None: it lies in one piece."""
    filters: tuple[int, ...]
    attributes: dict[str, tuple[ScalarType, int]]
    """Their type, and where in the header their content begins."""


class GroupShape(NamedTuple):
    """What a group's header says."""

    tree: int
    heap: int
    attributes: dict[str, tuple[ScalarType, int]]
    """Their type, and where in the file their content begins."""


def dataset_at(raw: bytes, address: int) -> tuple[DatasetShape, int]:
    """The dataset whose header lies there, and the address of its content.

    Raises:
        UnknownLayoutError: it is of no known kind.
        struct.error, OverflowError: it lies outside the bytes.
    """
    beginning = raw[address : address + 56]  # down to the size of the type, before the message of the layout
    place, end = _PLACES.get(beginning) or _guess_place(raw, address, beginning)
    try:
        shape = _dataset_shape(raw[address : address + place], raw[address + place + 8 : address + end])
    except UnknownLayoutError:
        place, end = _guess_place(raw, address, beginning)  # another kind of header may begin in the same way
        shape = _dataset_shape(raw[address : address + place], raw[address + place + 8 : address + end])
    return shape, _ADDRESS.unpack_from(raw, address + place)[0]


_ADDRESS: Final = struct.Struct("<Q")
_PLACES: Final[dict[bytes, tuple[int, int]]] = {}
"""Where in a header the content's address lies, and its end, by its beginning: a guess that is checked."""


def _guess_place(raw: bytes, address: int, beginning: bytes) -> tuple[int, int]:
    num_bytes = 16 + _PREFIX.unpack_from(beginning)[3]
    if num_bytes > LONGEST_SHAPE:
        raise UnknownLayoutError("an object's header has an odd size")
    if len(_PLACES) >= MOST_SHAPES:
        _PLACES.clear()
    place = _place_of_address(raw[address : address + num_bytes])
    _PLACES[beginning] = place, num_bytes
    return place, num_bytes


def group_at(raw: bytes, address: int) -> GroupShape:
    """The group whose header lies there; raises as :func:`dataset_at`."""
    links: list[tuple[int, int]] = []
    attributes: dict[str, tuple[ScalarType, int]] = {}
    for kind, flags, body, size in _messages(raw, address):
        if kind == _LINKS and size == 16 and not flags:
            links.append(_BLOCK.unpack_from(raw, body))
        elif kind == _ATTRIBUTE and not flags:
            _add_attribute(attributes, raw, body, size)
        elif kind not in (_NIL, _CONTINUATION) or flags:
            raise UnknownLayoutError(f"a group has a message of type {kind}, flags {flags}")
    if len(links) != 1:
        raise UnknownLayoutError("a group has no table of symbols")
    return GroupShape(*links[0], attributes)


def _place_of_address(header: bytes) -> int:
    for kind, _, body, _ in _messages(header, 0):
        if kind == _LAYOUT:
            return body + len(_CONTIGUOUS if header.startswith(_CONTIGUOUS, body) else _CHUNKED)
    raise UnknownLayoutError("an object has no layout")


@lru_cache(MOST_SHAPES)
def _dataset_shape(before: bytes, after: bytes) -> DatasetShape:
    """From a header without the address of its content."""
    header = before + bytes(8) + after
    bodies: dict[int, bytes] = {}
    attributes: dict[str, tuple[ScalarType, int]] = {}
    for kind, flags, body, size in _messages(header, 0):
        if kind == _ATTRIBUTE and not flags:
            _add_attribute(attributes, header, body, size)
        elif kind == _MODIFIED and not flags and size == 8 and header[body : body + 4] == b"\1\0\0\0":
            continue
        elif kind in _DATASET_FLAGS and flags == _DATASET_FLAGS[kind] and kind not in bodies:
            bodies[kind] = header[body : body + size]
            if kind == _LAYOUT:
                place = body
        elif kind != _NIL or flags:
            raise UnknownLayoutError(f"a dataset has a message of type {kind}, flags {flags}")
    if not bodies.keys() >= {_SPACE, _TYPE, _FILL, _LAYOUT} or bodies[_FILL] not in _FILL_VALUES:
        raise UnknownLayoutError("a dataset's header is not complete, or has a fill value")
    length = _length(bodies[_SPACE])
    kind_of_value = scalar_type(bodies[_TYPE])
    layout, size = bodies[_LAYOUT], kind_of_value.size
    if layout.startswith(_CONTIGUOUS):
        chunk_samples = None
        expected = _CONTIGUOUS + struct.pack("<QQ6x", 0, size * (1 if length is None else length))
    else:
        chunk_samples = int.from_bytes(layout[11:15], "little")
        expected = _CHUNKED + struct.pack("<QII5x", 0, chunk_samples, size)
        if not length or not 0 < chunk_samples <= length:
            raise UnknownLayoutError("a scalar in chunks, or chunks larger than their dataset")
    if layout != expected or len(before) - place != layout.index(bytes(8)):
        raise UnknownLayoutError("a dataset has an unknown layout")
    filters = _filters(bodies[_FILTERS], size) if _FILTERS in bodies else ()
    if filters and chunk_samples is None:
        raise UnknownLayoutError("a dataset in one piece has filters")
    return DatasetShape(kind_of_value, length, chunk_samples, filters, attributes)


_DATASET_FLAGS: Final = {_SPACE: 0, _TYPE: _CONSTANT, _FILL: _CONSTANT, _LAYOUT: 0, _FILTERS: _CONSTANT}


def _length(space: bytes) -> int | None:
    """Of a dataset of no or one dimension."""
    if space == _SCALAR_SPACE:
        return None
    if space.startswith(b"\1\1\1\0\0\0\0\0") and len(space) == _SPACE_1D.size:
        _, length, most = _SPACE_1D.unpack(space)
        if most in (length, UNDEFINED):
            return int(length)
    raise UnknownLayoutError("a dataset has an unknown shape")


def _filters(body: bytes, itemsize: int) -> tuple[int, ...]:
    """Gzip, shuffle, or both: version 1 of the message, each filter with one parameter."""
    count = len(body) // 24
    filters = struct.unpack_from("<H", body, 8) + (struct.unpack_from("<H", body, 32) if count == 2 else ())
    expected = struct.pack("<BB6x", 1, count)
    for i, number in enumerate(filters):
        if number not in _FILTER_NAMES:
            raise UnknownLayoutError("other filters than gzip and shuffle")
        flags, parameter = struct.unpack_from("<H2x8xI", body, 12 + 24 * i)
        if flags > 1 or (number == SHUFFLE and parameter != itemsize):
            raise UnknownLayoutError("a filter with odd parameters")
        expected += struct.pack("<HHHH8sI4x", number, 8, flags, 1, _FILTER_NAMES[number], parameter)
    if body != expected or filters not in ((DEFLATE,), (SHUFFLE,), (SHUFFLE, DEFLATE)):
        raise UnknownLayoutError("an unknown pipeline of filters")
    return filters


def _add_attribute(
    attributes: dict[str, tuple[ScalarType, int]], content: bytes, body: int, size: int
) -> None:
    _, name_bytes, type_bytes, space_bytes = _ATTRIBUTE_SIZES.unpack_from(content, body)
    header_bytes = 8 + sum(-(-n // 8) * 8 for n in (name_bytes, type_bytes, space_bytes))
    if header_bytes > LONGEST_SHAPE:
        raise UnknownLayoutError("an attribute with an odd name or type")
    name, kind = _attribute_kind(content[body : body + header_bytes])
    if size != header_bytes + -(-kind.size // 8) * 8 or name in attributes:
        raise UnknownLayoutError(f"attribute {name} has an odd size, or comes twice")
    attributes[name] = (kind, body + header_bytes)


@lru_cache(MOST_SHAPES)
def _attribute_kind(header: bytes) -> tuple[str, ScalarType]:
    """Name and type of a scalar attribute: version 1, its parts padded to 8 bytes."""
    version, name_bytes, type_bytes, space_bytes = _ATTRIBUTE_SIZES.unpack_from(header)
    end = 8 + -(-name_bytes // 8) * 8
    name = header[8 : 8 + name_bytes - 1]
    space = header[len(header) - 8 :]
    if (
        version != 1
        or not name
        or not name.isascii()
        or b"\0" in name
        or header[8 + len(name) : end] != bytes(end - 8 - len(name))
        or (space_bytes, space) != (8, _SCALAR_SPACE)
    ):
        raise UnknownLayoutError("an unknown kind of attribute")
    body = header[end : len(header) - 8]
    if type_bytes != _TYPE_BYTES.get(body, len(body)):
        raise UnknownLayoutError("an attribute's type has an odd size")
    return name.decode(), scalar_type(body)


def scalar_type(body: bytes) -> ScalarType:
    """The type that a message describes.

    Raises:
        UnknownLayoutError: none of those that archives have.
    """
    known = _TYPES.get(body)
    if known is not None:
        return known
    size = int.from_bytes(body[4:8], "little")
    if len(body) == 8 and body[:4] in _FIXED_TEXTS and 0 < size <= LONGEST_TEXT:
        return ScalarType(size)
    raise UnknownLayoutError("neither a usual number nor a text")


_FIXED_TEXTS: Final = {
    bytes((0x13, padding | charset << 4, 0, 0)) for padding in (0, 1, 2) for charset in (0, 1)
}


def _padded(encoded: bytes) -> bytes:
    return encoded + bytes(-len(encoded) % 8)


def _known_types() -> dict[bytes, ScalarType]:
    """By message, without its padding. Numbers and flags are encoded by the library itself."""
    types = {}
    for code in ("f8", "f4", "i8", "i4", "i2", "i1", "u4", "u2", "u1"):
        dtype = np.dtype(f"<{code}")
        unpack = struct.Struct(f"<{dtype.char}".replace("l", "q")).unpack_from
        types[_encoded(dtype)] = ScalarType(dtype.itemsize, unpack, dtype)
    types[_encoded(np.dtype(bool))] = ScalarType(1, struct.Struct("B").unpack_from, is_flag=True)
    for charset in (0, 1):
        reference = bytes.fromhex(f"1901{charset:02x}0010000000 1000000001000000 00000800")
        types[reference] = ScalarType(16, is_reference=True)
    return types


def _encoded(dtype: np.dtype[Any]) -> bytes:
    """Without the library's prefix of two bytes."""
    return bytes(h5t.py_create(dtype, logical=True).encode()[2:])


_TYPES: Final = {_padded(encoded): kind for encoded, kind in _known_types().items()}
_TYPE_BYTES: Final = {_padded(encoded): len(encoded) for encoded in _known_types()}


def _messages(content: bytes, address: int) -> Iterator[tuple[int, int, int, int]]:
    """Type, flags, offset of the body and its size of every message of a header of version 1."""
    version, num_messages, references, num_bytes = _PREFIX.unpack_from(content, address)
    if version != 1 or references != 1 or num_bytes >> 32:
        raise UnknownLayoutError("an object's header of an unknown kind")
    blocks = [(address + 16, num_bytes)]
    found = 0
    for position, size in blocks:
        end = position + size
        if end > len(content):
            raise UnknownLayoutError("an object's header does not end")
        while position < end:
            kind, num_bytes, flags = _MESSAGE.unpack_from(content, position)
            body = position + _MESSAGE.size
            position = body + num_bytes
            found += 1
            if position > end or num_bytes % 8 or found > num_messages:
                raise UnknownLayoutError("the messages of an object's header do not add up")
            if kind == _CONTINUATION:
                blocks.append(_BLOCK.unpack_from(content, body))
            yield kind, flags, body, num_bytes
    if found != num_messages:
        raise UnknownLayoutError("an object's header lacks messages")
