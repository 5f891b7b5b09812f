"""The pack: one object that holds many archives, and an index of them; changes with its layout.

A pack is an HDF5 file that any tool opens: a group per archive, in it a dataset per block (one lead of all
events of one shape). Before the HDF5 file lies a user block, which HDF5 skips, with the index: one small read
tells what a pack holds and where, and then no part of it needs HDF5 to be read. An archive's skeleton and
blocks lie together, so that its bytes are one slice of the pack.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from rmsai_ray.archives.packed import ARCHIVE_ID
from rmsai_ray.errors import ArchiveError

SUFFIX: Final = ".pack.h5"
SEPARATOR: Final = f"{SUFFIX}#"
MAGIC: Final = b"RMSAIPK1"
HEAD: Final = struct.Struct("<8s2Q")
"""Magic, bytes of the user block, bytes of the index in it."""
USUAL_INDEX_BYTES: Final = 1 << 14
"""A first read of so many bytes has nearly every index whole."""
LARGEST_INDEX_BYTES: Final = 1 << 26
LARGEST_OVERLAP: Final = 2
"""HDF5 may put a small archive into a gap of another; never as much again as the pack has bytes."""

_ERRORS = (AttributeError, KeyError, RecursionError, TypeError, ValueError, struct.error)
"""What comes of an index that is not one."""


class MisplacedError(Exception):
    """HDF5 put a small block of the named archive into a gap before its others: pack that one as it is."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One archive of a pack."""

    name: str
    """As it was named among the archives that were packed: ``sub/PT1234_2025-09.h5``."""
    archive_id: str
    """Of its bytes before they were packed."""
    size: int
    """Of its bytes before they were packed."""
    start: int
    """Where its bytes begin in the pack."""
    num_bytes: int
    etag: str
    """Of the object that was packed."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """An archive to be put into a pack: in its packed form, or as it is, without blocks."""

    name: str
    archive_id: str
    size: int
    etag: str
    blocks: list[tuple[str, npt.NDArray[Any]]]
    """(name, values)."""
    skeleton: Callable[[list[int]], bytes]
    """From the distances of the blocks from it, in order, to its bytes; always of one length."""


def archive_name(uri: str) -> str:
    """``s3://icu/a.pack.h5#sub/PT1.h5`` → ``sub/PT1.h5``; what is no member of a pack stays as it is."""
    return uri.partition(SEPARATOR)[2] or uri


def object_uri(uri: str) -> str:
    """``s3://icu/a.pack.h5#sub/PT1.h5`` → ``s3://icu/a.pack.h5``; what is no member stays as it is."""
    head, separator, _ = uri.partition(SEPARATOR)
    return head + SUFFIX if separator else uri


def is_member(uri: str) -> bool:
    """Whether the URI names an archive in a pack."""
    return SEPARATOR in uri


def member_uri(pack_uri: str, name: str) -> str:
    """The URI of one archive of a pack."""
    return f"{pack_uri}#{name}"


def index_bytes(start: bytes) -> int:
    """How many bytes of a pack hold its whole index, from its first bytes.

    Raises:
        ArchiveError: corrupt; it is no pack.
    """
    try:
        magic, block_bytes, num_bytes = HEAD.unpack_from(start)
    except struct.error as error:
        raise ArchiveError("corrupt", f"a pack of {len(start)} bytes") from error
    if magic != MAGIC or num_bytes > min(block_bytes - HEAD.size, LARGEST_INDEX_BYTES):
        raise ArchiveError("corrupt", f"no pack: it begins with {start[:8]!r}, or its index is too large")
    return int(HEAD.size + num_bytes)


def read_index(start: bytes, pack_bytes: int) -> dict[str, Member]:
    """The archives of a pack by name.

    Args:
        start: its first bytes, at least :func:`index_bytes`.
        pack_bytes: size of the whole pack.

    Raises:
        ArchiveError: corrupt.
    """
    end = index_bytes(start)
    try:
        _, block_bytes, _ = HEAD.unpack_from(start)
        rows = json.loads(start[HEAD.size : end])
        members = [_member(block_bytes, pack_bytes, *row) for row in rows]
    except _ERRORS as error:
        raise ArchiveError("corrupt", f"the index of a pack cannot be read: {error!r:.200}") from error
    found = {member.name: member for member in members}
    if len(found) < len(members):
        raise ArchiveError("corrupt", "two archives of a pack have the same name")
    if sum(member.num_bytes for member in members) > LARGEST_OVERLAP * pack_bytes:
        raise ArchiveError("corrupt", "the archives of a pack share bytes")  # many could be made of few
    return found


def build_pack(contents: Sequence[Content]) -> bytes:
    """The bytes of a pack. The same contents give the same bytes.

    Raises:
        MisplacedError: an archive of small blocks has to be packed as it is.
    """
    with h5py.File(
        "pack.h5",
        "w",
        driver="core",
        backing_store=False,
        libver="latest",
        alignment_threshold=1,
        alignment_interval=8,
    ) as file:
        rows = [_write(file.create_group(content.name), content) for content in contents]
        file.flush()
        image = bytes(file.id.get_file_image())
    index = json.dumps(rows, separators=(",", ":")).encode()
    block_bytes = 512
    while block_bytes < HEAD.size + len(index):
        block_bytes *= 2
    head = HEAD.pack(MAGIC, block_bytes, len(index)) + index
    return head.ljust(block_bytes, b"\0") + image


def _write(group: h5py.Group, content: Content) -> tuple[str, str, int, int, int, str]:
    """Writes one archive; its row of the index, with its place counted from the end of the user block."""
    group.attrs["archive_id"] = content.archive_id
    length = len(content.skeleton([0] * len(content.blocks)))
    skeleton = group.create_dataset("skeleton" if content.blocks else "archive", (length,), np.uint8)
    skeleton[:] = np.zeros(length, np.uint8)  # takes its place before the blocks do
    start = skeleton.id.get_offset() or 0  # none for an archive without bytes
    end, places = start + length, []
    for name, values in content.blocks:
        place = group.create_dataset(name, data=values).id.get_offset()
        if place < end:
            raise MisplacedError(content.name)
        places.append(place - start)
        end = place + values.nbytes
    skeleton[:] = np.frombuffer(content.skeleton(places), np.uint8)
    return content.name, content.archive_id, content.size, start, end - start, content.etag


def _member(
    block_bytes: int,
    pack_bytes: int,
    name: str,
    archive_id: str,
    size: int,
    start: int,
    num_bytes: int,
    etag: str,
) -> Member:
    """A row of the index, checked."""
    if not (name and name.isprintable() and ARCHIVE_ID.fullmatch(archive_id) and isinstance(etag, str)):
        raise ValueError(f"an archive named {name!r:.50} with the id {archive_id!r:.50}")
    if {type(size), type(start), type(num_bytes)} != {int} or min(size, start, num_bytes) < 0:
        raise ValueError(f"{name:.50} has no size or place")
    if block_bytes + start + num_bytes > pack_bytes:
        raise ValueError(f"{name:.50} lies outside of the pack")
    return Member(
        name=name,
        archive_id=archive_id,
        size=size,
        start=block_bytes + start,
        num_bytes=num_bytes,
        etag=etag,
    )
