"""Where archives come from: listing and reading, by URI scheme."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from rmsai_ray.archives import packs
from rmsai_ray.errors import ArchiveError, ConfigError, StorageError
from rmsai_ray.plugins import Registry
from rmsai_ray.storage import ObjectInfo, Store, is_s3, normalise_uri, split_object_uri

SUFFIXES = (".h5", ".hdf5")
INDEXES_IN_FLIGHT = 32
LARGEST_PACK_BYTES = 1 << 28
"""A larger one is no pack of ours, and is listed as the one object that it is."""


@dataclass(frozen=True, kw_only=True)
class ArchiveRef:
    """One archive of a listing; ``etag`` changes whenever its content may have changed."""

    uri: str
    key: str
    """The path below the listed URI."""
    size: int
    etag: str
    modified: datetime


class ArchiveSource(Protocol):
    """Lists the archives below one URI, and reads them whole."""

    def list_archives(self) -> Iterator[ArchiveRef]:
        """Every archive, in any order."""
        ...

    def read(self, uri: str) -> bytes:
        """All bytes of one archive, or of a whole pack.

        Raises:
            StorageError: it cannot be read.
        """
        ...


SOURCES: Registry[Callable[[str], ArchiveSource]] = Registry("archive source")
"""URI scheme → constructor from a URI, which raises ConfigError where there is nothing.

A plugin registers a scheme of its own.
"""


def open_source(uri: str) -> ArchiveSource:
    """The source for a URI: ``s3://…``, a folder, one archive, or a scheme that a plugin registered."""
    scheme, separator, _ = uri.partition("://")
    return SOURCES.get(scheme if separator else "file")(uri)


@SOURCES.register("file")
@SOURCES.register("s3")
class ObjectStoreSource:
    """Archives in a folder or under an S3 prefix, each an object of its own or a member of a pack.

    A URI that ends in ``.h5`` names one archive or one pack.
    """

    def __init__(self, uri: str) -> None:
        self._only = packs.archive_name(uri) if packs.is_member(uri) else None
        self._only_key: str | None = None
        uri = packs.object_uri(uri)
        if uri.endswith(SUFFIXES):
            uri, self._only_key = split_object_uri(uri)
        uri = normalise_uri(uri)
        if not is_s3(uri) and not Path(uri).is_dir():
            raise ConfigError("archives", uri, "is no folder", "Check the path.")
        self._store = Store(uri)
        self._indexes: dict[str, dict[str, packs.Member]] = {}

    def list_archives(self) -> Iterator[ArchiveRef]:
        """Every object whose name ends in ``.h5`` or ``.hdf5``, and every member of every pack.

        A pack whose index cannot be read is listed as one archive, which then cannot be read either.
        """
        found: list[ObjectInfo] = []
        for info in self._objects():
            if info.key.endswith(packs.SUFFIX) and info.size <= LARGEST_PACK_BYTES:
                found.append(info)
            else:
                yield self._ref(info, info.key, info.size, info.etag)
        for info, index in self._with_indexes(found):
            if index is None:
                yield self._ref(info, info.key, info.size, info.etag)
                continue
            for name, member in index.items():
                if self._only in (None, name):
                    yield self._ref(info, packs.member_uri(info.key, name), member.size, member.archive_id)

    def list_packs(self) -> Iterator[list[packs.Member]]:
        """The members of every pack whose index can be read."""
        found = [info for info in self._objects() if info.key.endswith(packs.SUFFIX)]
        for _, index in self._with_indexes(found):
            if index is not None:
                yield list(index.values())

    def _objects(self) -> Iterator[ObjectInfo]:
        for info in self._store.list():
            if info.key.endswith(SUFFIXES) and self._only_key in (None, info.key):
                yield info

    def _with_indexes(
        self, found: list[ObjectInfo]
    ) -> Iterator[tuple[ObjectInfo, dict[str, packs.Member] | None]]:
        """Packs with their indexes, None for one that cannot be read; many small GETs at a time."""
        with ThreadPoolExecutor(INDEXES_IN_FLIGHT) as pool:
            yield from zip(found, pool.map(self._index, found), strict=True)

    def read(self, uri: str) -> bytes:
        """All bytes of one object, or of one member of a pack, with one GET of the bytes that are needed.

        Raises:
            StorageError: it cannot be read, or the pack has no such member any more.
        """
        key = packs.object_uri(uri).removeprefix(self._store.uri + "/")
        if not packs.is_member(uri):
            return self._store.get(key)
        name = packs.archive_name(uri)
        try:
            if key not in self._indexes:
                self._indexes = {key: self._read_index(key, LARGEST_PACK_BYTES)}
            member = self._indexes[key][name]
        except (ArchiveError, KeyError) as error:
            raise StorageError(f"cannot read {uri}: the pack has no archive of that name") from error
        if not member.num_bytes:
            return b""
        content = self._store.get_range(key, member.start, member.num_bytes)
        if len(content) != member.num_bytes:
            raise StorageError(f"cannot read {uri}: {len(content)} of {member.num_bytes} bytes came")
        return content

    def _index(self, info: ObjectInfo) -> dict[str, packs.Member] | None:
        try:
            return self._read_index(info.key, info.size) if info.size else None
        except ArchiveError:
            return None

    def _read_index(self, key: str, pack_bytes: int) -> dict[str, packs.Member]:
        start = self._store.get_range(key, 0, packs.USUAL_INDEX_BYTES)
        needed = packs.index_bytes(start)
        if needed > len(start):
            start = self._store.get_range(key, 0, needed)
        return packs.read_index(start, pack_bytes)

    def _ref(self, info: ObjectInfo, key: str, size: int, etag: str) -> ArchiveRef:
        uri = self._store.child_uri(key)
        return ArchiveRef(uri=uri, key=key, size=size, etag=etag, modified=info.modified)
