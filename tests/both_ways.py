"""Reads archives directly and by the library, and insists on one answer; changes with what an answer is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass

import numpy as np

from rmsai_ray import ids
from rmsai_ray.archives import reader
from rmsai_ray.archives.reader import DEFAULTS, ReadOptions
from rmsai_ray.archives.records import Archive
from rmsai_ray.errors import ArchiveError


def read_archive(raw: bytes, uri: str, *, options: ReadOptions = DEFAULTS) -> Archive:
    """As :func:`rmsai_ray.archives.reader.read_archive`, once that and the library's answer are the same."""
    usual = _outcome(lambda: reader.read_archive(raw, uri, options=options))
    archive_id = ids.archive_id(raw)
    by_library = _outcome(lambda: reader.read_by_library(raw, uri, options=options, archive_id=archive_id))
    assert exactly(usual) == exactly(by_library)
    if isinstance(usual, ArchiveError):
        raise usual
    return usual


def exactly(value: object) -> object:
    """The value as something that is equal only where every bit, type and order is; but for the detour."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.flags.writeable, value.tobytes()
    if is_dataclass(value):
        names = [field.name for field in fields(value) if field.name != "detour"]
        return type(value).__name__, [(name, exactly(getattr(value, name))) for name in names]
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return np.array(value).tobytes(), len(value)  # a history
    if isinstance(value, dict):
        return [(name, exactly(item)) for name, item in value.items()]
    if isinstance(value, tuple | list):
        return type(value).__name__, [exactly(item) for item in value]
    if isinstance(value, ArchiveError):
        return value.reason, value.detail
    return repr(value)


def _outcome(read: Callable[[], Archive]) -> Archive | ArchiveError:
    try:
        return read()
    except ArchiveError as error:
        return error
