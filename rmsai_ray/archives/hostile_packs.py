"""Hostile packed archives and packs; changes when another way to do harm with them turns up."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from rmsai_ray.archives import packs
from rmsai_ray.archives.hostile_hdf5 import Kinds, Make, plain
from rmsai_ray.archives.packed import LENGTHS, MAGIC, padded
from rmsai_ray.archives.packing import content_of, pack_archive

NAME: Final = "PT9499_2026-10.h5"
Parts = list[bytes]
"""Header, shapes, numbers, ends and texts; then whatever follows."""


@cache
def _parts() -> tuple[bytes, ...]:
    raw = pack_archive(plain(), NAME).joined()
    lengths = LENGTHS.unpack_from(raw, len(MAGIC))
    start, parts = len(MAGIC) + LENGTHS.size, []
    for length in lengths:
        parts.append(raw[start : start + length])
        start += padded(length)
    return (*parts, raw[start:])


def packed(change: Callable[[Parts], object]) -> Make:
    """A packed archive with other parts."""

    def make() -> bytes:
        parts = list(_parts())
        change(parts)
        *skeleton, blocks = parts
        lengths = LENGTHS.pack(*map(len, skeleton))
        return MAGIC + lengths + b"".join(each.ljust(padded(len(each)), b"\0") for each in skeleton) + blocks

    return make


def header(**values: Any) -> Make:
    """A packed archive whose header says something else."""

    def change(parts: Parts) -> None:
        parts[0] = json.dumps(json.loads(parts[0]) | values).encode()

    return packed(change)


def items(change: Callable[[list[Any]], object]) -> Make:
    """A packed archive with other items in all of its shapes."""

    def do(parts: Parts) -> None:
        head, shapes, start = json.loads(parts[0]), [], 0
        for length in head["shapes"]:
            shape = json.loads(parts[1][start : start + length])
            start += length
            for item in shape:
                change(item)
            shapes.append(json.dumps(shape).encode())
        parts[0] = json.dumps(head | {"shapes": [len(shape) for shape in shapes]}).encode()
        parts[1] = b"".join(shapes)

    return packed(do)


def set_item(place: int, value: Any, where: Callable[[list[Any]], bool]) -> Make:
    """Another value in a place of some items: path, attribute, type, dims, layout."""
    return items(lambda item: item.__setitem__(place, value) if where(item) else None)


def _is_lead(item: list[Any]) -> bool:
    return bool(item[3]) and "ecg/" in item[0]


def _rest_bomb(parts: Parts) -> None:
    """Texts that all begin at the start of one that is long."""
    long = b'{"x":[' + b"{}," * 300_000 + b"{}]}"
    ends = list(struct.unpack(f"<{len(parts[3]) // 8}q", parts[3]))
    count = sum(1 for end in ends if end <= len(parts[4]))
    parts[3] = struct.pack(f"<{len(ends)}q", *[len(long) * (i % 2) for i in range(count)], *ends[count:])
    parts[4] = long


def _ends_backwards(parts: Parts) -> None:
    ends = struct.unpack(f"<{len(parts[3]) // 8}q", parts[3])
    parts[3] = struct.pack(f"<{len(ends)}q", *(-end for end in ends))


def _rows(name: str) -> Make:
    rows = json.loads(_parts()[0])["rows"]
    return lambda: header(rows=[[name if row[0].startswith("event_") else row[0], row[1]] for row in rows])()


PACKED: Final[Kinds] = {
    "packed_header_deep": ("corrupt", packed(lambda parts: parts.__setitem__(0, b"[" * 1_000_000))),
    "packed_header_long": (
        "corrupt",
        packed(lambda parts: parts.__setitem__(0, b"[" + b"{}," * 3_000_000 + b"{}]")),
    ),
    "packed_header_is_a_list": ("corrupt", packed(lambda parts: parts.__setitem__(0, b"[1, 2]"))),
    "packed_id_of_another_kind": ("corrupt", header(archive_id="../../owned")),
    "packed_rows_many": ("corrupt", header(rows=[["", 0], *([f"event_{n}", 1] for n in range(30_000))])),
    "packed_rows_of_no_shape": ("corrupt", header(rows=[["", 99]])),
    "packed_name_of_surrogates": ("corrupt", lambda: _rows("event_\ud800")()),
    "packed_name_with_a_path": ("no_events", lambda: _rows("../../event_1")()),
    "packed_type_of_objects": ("corrupt", set_item(2, "|O", _is_lead)),
    "packed_type_of_many": ("corrupt", set_item(2, "f8,f8,(1000000,)f8", _is_lead)),
    "packed_dims_negative": ("corrupt", set_item(3, [-2400], _is_lead)),
    "packed_dims_huge": ("corrupt", set_item(3, [1 << 40, 1 << 40], _is_lead)),
    "packed_layout_odd": ("corrupt", set_item(4, 7, lambda item: True)),
    "packed_texts_shared": ("corrupt", packed(_rest_bomb)),
    "packed_texts_backwards": ("corrupt", packed(_ends_backwards)),
    "packed_cut": ("corrupt", lambda: packed(lambda parts: None)()[:2000]),
    "packed_magic_only": ("corrupt", lambda: MAGIC),
}


def pack(change: Callable[[list[Any]], list[Any]]) -> Make:
    """A pack with another index."""

    def make() -> bytes:
        raw = packs.build_pack([content_of(NAME, plain(), "etag")[0]])
        end = packs.index_bytes(raw)
        rows = change(json.loads(raw[packs.HEAD.size : end]))
        index = json.dumps(rows).encode()
        _, block, _ = packs.HEAD.unpack_from(raw)
        room = block
        while room < packs.HEAD.size + len(index):
            room *= 2
        return (packs.HEAD.pack(packs.MAGIC, room, len(index)) + index).ljust(room, b"\0") + raw[block:]

    return make


def _renamed(*names: str) -> Callable[[list[Any]], list[Any]]:
    return lambda rows: [[name, *rows[0][1:]] for name in names]


def _index(index: bytes) -> Make:
    return lambda: packs.HEAD.pack(packs.MAGIC, 1 << 20, len(index)) + index.ljust(1 << 20, b"\0")


PACKS: Final[Kinds] = {
    "pack_member_with_a_path": (None, pack(_renamed("../../../../tmp/PT1_2026-10.h5"))),
    "pack_member_of_sql": (None, pack(_renamed("PT'; DROP TABLE windows; --_2026-10.h5"))),
    "pack_member_with_escapes": ("corrupt", pack(_renamed("PT\x1b[2J\n_2026-10.h5"))),
    "pack_members_that_overlap": ("corrupt", pack(_renamed(*(f"PT{n}_2026-10.h5" for n in range(2000))))),
    "pack_members_of_one_name": ("corrupt", pack(_renamed(NAME, NAME))),
    "pack_member_elsewhere": ("corrupt", pack(lambda rows: [[*rows[0][:3], 1 << 60, *rows[0][4:]]])),
    "pack_member_negative": ("corrupt", pack(lambda rows: [[*rows[0][:3], -1, *rows[0][4:]]])),
    "pack_index_deep": ("corrupt", _index(b"[" * 500_000)),
    "pack_index_long": ("corrupt", _index(b"[" + b"{}," * 300_000 + b"{}]")),
    "pack_index_cut": ("corrupt", lambda: packs.HEAD.pack(packs.MAGIC, 1 << 62, 1 << 61)),
}
