"""Free space of the disk that a lake lies on: enough before a run, and some left while it works.

An object store has no end, and is not asked.
"""

from __future__ import annotations

import shutil

from rmsai_ray.errors import LakeError
from rmsai_ray.storage import Store, is_s3

KEPT_PER_BYTE = 0.35
"""Bytes of tables per byte of archives, at most: measured 0.2 to 0.3, before compaction."""


def check_space(lake: Store, *, todo_bytes: int, min_free_bytes: int) -> None:
    """To be called before a run, with the archive bytes that are to be done.

    Raises:
        LakeError: the disk has less than that will take; says how much.
    """
    needed = round(KEPT_PER_BYTE * todo_bytes) + min_free_bytes
    free = _free_bytes(lake)
    if min_free_bytes and free is not None and free < needed:
        tables = needed - min_free_bytes
        raise LakeError(
            f"{lake.uri} has {_mib(free)} free and needs about {_mib(needed)}: {_mib(tables)} for "
            f"{_mib(todo_bytes)} of archives, and {_mib(min_free_bytes)} to stay free. Make room, or do a "
            "part of the archives (--prefix, --period); --min-free-bytes 0 tries all the same."
        )


def check_space_left(lake: Store, *, min_free_bytes: int) -> None:
    """To be called while a run works, after each unit.

    Raises:
        LakeError: the disk is nearly full.
    """
    free = _free_bytes(lake)
    if min_free_bytes and free is not None and free < min_free_bytes:
        raise LakeError(
            f"{lake.uri} has {_mib(free)} left, less than the {_mib(min_free_bytes)} that are to stay free. "
            "Finished units are kept; once there is room, the same command goes on from here."
        )


def _free_bytes(lake: Store) -> int | None:
    return None if is_s3(lake.uri) else shutil.disk_usage(lake.uri).free


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"
