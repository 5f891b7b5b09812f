"""Retention: windows and events of old periods move to an archive, from where they can come back.

The manifest stays as it is: what was moved is still done, and no backfill does it again. The archive has the
keys of the lake. For the holder of the lake's lease alone, after everything finished is settled.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from rmsai_ray.errors import ConfigError
from rmsai_ray.storage import Store
from rmsai_ray.tables import parts
from rmsai_ray.tables.layout import Layout, load_layout
from rmsai_ray.tables.manifest import Manifest
from rmsai_ray.tables.vectors import VectorTable

TABLES = ("windows", "events")
"""Those that lie by period. Rejects and the manifest are small, and stay."""
NO_PERIOD = "unknown"


def move_out(store: Store, vectors: VectorTable, model_id: str, archive: Store, *, before: str) -> list[str]:
    """Moves what lies in periods before ``before`` (``YYYY-MM``) to ``archive``; returns the keys.

    Copies first, then LanceDB, then the parts themselves, which tell the next call what is left to do: after
    a crash nothing is lost, search may miss what is about to go, and the same call again completes it.
    """
    layout = load_layout(store, model_id)
    keys = [key for key in _period_keys(store, model_id) if NO_PERIOD != period_of(key) < before]
    keys = [key for key in keys if layout.is_visible(parts.name_of(key))]
    archives_by_unit: dict[str, set[str]] = defaultdict(set)
    for key in keys:
        table = parts.read_part(store, key)
        if table is None:
            continue
        _merge_into(archive, key, table)
        for unit, found in _archives_by_unit(table).items():
            archives_by_unit[unit] |= found
    vectors.delete_rows(archives_by_unit)
    store.delete(keys)
    return keys


def bring_back(
    store: Store, vectors: VectorTable, model_id: str, manifest: Manifest, archive: Store, *, since: str
) -> list[str]:
    """Moves what lies in the archive in ``since`` and later periods back; returns the keys it had there.

    Rows of archives that were replaced meanwhile stay away. Each part: rows into the parts that hold its
    units now, then LanceDB, then away from the archive. Each step can be done again.
    """
    layout = load_layout(store, model_id)
    keys = [key for key in _period_keys(archive, model_id) if period_of(key) >= since]
    for key in keys:
        table = parts.read_part(archive, key)
        if table is None:
            continue
        table = _committed(table, manifest)
        for name, rows in _by_name(table, layout):
            _merge_into(store, key.rpartition("/")[0] + f"/{name}{parts.SUFFIX}", rows)
        if key.startswith("windows/") and table.num_rows:
            vectors.delete_rows(_archives_by_unit(table))
            vectors.publish({key: vectors.write_fragments(table)})
        archive.delete([key])
    return keys


def check_period(text: str) -> None:
    """Raises ConfigError unless a text is a period, ``YYYY-MM``."""
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text):
        raise ConfigError("period", text, "is not YYYY-MM", "Give a month, e.g. 2025-09.")


def period_of(key: str) -> str:
    """``…/period=2025-09/<name>.parquet`` → ``2025-09``."""
    return key.partition("/period=")[2].partition("/")[0]


def _period_keys(store: Store, model_id: str) -> list[str]:
    """Keys of the parts that lie by period, sorted."""
    folders = [parts.model_folder(table, model_id) for table in TABLES]
    found = [info.key for folder in folders for info in store.list(folder)]
    return sorted(key for key in found if key.endswith(parts.SUFFIX))


def _merge_into(store: Store, key: str, rows: pa.Table) -> None:
    """Adds rows to a part, in the place of those that it has of the same archives."""
    there = parts.read_part(store, key)
    if there is not None:
        replaced = pc.is_in(there["archive_id"], value_set=rows["archive_id"].combine_chunks())
        rows = pa.concat_tables([there.filter(pc.invert(replaced)), rows])
    parts.write_part(store, key, rows)


def _committed(table: pa.Table, manifest: Manifest) -> pa.Table:
    """The rows that the manifest still wants."""
    known = manifest.columns(["unit_id", "archive_id", "status"])
    committed = known.filter(pc.equal(known["status"], "committed"))
    return table.filter(pc.is_in(_row_keys(table), value_set=_row_keys(committed)))


def _row_keys(table: pa.Table) -> pa.Array:
    keys = pc.binary_join_element_wise(table["unit_id"], table["archive_id"], "/")
    return keys.combine_chunks()


def _by_name(table: pa.Table, layout: Layout) -> Iterator[tuple[str, pa.Table]]:
    """(name of the parts that rows belong to, those rows)."""
    units = table["unit_id"].combine_chunks().dictionary_encode()
    names = pa.array([layout.part_name(unit) for unit in units.dictionary.to_pylist()], pa.string())
    name_N = names.take(units.indices)
    for name in name_N.unique().to_pylist():
        yield name, table.filter(pc.equal(name_N, name))


def _archives_by_unit(table: pa.Table) -> dict[str, set[str]]:
    pairs = table.select(["unit_id", "archive_id"]).group_by(["unit_id", "archive_id"]).aggregate([])
    found: dict[str, set[str]] = defaultdict(set)
    for row in pairs.to_pylist():
        found[row["unit_id"]].add(row["archive_id"])
    return found
