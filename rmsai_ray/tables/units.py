"""Commits units: writes in an order that leaves nothing or a finished unit, and settles them by a fold."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rmsai_ray.storage import Store
from rmsai_ray.tables import ledger, parts
from rmsai_ray.tables.blocks import UnitTables
from rmsai_ray.tables.layout import load_layout
from rmsai_ray.tables.lease import Confirm
from rmsai_ray.tables.ledger import LedgerEntry
from rmsai_ray.tables.manifest import Fold, Manifest, fold, load_manifest, save_manifest
from rmsai_ray.tables.vectors import VectorTable


def write_unit(
    store: Store,
    vectors: VectorTable,
    unit: UnitTables,
    *,
    run_id: str,
    model_id: str,
    epoch: int = 0,
    before_record: Callable[[LedgerEntry], None] | None = None,
) -> LedgerEntry:
    """Parquet parts, then a Lance fragment that nobody sees yet, then the ledger entry.

    A crash before the last write leaves parts that the next plan removes. A unit that another worker
    finished first stays as that one left it. ``before_record`` is called with the entry before it is written.
    """
    started = time.perf_counter()
    sizes: dict[str, int] = {}
    rows: dict[str, int] = {}
    for key, table in _split(unit, model_id):
        sizes[key] = parts.write_part(store, key, table)
        rows[key] = table.num_rows
    fragments = vectors.write_fragments(unit.windows)
    in_lance = sum(file["file_size_bytes"] for fragment in fragments for file in fragment["files"])
    entry = LedgerEntry(
        unit_id=unit.unit_id,
        run_id=run_id,
        model_id=model_id,
        epoch=epoch,
        archives=unit.archives,
        parts=rows,
        fragments=fragments,
        seconds={**unit.seconds, "write": time.perf_counter() - started},
        num_bytes={**unit.num_bytes, "parquet": sum(sizes.values()), "lance": in_lance},
    )
    if before_record:
        before_record(entry)
    ledger.record(store, entry)
    return entry


def settle(store: Store, vectors: VectorTable, model_id: str, confirm: Confirm = lambda: None) -> Manifest:
    """Makes every finished unit visible: for the driver alone, while no worker writes.

    Copies and replaced rows go first, then LanceDB, then the manifest as the mark of completion, then the
    ledger entries that it now holds. Each step can be done again, and must be before anything new is planned:
    what a fold decides must not change between its first try and the one that completes it, which another
    run may make.

    ``confirm`` is called before each step. What happens between it and the step, e.g. this machine sleeps and
    another run takes the lake, the step itself notices, and writes nothing: parts, LanceDB and the manifest
    are each changed only as they were read.

    Raises:
        LakeError: another run took the lake.
    """
    manifest = load_manifest(store, model_id)
    waiting = ledger.unit_ids(store, model_id)
    entries = _finished(store, model_id, waiting, manifest)
    if waiting:
        confirm()
    ledger.remove(store, model_id, waiting - {entry.unit_id for entry in entries})
    if not entries:
        return manifest
    result = fold(manifest, entries, entries[0].run_id)
    entries = _evict_new(store, vectors, entries, result)
    _evict_old(store, vectors, model_id, result)
    confirm()
    vectors.publish({entry.unit_id: entry.fragments for entry in entries})
    confirm()
    save_manifest(store, model_id, result.manifest)
    ledger.remove(store, model_id, result.manifest.folded_units)
    return result.manifest


def preview(store: Store, model_id: str) -> Manifest:
    """The manifest as :func:`settle` would leave it; nothing is written."""
    manifest = load_manifest(store, model_id)
    entries = _finished(store, model_id, ledger.unit_ids(store, model_id), manifest)
    return fold(manifest, entries, entries[0].run_id).manifest if entries else manifest


def _finished(store: Store, model_id: str, waiting: set[str], manifest: Manifest) -> list[LedgerEntry]:
    """The entries that are to be folded, all of one epoch.

    Not those of the last fold, nor of any earlier one that left rows. Nor what a worker wrote that outlived
    its driver, after the next run had planned its archives anew: entries of any epoch but the latest, which
    began with a fold of all that were there, and entries whose parts that run has removed.
    """
    fresh = waiting - manifest.folded_units - manifest.unit_ids
    if not fresh:
        return []
    there = parts.list_parts(store, model_id)
    whole = [entry for entry in ledger.read_entries(store, model_id, fresh) if entry.filled_parts <= there]
    latest = max((entry.epoch for entry in whole), default=None)
    return [entry for entry in whole if entry.epoch == latest]


def _split(unit: UnitTables, model_id: str) -> Iterable[tuple[str, pa.Table]]:
    """(part key, rows) of every part of a unit; archives of one period share a part."""
    period_of = {row["archive_id"]: row["period"] for row in unit.archives if row["status"] == "committed"}
    for name, table in (("windows", unit.windows), ("events", unit.events)):
        archives = table["archive_id"].combine_chunks().dictionary_encode()
        periods = pa.array([period_of[archive] for archive in archives.dictionary.to_pylist()], pa.string())
        period_N = periods.take(archives.indices)
        present = period_N.unique().to_pylist()
        for period in present:
            rows = table if len(present) == 1 else table.filter(pc.equal(period_N, period))
            yield parts.part_key(name, model_id, unit.unit_id, period), rows
    if unit.rejects.num_rows:
        yield parts.part_key("rejects", model_id, unit.unit_id), unit.rejects


def _evict_new(
    store: Store, vectors: VectorTable, entries: list[LedgerEntry], result: Fold
) -> list[LedgerEntry]:
    """Drops the rows of archives that turned out to be copies from units that are not folded yet."""
    evicted: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in result.evictions.to_pylist():
        if row["is_new"]:
            evicted[row["unit_id"]].append(row)
    return [
        _shrink(store, vectors, entry, evicted[entry.unit_id]) if entry.unit_id in evicted else entry
        for entry in entries
    ]


def _shrink(
    store: Store, vectors: VectorTable, entry: LedgerEntry, evicted: list[dict[str, Any]]
) -> LedgerEntry:
    left = {key: _drop(store, key, evicted) for key in entry.parts}
    windows = [table for key, table in left.items() if table is not None and key.startswith("windows/")]
    shrunk = entry.without(
        {row["uri"] for row in evicted},
        parts={key: table.num_rows for key, table in left.items() if table is not None},
        fragments=vectors.write_fragments(pa.concat_tables(windows)) if windows else [],
    )
    ledger.overwrite(store, shrunk)
    return shrunk


def _evict_old(store: Store, vectors: VectorTable, model_id: str, result: Fold) -> None:
    """Drops the rows of replaced archives from units that were folded earlier."""
    by_key: dict[str, list[dict[str, Any]]] = defaultdict(list)
    by_unit: dict[str, set[str]] = defaultdict(set)
    layout = load_layout(store, model_id)
    for row in result.evictions.to_pylist():
        if row["is_new"]:
            continue
        name = layout.part_name(row["unit_id"])
        by_key[parts.part_key("rejects", model_id, name)].append(row)
        if row["period"] is not None:
            for table in ("windows", "events"):
                by_key[parts.part_key(table, model_id, name, row["period"])].append(row)
            by_unit[row["unit_id"]].add(row["archive_id"])
    for key, rows in sorted(by_key.items()):
        _drop(store, key, rows)
    vectors.delete_rows(by_unit)


def _drop(store: Store, key: str, evicted: list[dict[str, Any]]) -> pa.Table | None:
    column = "uri" if key.startswith("rejects/") else "archive_id"
    return parts.drop_rows(store, key, column, [row[column] for row in evicted if row[column]])
