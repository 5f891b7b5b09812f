"""The manifest: which archive is in the lake, for one model; the plan's difference and the fold, as SQL.

It is one Parquet object per model, written whole and atomically, and it names the units folded into it.
A fold is a pure function of the manifest and the ledger, so that a crash anywhere in it is mended by doing
it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from rmsai_ray.storage import Store
from rmsai_ray.tables import schemas
from rmsai_ray.tables.ledger import LedgerEntry
from rmsai_ray.tables.parts import to_parquet

FOLDED_UNITS = b"rmsai_folded_units"

LISTING = pa.schema(
    [
        pa.field("uri", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("etag", pa.string()),
        pa.field("modified_time", schemas.TIME),
    ]
)
"""What the planner knows of an object before reading it."""


@dataclass(frozen=True)
class Manifest:
    """Rows of :data:`schemas.ARCHIVES` for one model, and the units that the last fold brought in."""

    rows: pa.Table = field(default_factory=schemas.ARCHIVES.empty_table)
    folded_units: frozenset[str] = frozenset()

    @property
    def unit_ids(self) -> set[str]:
        """Units that hold rows of some archive."""
        return set(self.rows["unit_id"].unique().to_pylist())


def manifest_key(model_id: str) -> str:
    """Where one model's manifest lies."""
    return f"archives/model={model_id}/manifest.parquet"


def load_manifest(store: Store, model_id: str) -> Manifest:
    """The manifest of a model; empty where the lake does not know the model yet."""
    content = store.find(manifest_key(model_id))
    if content is None:
        return Manifest()
    table = pq.read_table(pa.BufferReader(content), partitioning=None)
    folded = (table.schema.metadata or {}).get(FOLDED_UNITS, b"[]")
    return Manifest(table.cast(schemas.ARCHIVES), frozenset(json.loads(folded)))


def save_manifest(store: Store, model_id: str, manifest: Manifest) -> None:
    """Writes the manifest with one atomic put."""
    folded = json.dumps(sorted(manifest.folded_units)).encode()
    metadata = {**(schemas.ARCHIVES.metadata or {}), FOLDED_UNITS: folded}
    store.put(manifest_key(model_id), to_parquet(manifest.rows.replace_schema_metadata(metadata)))


def difference(
    listing: pa.Table, manifest: Manifest, entries: pa.Table, run_id: str, *, retry: bool
) -> pa.Table:
    """What is to do: listed, and neither in the manifest as it is, nor in the ledger.

    Args:
        listing: rows of :data:`LISTING`.
        manifest: what is in the lake.
        entries: archive rows of the ledger entries that no fold has seen.
        run_id: an archive done under other options is to do again.
        retry: do quarantined archives again.

    Returns:
        The listing's columns, and
        ``replaces`` (the unit that holds the archive's present rows, or ""),
        ``previous_archive_id`` (its content then, where the options were the same), and
        ``same_size_ids`` (contents of that size that the lake holds under other names). Sorted by URI.
    """
    return _query(
        """
        WITH changed AS (
            SELECT l.uri FROM listing l JOIN manifest m USING (uri)
            WHERE l.size <> m.size OR l.etag <> m.etag OR m.run_id <> $run_id
               OR ($retry AND m.status = 'quarantined')
        ),
        orphaned AS (  -- copies of a content whose holder is about to change
            SELECT m.uri FROM manifest m JOIN manifest holder
              ON holder.archive_id = m.archive_id AND holder.status = 'committed'
            WHERE m.status = 'skipped' AND holder.uri IN (SELECT uri FROM changed)
        ),
        todo AS (
            SELECT l.*, m.unit_id, m.run_id, m.status, m.archive_id
            FROM listing l LEFT JOIN manifest m USING (uri)
            WHERE (m.uri IS NULL OR l.uri IN (SELECT uri FROM changed) OR l.uri IN (SELECT uri FROM orphaned))
              AND NOT EXISTS (
                SELECT 1 FROM entries e
                WHERE e.uri = l.uri AND e.size = l.size AND e.etag = l.etag AND e.run_id = $run_id)
        ),
        held AS (
            SELECT size, list(archive_id ORDER BY archive_id) AS ids FROM manifest
            WHERE status = 'committed' AND uri NOT IN (SELECT uri FROM todo)
            GROUP BY size
        )
        SELECT t.uri, t.size, t.etag, t.modified_time,
               coalesce(t.unit_id, '') AS replaces,
               CASE WHEN t.run_id = $run_id AND t.status = 'committed' THEN t.archive_id END
                   AS previous_archive_id,
               coalesce(h.ids, []::VARCHAR[]) AS same_size_ids
        FROM todo t LEFT JOIN held h USING (size)
        ORDER BY t.uri
        """,
        {"run_id": run_id, "retry": retry},
        listing=listing,
        manifest=manifest.rows,
        entries=entries,
    )


@dataclass(frozen=True, kw_only=True)
class Fold:
    """What a set of ledger entries makes of a manifest."""

    manifest: Manifest
    evictions: pa.Table
    """Rows that must go: ``unit_id, archive_id, uri, period, is_new`` (of a unit that is not folded yet)."""


def fold(manifest: Manifest, entries: Iterable[LedgerEntry], run_id: str) -> Fold:
    """Brings finished units into the manifest.

    Of two rows of one URI that of this run stands, then that of the object modified last. Of several URIs
    with one content, the one that the lake holds already stands, else the first by name; the others are
    ``skipped``. A changed or newly quarantined archive replaces its old rows.
    """
    entries = list(entries)
    new = entry_rows(entries)
    fresh = _query(
        """
        WITH latest AS (
            SELECT * FROM new
            QUALIFY row_number() OVER (PARTITION BY uri
                ORDER BY (run_id = $run_id) DESC, modified_time DESC, unit_id) = 1
        ),
        held AS (
            SELECT m.archive_id FROM manifest m LEFT JOIN latest l USING (uri)
            WHERE m.status = 'committed' AND (l.uri IS NULL OR l.status = 'unchanged')
        ),
        winners AS (SELECT archive_id, min(uri) AS uri FROM latest WHERE status = 'committed' GROUP BY ALL),
        judged AS (
            SELECT l.*, l.status = 'committed'
                AND (l.archive_id IN (SELECT archive_id FROM held) OR l.uri <> w.uri) AS is_copy
            FROM latest l LEFT JOIN winners w USING (archive_id)
        )
        SELECT * EXCLUDE (is_copy) REPLACE (
            CASE WHEN is_copy THEN 'skipped' ELSE status END AS status,
            CASE WHEN is_copy THEN 0 ELSE num_events END AS num_events,
            CASE WHEN is_copy THEN 0 ELSE num_windows END AS num_windows,
            CASE WHEN is_copy THEN 0 ELSE num_rejects END AS num_rejects)
        FROM judged
        """,
        {"run_id": run_id},
        manifest=manifest.rows,
        new=new,
    )
    rows = _query(
        """
        SELECT m.* REPLACE (
            coalesce(f.size, m.size) AS size, coalesce(f.etag, m.etag) AS etag,
            coalesce(f.modified_time, m.modified_time) AS modified_time)
        FROM manifest m LEFT JOIN fresh f USING (uri)
        WHERE f.uri IS NULL OR f.status = 'unchanged'
        UNION ALL
        SELECT * FROM fresh WHERE status <> 'unchanged'
        ORDER BY uri
        """,
        manifest=manifest.rows,
        fresh=fresh,
    )
    evictions = _query(
        """
        SELECT n.unit_id, n.archive_id, n.uri, n.period, true AS is_new
        FROM new n LEFT JOIN fresh f USING (uri, unit_id)
        WHERE n.status IN ('committed', 'quarantined') AND f.status IS DISTINCT FROM n.status
        UNION ALL
        SELECT m.unit_id, m.archive_id, m.uri, m.period, false AS is_new
        FROM manifest m JOIN fresh f USING (uri)
        WHERE m.status IN ('committed', 'quarantined') AND f.status <> 'unchanged'
        ORDER BY ALL
        """,
        manifest=manifest.rows,
        new=new,
        fresh=fresh,
    )
    folded = frozenset(entry.unit_id for entry in entries)
    return Fold(manifest=Manifest(rows.cast(schemas.ARCHIVES), folded), evictions=evictions)


def entry_rows(entries: Iterable[LedgerEntry]) -> pa.Table:
    """The archive rows of ledger entries as rows of :data:`schemas.ARCHIVES`."""
    tables = [pa.Table.from_pylist([_typed(row) for row in e.archives], schemas.ARCHIVES) for e in entries]
    return pa.concat_tables(tables) if tables else schemas.ARCHIVES.empty_table()


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    """A ledger row with its ISO times parsed."""
    times = {name: datetime.fromisoformat(row[name]) for name in ("modified_time", "committed_time")}
    return {**row, **times}


def _query(sql: str, parameters: dict[str, Any] | None = None, **tables: pa.Table) -> pa.Table:
    """Runs SQL over Arrow tables."""
    with duckdb.connect() as connection:
        for name, table in tables.items():
            connection.register(name, table)
        return connection.sql(sql, params=parameters or {}).to_arrow_table()
