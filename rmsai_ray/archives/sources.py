"""Where archives come from: listing and reading, by URI scheme."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from rmsai_ray.errors import ConfigError
from rmsai_ray.plugins import Registry
from rmsai_ray.storage import Store, is_s3, normalise_uri, split_object_uri

SUFFIXES = (".h5", ".hdf5")


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
        """All bytes of one archive.

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
    """Archives in a folder or under an S3 prefix; a URI that ends in ``.h5`` names one archive."""

    def __init__(self, uri: str) -> None:
        self._only: str | None = None
        if uri.endswith(SUFFIXES):
            uri, self._only = split_object_uri(uri)
        uri = normalise_uri(uri)
        if not is_s3(uri) and not Path(uri).is_dir():
            raise ConfigError("archives", uri, "is no folder", "Check the path.")
        self._store = Store(uri)

    def list_archives(self) -> Iterator[ArchiveRef]:
        """Every object whose name ends in ``.h5`` or ``.hdf5``."""
        for info in self._store.list():
            if info.key.endswith(SUFFIXES) and self._only in (None, info.key):
                yield ArchiveRef(
                    uri=self._store.child_uri(info.key),
                    key=info.key,
                    size=info.size,
                    etag=info.etag,
                    modified=info.modified,
                )

    def read(self, uri: str) -> bytes:
        """All bytes of one archive, with one GET."""
        return self._store.get(uri.removeprefix(self._store.uri + "/"))
