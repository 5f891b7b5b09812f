"""URI → object store: whole-object reads, atomic writes, listings. The only file that knows S3 from local.

Endpoint and credentials come from the environment alone: the ``AWS_*`` variables, or fsspec's
(``FSSPEC_S3_KEY``, ``FSSPEC_S3_SECRET``, ``FSSPEC_S3_ENDPOINT_URL``), or the machine's role.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import LocalStore, S3Store

from rmsai_ray.errors import ConfigError, DeniedError, StorageError
from rmsai_ray.scrubbing import has_credentials, scrub

RETRY: Any = {
    "max_retries": 6,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
    "retry_timeout": timedelta(seconds=60),
}
"""Capped exponential backoff with jitter, for 5xx answers, connection errors and time-outs of reads."""

WRITING: Any = {"timeout": timedelta(seconds=60), "connect_timeout": timedelta(seconds=10)}
READING: Any = {
    "read_timeout": timedelta(seconds=5),
    "timeout": timedelta(seconds=300),
    "connect_timeout": timedelta(seconds=5),
}
"""A read is tried again when nothing has come for five seconds, however large the object is. A write may be
silent for as long as its body takes, so it has one limit for the whole."""

DENIED = (PermissionDeniedError, UnauthenticatedError, PermissionError)
"""What the client raises where an object may not be read; it does not try those again."""

SHORT_BODIES = 3
"""Reads of an object whose body is not as long as the object."""

BROKEN_BODY = "request or response body error"
"""What the client says of a body that breaks off, where it does not resume it by itself."""


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One row of a listing. ``etag`` changes whenever the content may have changed."""

    key: str
    size: int
    etag: str
    modified: datetime


class Store:
    """The objects below one URI: a folder, or ``s3://bucket/prefix``.

    Pickles by its URI, so that a worker builds a client of its own.
    """

    def __init__(self, uri: str) -> None:
        self.uri = normalise_uri(uri)
        self._store = _open(self.uri, WRITING)
        self._reader = _open(self.uri, READING)

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.uri,)

    def child_uri(self, key: str) -> str:
        """The URI of one object or folder below this store."""
        return f"{self.uri}/{key}"

    def get(self, key: str) -> bytes:
        """The whole object, with one GET.

        Raises:
            StorageError: not there, not allowed, or still failing after the retries.
        """
        return self._get(key)[0]

    def _get(self, key: str) -> tuple[bytes, str]:
        """An object and its etag."""
        for left in reversed(range(SHORT_BODIES)):
            try:
                answer = obstore.get(self._reader, key)
                content = bytes(answer.bytes())
            except (BaseError, OSError) as error:
                if left and BROKEN_BODY in str(error):
                    continue
                raise _unreadable(self.child_uri(key), error) from error
            if len(content) == answer.meta["size"]:
                return content, _etag(answer.meta)
        raise StorageError(
            f"cannot read {self.child_uri(key)}: {len(content)} of {answer.meta['size']} bytes came"
        )

    def get_range(self, key: str, start: int, num_bytes: int) -> bytes:
        """A part of an object, with one GET; fewer bytes where the object ends before.

        Raises:
            StorageError: as :meth:`get`; and the object ends before the part begins.
        """
        try:
            return bytes(obstore.get_range(self._reader, key, start=start, length=num_bytes))
        except (BaseError, OSError) as error:
            raise _unreadable(self.child_uri(key), error) from error

    def find(self, key: str) -> bytes | None:
        """The whole object, or None where there is none."""
        return self.find_version(key)[0]

    def find_version(self, key: str) -> tuple[bytes | None, str]:
        """The whole object and the etag for :meth:`replace`; (None, "") where there is none."""
        try:
            return self._get(key)
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None, ""
            raise

    def put(self, key: str, content: bytes) -> None:
        """Writes one object atomically, over whatever was there."""
        try:
            obstore.put(self._store, key, content)
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot write {self.child_uri(key)}: {_reason(error)}") from error

    def create(self, key: str, content: bytes) -> bool:
        """Writes one object atomically unless it exists; False where another writer was first."""
        try:
            obstore.put(self._store, key, content, mode="create", use_multipart=False)
        except AlreadyExistsError:
            # A retried request may meet its own first try: equal content is our write.
            return self.find(key) == content
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot write {self.child_uri(key)}: {_reason(error)}") from error
        return True

    def replace(self, key: str, content: bytes, etag: str) -> str | None:
        """Writes one object atomically over the version that was read, or where there was none (etag ``""``).

        Returns its new etag; None where another writer was faster, and nothing was written. In a folder the
        comparison and the write are two steps: there, processes exclude each other by the lake's lease alone.
        """
        try:
            if isinstance(self._store, LocalStore):
                if self.find_version(key)[1] != etag:
                    return None
                answer = obstore.put(self._store, key, content)
            else:
                mode: Any = {"e_tag": f'"{etag}"'} if etag else "create"
                answer = obstore.put(self._store, key, content, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            # A retried request may meet its own first try: equal content is our write.
            there, its_etag = self.find_version(key)
            return its_etag if there == content else None
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot write {self.child_uri(key)}: {_reason(error)}") from error
        return _etag(answer)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object below the folder ``prefix``, in no particular order; nothing where it is empty."""
        last: str | None = None
        attempts = left = SHORT_BODIES if is_s3(self.uri) else 1
        while True:
            try:
                for chunk in obstore.list(self._store, prefix or None, offset=last, chunk_size=1000):
                    for meta in chunk:
                        last, left = meta["path"], attempts
                        yield ObjectInfo(
                            key=meta["path"],
                            size=meta["size"],
                            etag=_etag(meta),
                            modified=meta["last_modified"],
                        )
                return
            except FileNotFoundError:
                return
            except (BaseError, OSError) as error:
                left -= 1  # the client does not ask again for a page that broke off; S3 lists in order
                if left == 0:
                    raise StorageError(f"cannot list {self.child_uri(prefix)}: {_reason(error)}") from error

    def delete(self, keys: Iterable[str]) -> None:
        """Removes objects; one that is not there is no error."""
        for key in keys:
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError:
                continue
            except (BaseError, OSError) as error:
                raise StorageError(f"cannot delete {self.child_uri(key)}: {_reason(error)}") from error


def normalise_uri(uri: str) -> str:
    """An absolute path without trailing slash for local URIs, ``s3://bucket/prefix`` for S3.

    Raises:
        ConfigError: any other scheme, or credentials in the URI, which end in tables and logs.
    """
    if has_credentials(uri):
        fix = "Take them out, and give them as AWS_* variables of the environment."
        raise ConfigError("uri", uri, "carries credentials", fix)
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return str(Path(uri).expanduser().absolute())
    if scheme == "file":
        return str(Path("/" + rest.lstrip("/")))
    if scheme == "s3" and rest.strip("/"):
        return f"s3://{rest.strip('/')}"
    raise ConfigError("uri", uri, "is neither a folder nor s3://bucket/prefix", "Use one of the two.")


def split_object_uri(uri: str) -> tuple[str, str]:
    """``s3://bucket/a/b.h5`` → (``s3://bucket/a``, ``b.h5``)."""
    folder, _, name = normalise_uri(uri).rpartition("/")
    return folder or "/", name


def is_s3(uri: str) -> bool:
    """Whether the URI lies on S3."""
    return uri.startswith("s3://")


@dataclass(frozen=True)
class S3Options:
    """Endpoint and credentials from the environment; None leaves the choice to the client's own chain."""

    endpoint_url: str | None
    access_key: str | None
    secret_key: str | None = field(repr=False)
    session_token: str | None = field(repr=False)
    region: str

    @staticmethod
    def from_environment() -> S3Options:
        """The ``AWS_*`` variables, then fsspec's.

        Raises:
            ConfigError: credentials in the endpoint's URL, which messages show.
        """

        def first(*names: str) -> str | None:
            return next((os.environ[name] for name in names if os.environ.get(name)), None)

        endpoint_url = first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "FSSPEC_S3_ENDPOINT_URL")
        if has_credentials(endpoint_url or ""):
            fix = "Give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            raise ConfigError("AWS_ENDPOINT_URL", endpoint_url, "carries credentials", fix)
        return S3Options(
            endpoint_url=endpoint_url,
            access_key=first("AWS_ACCESS_KEY_ID", "FSSPEC_S3_KEY"),
            secret_key=first("AWS_SECRET_ACCESS_KEY", "FSSPEC_S3_SECRET"),
            session_token=first("AWS_SESSION_TOKEN", "FSSPEC_S3_TOKEN"),
            region=first("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1",
        )

    @property
    def is_plain_http(self) -> bool:
        """Whether the endpoint is named with http://, which allows it."""
        return (self.endpoint_url or "").startswith("http://")


def arrow_filesystem(uri: str) -> tuple[Any, str]:
    """(pyarrow filesystem, path inside it) of a URI, for reading Parquet datasets."""
    import pyarrow.fs as pafs

    uri = normalise_uri(uri)
    if not is_s3(uri):
        return pafs.LocalFileSystem(), uri
    options = S3Options.from_environment()
    endpoint = (options.endpoint_url or "").partition("://")[2] or None
    filesystem = pafs.S3FileSystem(
        access_key=options.access_key,
        secret_key=options.secret_key,
        session_token=options.session_token,
        region=options.region,
        endpoint_override=endpoint,
        scheme="http" if options.is_plain_http else "https",
    )
    return filesystem, uri.removeprefix("s3://")


def lance_options(uri: str) -> dict[str, str] | None:
    """Lance's and LanceDB's ``storage_options`` for a URI; None for local ones."""
    if not is_s3(uri):
        return None
    options = S3Options.from_environment()
    named = {
        "aws_access_key_id": options.access_key,
        "aws_secret_access_key": options.secret_key,
        "aws_session_token": options.session_token,
        "aws_endpoint": options.endpoint_url,
        "aws_region": options.region,
        "allow_http": "true" if options.is_plain_http else None,
    }
    return {name: value for name, value in named.items() if value is not None}


def _open(uri: str, client_options: Any) -> LocalStore | S3Store:
    if not is_s3(uri):
        return LocalStore(uri, mkdir=True)
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    options = S3Options.from_environment()
    named = {
        "endpoint": options.endpoint_url,
        "access_key_id": options.access_key,
        "secret_access_key": options.secret_key,
        "session_token": options.session_token,
        "region": options.region,
    }
    given: Any = {name: value for name, value in named.items() if value is not None}
    client: Any = {**client_options, "allow_http": options.is_plain_http}
    try:
        return S3Store(bucket, prefix=prefix or None, client_options=client, retry_config=RETRY, **given)
    except BaseError as error:
        fix = "Check the AWS_* variables of the environment."
        raise ConfigError("uri", uri, _reason(error), fix) from error


def _etag(meta: Any) -> str:
    return (meta["e_tag"] or "").strip('"')


def _unreadable(uri: str, error: Exception) -> StorageError:
    kind = DeniedError if isinstance(error, DENIED) else StorageError
    return kind(f"cannot read {uri}: {_reason(error)}")


def _reason(error: Exception) -> str:
    """The first line of an obstore error; the rest is the client's debug output."""
    return scrub(f"{type(error).__name__}: {str(error).splitlines()[0][:300]}")


def replace_folder(new: Path, target: Path) -> None:
    """Renames a finished folder to its place; what was there goes last, so that a crash loses neither."""
    old = new.with_name(f"{new.name}.old")
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
