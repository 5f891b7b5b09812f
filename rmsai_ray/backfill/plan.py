"""The plan: list the archives, subtract what the lake holds, pack the rest into units."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rmsai_ray import ids
from rmsai_ray.archives.limits import MEBIBYTE
from rmsai_ray.archives.packs import object_uri
from rmsai_ray.archives.pseudonyms import Door
from rmsai_ray.archives.sources import ArchiveRef, open_source
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.runs import now
from rmsai_ray.tables.manifest import LISTING

MIN_UNIT_BYTES = 2 * MEBIBYTE
MAX_UNIT_BYTES = 256 * MEBIBYTE
UNITS_PER_WORKER = 2
"""That what is left would be cut into. Units shrink towards the end, where a large one would keep a single
worker busy; large ones before it make parts and fragments few."""

LISTED_AT_ONCE = 20_000
"""Archives of a listing that are Python objects at a time: a million of them would fill a gigabyte."""

WATCHED_SETTLE_S = 2.0
"""How long a file must have been left alone while archives are watched."""

OPEN = Door(None)
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
    wanted = (ref for ref in open_source(config.archives).list_archives() if _is_wanted(ref, config))
    pages = iter(lambda: list(islice(wanted, LISTED_AT_ONCE)), [])
    return pa.concat_tables([LISTING.empty_table(), *map(_as_listing, pages)])


def name_archives(listing: pa.Table, door: Door) -> pa.Table:
    """The listing under the names of inside. Where those are others, ``source_uri`` is where to read."""
    if not door.is_closed:
        return listing
    uris = listing["uri"].to_pylist()
    columns = {
        "uri": [door.uri(uri) for uri in uris],
        "size": listing["size"],
        "etag": [door.etag(etag) for etag in listing["etag"].to_pylist()],
        "modified_time": list(map(door.modified, uris, listing["modified_time"].to_pylist())),
    }
    return pa.table(columns, schema=LISTING).append_column("source_uri", listing["uri"])


def with_sources(todo: pa.Table, listing: pa.Table) -> pa.Table:
    """Adds to what is to be done where to read it, as far as the listing has other names."""
    if "source_uri" not in listing.column_names:
        return todo
    places = pc.index_in(todo["uri"], value_set=listing["uri"].combine_chunks())
    return todo.append_column("source_uri", listing["source_uri"].take(places))


def source_of(archive: dict[str, Any]) -> str:
    """Where an archive of the plan is read."""
    return str(archive.get("source_uri") or archive["uri"])


def _as_listing(found: Sequence[ArchiveRef]) -> pa.Table:
    columns = {
        "uri": [ref.uri for ref in found],
        "size": [ref.size for ref in found],
        "etag": [ref.etag for ref in found],
        "modified_time": [ref.modified for ref in found],
    }
    return pa.table(columns, schema=LISTING)


def pack_units(
    todo: pa.Table,
    *,
    run_id: str,
    unit_bytes: Callable[[int], int],
    max_archive_bytes: int,
    door: Door = OPEN,
    epoch: int = 0,
) -> Iterator[Unit]:
    """Archives of one period lie together, and those of one pack, which comes whole; a unit closes before it
    would outgrow its share of the rest.

    Args:
        todo: what is to be done.
        run_id: goes into the units' ids.
        unit_bytes: from the bytes that no unit holds yet to the most that the next unit may hold.
        max_archive_bytes: larger archives are not fetched, and count as nothing.
        door: through which they will go; it moves months.
        epoch: of the driver's lease; goes into the units' ids, so that a worker that outlives its driver
            never writes where one of the next driver does.
    """
    by_uri = sorted(todo.to_pylist(), key=lambda row: row["uri"])
    objects = [list(rows) for _, rows in groupby(by_uri, lambda row: object_uri(row["uri"]))]
    objects.sort(key=lambda rows: _period(source_of(rows[0]), door))  # stable: by URI inside a period
    sizes = [sum(row["size"] for row in rows if row["size"] <= max_archive_bytes) for rows in objects]
    waiting: list[dict[str, Any]] = []
    left, num_bytes = sum(sizes), 0
    most = unit_bytes(left)
    for archives, size in zip(objects, sizes, strict=True):
        if waiting and num_bytes + size > most:
            yield _unit(run_id, epoch, waiting)
            left -= num_bytes
            waiting, num_bytes, most = [], 0, unit_bytes(left)
        waiting += archives
        num_bytes += size
    if waiting:
        yield _unit(run_id, epoch, waiting)


def choose_unit_bytes(left_bytes: int, num_workers: int) -> int:
    """Bytes of the next unit: a part of what is left, within bounds, so that all workers end together."""
    return max(MIN_UNIT_BYTES, min(MAX_UNIT_BYTES, left_bytes // (UNITS_PER_WORKER * num_workers)))


def period_in_name(uri: str) -> str:
    """``…/PT1234_2026-10.h5`` → ``2026-10``; "" without one."""
    found = PERIOD_IN_NAME.search(uri.rpartition("/")[2])
    return found[1] if found else ""


def _period(uri: str, door: Door) -> str:
    return door.period_in_name(period_in_name(uri), uri)


def _unit(run_id: str, epoch: int, archives: list[dict[str, Any]]) -> Unit:
    archives.sort(key=lambda row: row["uri"])  # of two copies the first name counts, as it does in a fold
    return Unit(unit_id=ids.digest([run_id, str(epoch), *_inputs(archives)]), archives=archives)


def _inputs(archives: Iterable[dict[str, Any]]) -> Iterator[str]:
    """What names a unit: its inputs, and what they replace, so that a unit never meets its own successor."""
    for archive in archives:
        yield from (archive["uri"], str(archive["size"]), archive["etag"], archive["replaces"])


def _is_wanted(ref: ArchiveRef, config: BackfillConfig) -> bool:
    day = ref.modified.date()
    return _is_settled(ref, config) and (
        ref.key.startswith(config.prefix)
        and (not config.period or period_in_name(ref.uri) == config.period)
        and (config.since is None or day >= config.since)
        and (config.until is None or day <= config.until)
    )


def _is_settled(ref: ArchiveRef, config: BackfillConfig) -> bool:
    """Whether nobody may be writing an archive any more; clocks may differ by the time that is waited."""
    seconds = config.settle_s
    if seconds is None:
        seconds = WATCHED_SETTLE_S if config.watch is not None else 0.0
    return abs(now() - ref.modified).total_seconds() >= seconds
