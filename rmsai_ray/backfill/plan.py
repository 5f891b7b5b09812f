"""The plan: list the archives, subtract what the lake holds, pack the rest into units."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rmsai_ray import ids
from rmsai_ray.archives.sources import ArchiveRef, open_source
from rmsai_ray.backfill.config import MEBIBYTE, BackfillConfig
from rmsai_ray.tables.manifest import LISTING

MIN_UNIT_BYTES = 2 * MEBIBYTE
MAX_UNIT_BYTES = 64 * MEBIBYTE
UNITS_PER_WORKER = 8
"""Small enough that the ends of the stages cost little, large enough that parts and fragments are few."""

PERIOD_IN_NAME = re.compile(r"_(\d{4}-\d{2})\.")


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Archives that are read, encoded and committed together."""

    unit_id: str
    archives: list[dict[str, Any]]
    """Rows of the difference between listing and manifest."""

    @property
    def num_bytes(self) -> int:
        """Archive bytes."""
        return sum(archive["size"] for archive in self.archives)


def list_archives(config: BackfillConfig) -> pa.Table:
    """Every archive that the filters let through, as rows of the manifest's listing."""
    source = open_source(config.archives)
    found = [ref for ref in source.list_archives() if _is_wanted(ref, config)]
    return pa.table(
        {
            "uri": [ref.uri for ref in found],
            "size": [ref.size for ref in found],
            "etag": [ref.etag for ref in found],
            "modified_time": [ref.modified for ref in found],
        },
        schema=LISTING,
    )


def pack_units(todo: pa.Table, *, run_id: str, unit_bytes: int, max_archive_bytes: int) -> Iterator[Unit]:
    """Archives of one period lie together; a unit closes before it would grow beyond ``unit_bytes``."""
    waiting: list[dict[str, Any]] = []
    num_bytes = 0
    for archive in sorted(todo.to_pylist(), key=lambda row: (period_in_name(row["uri"]), row["uri"])):
        size = archive["size"] if archive["size"] <= max_archive_bytes else 0  # never fetched
        if waiting and num_bytes + size > unit_bytes:
            yield _unit(run_id, waiting)
            waiting, num_bytes = [], 0
        waiting.append(archive)
        num_bytes += size
    if waiting:
        yield _unit(run_id, waiting)


def choose_unit_bytes(total_bytes: int, num_workers: int) -> int:
    """Bytes per unit that give every worker a number of units, within bounds."""
    return max(MIN_UNIT_BYTES, min(MAX_UNIT_BYTES, total_bytes // (UNITS_PER_WORKER * num_workers)))


def period_in_name(uri: str) -> str:
    """``…/PT1234_2026-10.h5`` → ``2026-10``; "" without one."""
    found = PERIOD_IN_NAME.search(uri.rpartition("/")[2])
    return found[1] if found else ""


def _unit(run_id: str, archives: list[dict[str, Any]]) -> Unit:
    return Unit(unit_id=ids.digest([run_id, *_inputs(archives)]), archives=archives)


def _inputs(archives: Iterable[dict[str, Any]]) -> Iterator[str]:
    """What names a unit: its inputs, and what they replace, so that a unit never meets its own successor."""
    for archive in archives:
        yield from (archive["uri"], str(archive["size"]), archive["etag"], archive["replaces"])


def _is_wanted(ref: ArchiveRef, config: BackfillConfig) -> bool:
    day = ref.modified.date()
    return (
        ref.key.startswith(config.prefix)
        and (not config.period or period_in_name(ref.uri) == config.period)
        and (config.since is None or day >= config.since)
        and (config.until is None or day <= config.until)
    )
