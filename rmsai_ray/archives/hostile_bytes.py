"""Hostile archives that no library writes: single structures of HDF5 that lie, and files that are none."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Final

import h5py

from rmsai_ray.archives.hdf5 import SIGNATURE
from rmsai_ray.archives.hostile_hdf5 import EVENT, EXTRAS, LEAD, Kinds, Make, plain, rewritten

ROOT_HEADER: Final = 64
"""Where the superblock of version 0 says where the root's header is."""


def cut(share: float) -> Make:
    """The first part of a file."""
    return lambda: plain()[: int(len(plain()) * share)]


def cut_in(signature: bytes, beyond: int) -> Make:
    """A file that ends inside the last structure with this signature."""
    return lambda: plain()[: plain().rindex(signature) + beyond]


def patched(signature: bytes, offset: int, *values: int, content: bytes | None = None) -> Make:
    """Unsigned 64-bit values in the place of those at an offset of the first such structure."""

    def make() -> bytes:
        raw = bytearray(plain() if content is None else content)
        struct.pack_into(f"<{len(values)}Q", raw, raw.index(signature) + offset, *values)
        return bytes(raw)

    return make


def _tree_of_itself() -> bytes:
    raw = bytearray(plain())
    place = raw.index(b"TREE")
    raw[place + 5] = 2  # levels
    struct.pack_into("<Q", raw, place + 32, place)
    return bytes(raw)


def _chunk_tree_of_itself() -> bytes:
    raw = bytearray(plain())
    place = raw.index(b"TREE\x01")
    raw[place + 5] = 1
    struct.pack_into("<Q", raw, place + 24 + 24, place)
    return bytes(raw)


def _overlapping_trees() -> bytes:
    raw = bytearray(plain())
    first = raw.index(b"SNOD")
    second = raw.index(b"SNOD", first + 1)
    raw[second : second + 328] = raw[first : first + 328]
    return bytes(raw)


def _event_is_root() -> bytes:
    with h5py.File(io.BytesIO(plain()), "r") as file:
        event = h5py.h5o.get_info(file[EVENT].id).addr
        root = h5py.h5o.get_info(file.id).addr
    return plain().replace(struct.pack("<Q", event), struct.pack("<Q", root))


def _header_of_itself() -> bytes:
    """A message of an object's header that says that the header continues with it."""
    with h5py.File(io.BytesIO(plain()), "r") as file:
        address = h5py.h5o.get_info(file[LEAD].id).addr
    raw = bytearray(plain())
    struct.pack_into("<HHI", raw, address + 16, 0x10, 16, 0)
    struct.pack_into("<QQ", raw, address + 24, address + 16, 256)
    return bytes(raw)


def _negative_shape() -> bytes:
    raw = plain()
    space = struct.pack("<QQ", 2400, 2400)
    return raw.replace(space, struct.pack("<qq", -2400, -2400))


def _zero_chunks() -> bytes:
    """Chunks of no samples, of 8 bytes each."""
    return plain().replace(struct.pack("<II", 1200, 8), struct.pack("<II", 0, 8))


def _long_text() -> bytes:
    """References to texts that claim to be of 4 GB."""
    with h5py.File(io.BytesIO(plain()), "r") as file:
        offset = file[EXTRAS].id.get_offset()
    raw = bytearray(plain())
    struct.pack_into("<I", raw, offset, 0xFFFFFFFF)
    return bytes(raw)


def _heap_of_nothing() -> bytes:
    """Objects of size 0, around which a reader may walk for ever."""
    raw = bytearray(plain())
    place = raw.index(b"GCOL")
    struct.pack_into("<HH4xQ", raw, place + 16, 0, 0, 0)
    return bytes(raw)


def _heaps_in_heaps() -> bytes:
    raw = bytearray(plain())
    place = raw.index(b"GCOL")
    for at in range(place + 16, place + 2048, 16):
        raw[at : at + 16] = b"GCOL\x01\0\0\0" + struct.pack("<Q", 1 << 40)
    return bytes(raw)


def _flipped(signature: bytes) -> Make:
    """A damaged structure of HDF5's newest layout, with the checksum that was right before."""

    def make() -> bytes:
        def fill(file: h5py.File) -> None:
            group = file.create_group("event_1002")
            for number in range(50):
                group[f"X{number}"] = number
                group.attrs[f"x{number}"] = number

        raw = bytearray(rewritten(fill, libver="latest")())
        place = raw.rindex(signature)
        raw[place + 6 : place + 14] = b"\xff" * 8
        return bytes(raw)

    return make


def _superblock_of_itself() -> bytes:
    """A superblock of version 3 whose extension is the superblock, with a right checksum."""
    raw = bytearray(rewritten(lambda file: None, libver="latest")())
    struct.pack_into("<Q", raw, 20, 0)
    struct.pack_into("<I", raw, 44, _lookup3(bytes(raw[:44])))
    return bytes(raw)


def _lookup3(content: bytes) -> int:
    """Jenkins' checksum, which HDF5's newest structures end with; three registers take turns in it."""
    mask = 0xFFFFFFFF

    def rotate(value: int, by: int) -> int:
        return (value << by | value >> (32 - by)) & mask

    a = b = c = (0xDEADBEEF + len(content)) & mask
    while len(content) > 12:
        a, b, c = (
            (now + new) & mask
            for now, new in zip((a, b, c), struct.unpack_from("<III", content), strict=True)
        )
        for by in (4, 6, 8, 16, 19, 4):
            a, b, c = b, (c + b) & mask, ((a - c) & mask) ^ rotate(c, by)
        content = content[12:]
    last = struct.unpack("<III", content.ljust(12, b"\0"))
    a, b, c = ((before + more) & mask for before, more in zip((a, b, c), last, strict=True))
    for by in (14, 11, 25, 16, 4, 14, 24):
        a, b, c = b, ((c ^ b) - rotate(b, by)) & mask, a
    return int(b)


BYTES: Final[Kinds] = {
    "none": ("empty_object", lambda: b""),
    "signature_only": ("corrupt", lambda: SIGNATURE),
    "signature_and_noise": ("corrupt", lambda: SIGNATURE + bytes(range(256)) * 64),
    "gzip_bomb": ("not_hdf5", lambda: b"\x1f\x8b\x08" + zlib.compress(bytes(10 << 20))),
    "zeros": ("not_hdf5", lambda: bytes(100_000)),
    "cut_in_the_superblock": ("truncated", lambda: plain()[:90]),
    "cut_at_a_tenth": ("truncated", cut(0.1)),
    "cut_at_the_end": ("truncated", lambda: plain()[:-1]),
    "cut_in_a_tree": ("truncated", cut_in(b"TREE", 20)),
    "cut_in_a_heap": ("truncated", cut_in(b"HEAP", 12)),
    "cut_in_a_table": ("truncated", cut_in(b"SNOD", 40)),
    "cut_in_a_global_heap": ("truncated", cut_in(b"GCOL", 100)),
    "root_far_away": ("corrupt", patched(SIGNATURE, ROOT_HEADER, 1 << 62)),
    "end_far_away": ("truncated", patched(SIGNATURE, 40, (1 << 63) - 1)),
    "base_address_odd": ("truncated", patched(SIGNATURE, 24, 1 << 40)),
    "tree_of_itself": ("parser_died", _tree_of_itself),
    "tree_of_a_chunk_of_itself": ("parser_died", _chunk_tree_of_itself),
    "tables_that_overlap": (None, _overlapping_trees),
    "event_that_is_the_root": (None, _event_is_root),
    "header_of_itself": (None, _header_of_itself),
    "heap_of_names_huge": ("corrupt", patched(b"HEAP", 8, 1 << 60)),
    "heap_of_names_free_of_itself": ("corrupt", patched(b"HEAP", 16, 0)),
    "heap_of_names_elsewhere": ("corrupt", patched(b"HEAP", 24, 1 << 62)),
    "heap_of_texts_huge": (None, patched(b"GCOL", 8, 1 << 62)),
    "heap_of_nothing": (None, _heap_of_nothing),
    "heaps_in_heaps": (None, _heaps_in_heaps),
    "texts_of_four_gigabytes": (None, _long_text),
    "shape_negative": ("oversized", _negative_shape),
    "chunks_of_nothing": (None, _zero_chunks),
    "newest_superblock_of_itself": ("corrupt", _superblock_of_itself),
    "newest_header_damaged": (None, _flipped(b"OHDR")),
    "newest_fractal_heap_damaged": (None, _flipped(b"FRHP")),
    "newest_tree_damaged": (None, _flipped(b"BTHD")),
}
