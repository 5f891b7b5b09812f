"""Where a group's members and a dataset's chunks lie in HDF5's default layout; changes with what we accept.

Sections III.A to III.D of the file format specification: B-trees of version 1, tables of symbols, local
heaps. Strict, as :mod:`~rmsai_ray.archives.direct_headers`.
"""

from __future__ import annotations

import struct
from functools import cache, lru_cache
from itertools import pairwise
from typing import Final

from rmsai_ray.archives.direct_headers import LONGEST_SHAPE, MOST_SHAPES, UNDEFINED, UnknownLayoutError
from rmsai_ray.archives.limits import Budget
from rmsai_ray.archives.nodes import decoded

Link = tuple[int, int, bytes]
"""Address of the object's header; 1 for groups; then the addresses of a group's tree and heap, packed."""

SYMBOLS_BYTES: Final = 328
GROUP_NODE_BYTES: Final = 544
CHUNK_NODE_BYTES: Final = 2096
"""As the superblock says: up to 8 symbols in a table, 32 tables or 64 chunks in a node."""

_HEAP: Final = struct.Struct("<8sQQQ")  # signature, version and reserved; size, first free block, address
_NODE: Final = struct.Struct("<6sHQQ")  # signature, kind and level; entries, siblings to the left and right
_ONLY_NODE: Final = struct.Struct("<24sQQQ")  # head, key, child, key
_ONLY_NODE_HEAD: Final = _NODE.pack(b"TREE\0\0", 1, UNDEFINED, UNDEFINED)
_NODE_KEYS: Final = [struct.Struct(f"<{2 * n + 1}Q") for n in range(33)]
_SYMBOLS: Final = [struct.Struct("<" + "QQI4x16s" * n) for n in range(9)]  # name, header, cached, what
_SYMBOLS_HEADS: Final = {b"SNOD\1\0" + n.to_bytes(2, "little"): n for n in range(1, 9)}
_NO_FREE_BLOCK: Final = 1
_FREE_BLOCK: Final = struct.Struct("<QQ")  # next, size
_MOST_LEVELS: Final = 3
_GROUP_NODES: Final = [b"TREE\0" + bytes((level,)) for level in range(_MOST_LEVELS + 1)]


def links_of(raw: bytes, tree: int, heap: int, budget: Budget) -> dict[str, Link]:
    """A group's members by name.

    Raises:
        ArchiveError: there are too many.
        UnknownLayoutError: anything about them is unusual.
        struct.error, OverflowError: they lie outside the bytes.
    """
    head, size, free, data = _HEAP.unpack_from(raw, heap)
    names = raw[data : data + size]
    if head != b"HEAP\0\0\0\0" or len(names) != size:
        raise UnknownLayoutError("a group's heap of names is unusual")
    names_at = _names if size <= LONGEST_SHAPE else _names.__wrapped__
    links: dict[str, Link] = {}
    for low, table, high in _tables(raw, tree):
        count = _SYMBOLS_HEADS.get(raw[table : table + 8])
        if count is None or table + SYMBOLS_BYTES > len(raw):
            raise UnknownLayoutError("a group's table of symbols is unusual")
        budget.count_members(count)
        fields = _SYMBOLS[count].unpack_from(raw, table + 8)
        cached = fields[2::4]
        if max(cached) > 1:
            raise UnknownLayoutError("a group holds a soft link")
        found = names_at(names, free, low, fields[0::4], high)
        links.update(zip(found, zip(fields[1::4], cached, fields[3::4], strict=True), strict=True))
    return links


@lru_cache(MOST_SHAPES)
def _names(heap: bytes, free: int, low: int, offsets: tuple[int, ...], high: int) -> tuple[str, ...]:
    """The names at these offsets, which must be in order, and between the keys of their table.

    The library finds an object by its name in order, and refuses a heap whose free blocks do not add up.
    """
    for _ in range(len(heap) // _FREE_BLOCK.size):
        if free == _NO_FREE_BLOCK:
            break
        free_next, size = _FREE_BLOCK.unpack_from(heap, free)
        if free + size > len(heap) or not free_next:
            break
        free = free_next
    names = [_name(heap, offset) for offset in (low, *offsets, high)]
    ordered = all(before < after for before, after in pairwise(names[:-1]))
    texts = tuple(decoded(name) for name in names[1:-1])
    if free != _NO_FREE_BLOCK or not ordered or names[-2] > names[-1]:
        raise UnknownLayoutError("the names of a group do not add up")
    if any(text.encode() != name for text, name in zip(texts, names[1:-1], strict=True)):
        raise UnknownLayoutError("a name is no text")
    return texts


def _name(heap: bytes, offset: int) -> bytes:
    end = heap.find(b"\0", offset)
    if not 0 <= offset <= end:
        raise UnknownLayoutError("a name does not end")
    return heap[offset:end]


def _tables(raw: bytes, tree: int) -> list[tuple[int, int, int]]:
    """The tables of symbols of a group, each between the offsets of the names that bound it."""
    head, low, table, high = _ONLY_NODE.unpack_from(raw, tree)
    if head == _ONLY_NODE_HEAD and tree + GROUP_NODE_BYTES <= len(raw):  # nearly always
        return [(low, table, high)]
    level = raw[tree + 5]
    if level > _MOST_LEVELS:
        raise UnknownLayoutError("a group's tree is too deep")
    entries = _entries(raw, [tree], level)[0]
    while level:
        level -= 1
        below = _entries(raw, [node for _, node, _ in entries], level)
        if [(node[0][0], node[-1][2]) for node in below] != [(low, high) for low, _, high in entries]:
            raise UnknownLayoutError("a group's tree does not add up")
        entries = [entry for node in below for entry in node]
        if len(entries) * SYMBOLS_BYTES > len(raw):
            raise UnknownLayoutError("a group's tree has more tables than there is room for")
    return entries


def _entries(raw: bytes, nodes: list[int], level: int) -> list[list[tuple[int, int, int]]]:
    """(key, child, key) of all nodes of a level, which know their neighbours."""
    found = []
    for i, node in enumerate(nodes):
        head, count, left, right = _NODE.unpack_from(raw, node)
        neighbours = (nodes[i - 1] if i else UNDEFINED, nodes[i + 1] if i + 1 < len(nodes) else UNDEFINED)
        if (left, right) != neighbours or head != _GROUP_NODES[level] or not 1 <= count <= 32:
            raise UnknownLayoutError("a node of a group's tree is unusual")
        if node + GROUP_NODE_BYTES > len(raw):
            raise UnknownLayoutError("a node of a group's tree ends outside the file")
        fields = _NODE_KEYS[count].unpack_from(raw, node + _NODE.size)
        found.append(list(zip(fields[:-1:2], fields[1::2], fields[2::2], strict=True)))
    return found


def chunks_of(raw: bytes, tree: int, length: int, chunk_samples: int, itemsize: int) -> list[tuple[int, int]]:
    """Address and size of every chunk of a dataset, in their order; raises as :func:`links_of`."""
    count = -(-length // chunk_samples)
    if count > 64 or tree + CHUNK_NODE_BYTES > len(raw):
        raise UnknownLayoutError("a dataset's tree of chunks has several levels")
    fields = _chunk_node(count).unpack_from(raw, tree)
    sizes, addresses = fields[1 : 1 + 3 * count : 3], fields[3 : 3 + 3 * count : 3]
    fixed = (fields[0], *fields[2 : 2 + 3 * count : 3])
    usual, last_keys = _chunk_keys(count, chunk_samples, itemsize)
    if fixed != usual or fields[-1] not in last_keys:
        raise UnknownLayoutError("a dataset's tree of chunks is unusual")
    if sum(sizes) > len(raw):
        raise UnknownLayoutError("the chunks of a dataset have more bytes than the file")
    return list(zip(addresses, sizes, strict=True))


@cache
def _chunk_node(count: int) -> struct.Struct:
    """The head; of each chunk its size, the rest of its key, its address; the last key."""
    return struct.Struct("<24s" + "I20sQ" * count + "8x16s")


@lru_cache(MOST_SHAPES)
def _chunk_keys(
    count: int, chunk_samples: int, itemsize: int
) -> tuple[tuple[bytes, ...], tuple[bytes, bytes]]:
    """What such a node must hold but for sizes and addresses; and its last key, which the writing shapes."""
    head = b"TREE\1\0" + struct.pack("<HQQ", count, UNDEFINED, UNDEFINED)
    keys = [struct.pack("<IQQ", 0, i * chunk_samples, 0) for i in range(count)]
    last, beyond = (struct.pack("<QQ", i * chunk_samples, itemsize) for i in (count - 1, count))
    return (head, *keys), (last, beyond)
