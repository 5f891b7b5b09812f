"""The manifest: which archive is in the lake, for one model; the plan's difference and the fold, as SQL.

It is one Parquet object per model, written whole and atomically, and it names the units folded into it.
A fold is a pure function of the manifest and the ledger, so that a crash anywhere in it is mended by doing
it again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache, reduce
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rmsai_ray.errors import LakeError
from rmsai_ray.storage import Store
from rmsai_ray.tables import schemas
from rmsai_ray.tables.ledger import LedgerEntry
from rmsai_ray.tables.parts import ROWS_PER_GROUP, write_parquet

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
    """Rows of :data:`schemas.ARCHIVES` for one model, by URI, and the units that the last fold brought in.

    It is held as the object that it is in the lake, some 25 bytes an archive, and decoded a page at a time.
    """

    content: bytes = b""
    """A Parquet file; none where nothing was ever folded."""
    etag: str = field(default="", compare=False)
    """Of the object in the lake that it is, or that it is to replace; "" for none."""

    @staticmethod
    def of(pages: Iterable[pa.Table], folded_units: Iterable[str] = ()) -> Manifest:
        """The manifest of rows that come in the order of their URIs."""
        folded = json.dumps(sorted(folded_units)).encode()
        schema = schemas.ARCHIVES.with_metadata({**schemas.ARCHIVES.metadata, FOLDED_UNITS: folded})
        return Manifest(write_parquet(schema, (page.cast(schema) for page in _full_pages(pages))))

    @property
    def rows(self) -> pa.Table:
        """All of it, decoded."""
        return self.columns(schemas.ARCHIVES.names)

    def columns(self, names: list[str]) -> pa.Table:
        """Some columns of all rows."""
        schema = pa.schema([schemas.ARCHIVES.field(name) for name in names], schemas.ARCHIVES.metadata)
        return pa.concat_tables([schema.empty_table(), *self.pages(names)])

    def pages(self, names: list[str] | None = None) -> Iterator[pa.Table]:
        """The rows in their order, a few ten thousand at a time."""
        if not self.content:
            return
        file = pq.ParquetFile(pa.BufferReader(self.content))
        names = names or schemas.ARCHIVES.names
        schema = pa.schema([schemas.ARCHIVES.field(name) for name in names], schemas.ARCHIVES.metadata)
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=names, use_threads=False).cast(schema)

    @property
    def folded_units(self) -> frozenset[str]:
        """The units of the last fold."""
        metadata = pq.read_schema(pa.BufferReader(self.content)).metadata if self.content else {}
        return frozenset(json.loads(metadata.get(FOLDED_UNITS, b"[]")))

    @property
    def unit_ids(self) -> set[str]:
        """Units that hold rows of some archive."""
        return set(self.columns(["unit_id"])["unit_id"].unique().to_pylist())


def _full_pages(pages: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, :data:`ROWS_PER_GROUP` at a time."""
    waiting = schemas.ARCHIVES.empty_table()
    for page in pages:
        waiting = pa.concat_tables([waiting, page])
        while waiting.num_rows > ROWS_PER_GROUP:
            yield waiting.slice(0, ROWS_PER_GROUP)
            waiting = waiting.slice(ROWS_PER_GROUP)
    yield waiting


def manifest_key(model_id: str) -> str:
    """Where one model's manifest lies."""
    return f"archives/model={model_id}/manifest.parquet"


def load_manifest(store: Store, model_id: str) -> Manifest:
    """The manifest of a model; empty where the lake does not know the model yet.

    Raises:
        LakeError: it was written with another version of the schemas.
    """
    content, etag = store.find_version(manifest_key(model_id))
    if content is None:
        return Manifest()
    found = pq.read_schema(pa.BufferReader(content))
    schemas.check_version(found, schemas.ARCHIVES, manifest_key(model_id))
    return Manifest(content, etag)


def save_manifest(store: Store, model_id: str, manifest: Manifest) -> None:
    """Writes the manifest with one atomic put, over the version that it was made from.

    Raises:
        LakeError: that is not the lake's any more, since another run took the lake; nothing was written.
    """
    if store.replace(manifest_key(model_id), manifest.content, manifest.etag) is None:
        raise LakeError(f"the manifest of {store.uri} was changed by another run, which took the lake")


def difference(listing: pa.Table, manifest: Manifest, run_id: str, *, retry: bool) -> pa.Table:
    """What is to do: listed, and not in the manifest as it is, with these options.

    A copy is settled only while another URI holds its content, by this very run: where the holder is about
    to change, or was made with other options, the copy is to do too.

    Args:
        listing: rows of :data:`LISTING`.
        manifest: what is in the lake, all finished units folded in.
        run_id: an archive done under other options is to do again.
        retry: do quarantined archives again.

    Returns:
        The listing's columns, and
        ``replaces`` (the unit that holds the archive's present rows, or ""),
        ``previous_archive_id`` (its content then, where the options were the same), and
        ``same_size_ids`` (contents of that size that the lake holds under other names). Sorted by URI.
    """
    unsettled = _unsettled(listing, manifest, run_id, retry=retry)
    return _query(
        """
        WITH changed AS (
            SELECT l.uri FROM listing l JOIN manifest m USING (uri)
            WHERE l.size <> m.size OR l.etag <> m.etag OR m.run_id <> $run_id
               OR ($retry AND m.status = 'quarantined')
        ),
        held AS (
            SELECT archive_id, size FROM manifest
            WHERE status = 'committed' AND run_id = $run_id AND uri NOT IN (SELECT uri FROM changed)
        ),
        todo AS (
            SELECT l.*, m.unit_id, m.run_id, m.status, m.archive_id
            FROM listing l LEFT JOIN manifest m USING (uri)
            WHERE m.uri IS NULL OR l.uri IN (SELECT uri FROM changed)
               OR (m.status = 'skipped' AND m.archive_id NOT IN (SELECT archive_id FROM held))
        ),
        held_by_size AS (SELECT size, list(archive_id ORDER BY archive_id) AS ids FROM held GROUP BY size)
        SELECT t.uri, t.size, t.etag, t.modified_time,
               coalesce(t.unit_id, '') AS replaces,
               CASE WHEN t.run_id = $run_id AND t.status = 'committed' THEN t.archive_id END
                   AS previous_archive_id,
               coalesce(h.ids, []::VARCHAR[]) AS same_size_ids
        FROM todo t LEFT JOIN held_by_size h USING (size)
        ORDER BY t.uri
        """,
        {"run_id": run_id, "retry": retry},
        listing=unsettled,
        manifest=_related(manifest, unsettled),
    )


def _unsettled(listing: pa.Table, manifest: Manifest, run_id: str, *, retry: bool) -> pa.Table:
    """Without the archives that their own row of the manifest settles: nearly all of them, on most days."""
    final = pa.array(["committed"] if retry else ["committed", "quarantined"])
    settled_L = np.zeros(listing.num_rows, np.bool_)
    for page in manifest.pages(["uri", "size", "etag", "run_id", "status"]):
        row_L = pc.index_in(listing["uri"], value_set=page["uri"].combine_chunks())
        listed = np.flatnonzero(pc.is_valid(row_L))
        here, there = listing.take(listed), page.take(row_L.drop_null())
        same = reduce(pc.and_, (pc.equal(here[name], there[name]) for name in ("size", "etag")))
        ours = pc.and_(pc.equal(there["run_id"], run_id), pc.is_in(there["status"], value_set=final))
        settled_L[listed] = pc.and_(same, ours)
    return listing.filter(pa.array(~settled_L))


def count_by_status(listing: pa.Table, manifest: Manifest) -> dict[str, int]:
    """How many of the listed archives have which status."""
    counts: Counter[str] = Counter()
    for page in manifest.pages(["uri", "status"]):
        row_L = pc.index_in(listing["uri"], value_set=page["uri"].combine_chunks())
        counts.update(page["status"].take(row_L.drop_null()).to_pylist())
    return dict(counts)


def _related(manifest: Manifest, listing: pa.Table) -> pa.Table:
    """The rows of listed archives, and of all that may have the same content as one of them."""
    pages = (
        page.filter(pc.or_(_is_in(page["uri"], listing["uri"]), _is_in(page["size"], listing["size"])))
        for page in manifest.pages()
    )
    return pa.concat_tables([schemas.ARCHIVES.empty_table(), *pages])


def _is_in(column: pa.ChunkedArray, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether each value is among others; null never is."""
    return pc.is_in(column, value_set=values.combine_chunks(), skip_nulls=True)


@dataclass(frozen=True, kw_only=True)
class Fold:
    """What a set of ledger entries makes of a manifest."""

    manifest: Manifest
    evictions: pa.Table
    """Rows that must go: ``unit_id, archive_id, uri, period, is_new`` (of a unit that is not folded yet)."""


def fold(manifest: Manifest, entries: Iterable[LedgerEntry], run_id: str) -> Fold:
    """Brings finished units into the manifest.

    Of two new rows of one URI that of this run stands, then that of the object modified last; it replaces
    what the manifest had. Of several URIs with one content, one holds the rows: that of this run, then the
    one that held them before, then the first by name; the others are ``skipped``.
    """
    entries = list(entries)
    new = entry_rows(entries)
    touched = (page.filter(_touched(page, new)) for page in manifest.pages())
    old = pa.concat_tables([schemas.ARCHIVES.empty_table(), *touched])
    rows = _query(
        """
        WITH latest AS (
            SELECT * FROM new
            QUALIFY row_number() OVER (PARTITION BY uri
                ORDER BY (run_id = $run_id) DESC, modified_time DESC, unit_id) = 1
        ),
        candidates AS (
            SELECT m.* REPLACE (
                coalesce(l.size, m.size) AS size, coalesce(l.etag, m.etag) AS etag,
                coalesce(l.modified_time, m.modified_time) AS modified_time), 0 AS is_new
            FROM manifest m LEFT JOIN latest l USING (uri)
            WHERE l.uri IS NULL OR l.status = 'unchanged'
            UNION ALL
            SELECT *, 1 AS is_new FROM latest WHERE status <> 'unchanged'
        ),
        ranked AS (
            SELECT *, row_number() OVER (PARTITION BY archive_id, status
                ORDER BY (run_id = $run_id) DESC, is_new, uri) AS place
            FROM candidates
        )
        SELECT * EXCLUDE (is_new, place) FROM ranked WHERE status <> 'committed' OR place = 1
        UNION ALL
        SELECT * EXCLUDE (is_new, place) REPLACE (
            'skipped' AS status, NULL AS patient_id, NULL AS period, NULL AS variant, false AS degraded,
            0 AS num_events, 0 AS num_windows, 0 AS num_rejects)
        FROM ranked WHERE status = 'committed' AND place > 1
        ORDER BY uri
        """,
        {"run_id": run_id},
        manifest=old,
        new=new,
    )
    evictions = _query(
        """
        WITH had_rows AS (
            SELECT unit_id, archive_id, uri, period, status, false AS is_new FROM manifest
            UNION ALL
            SELECT unit_id, archive_id, uri, period, status, true AS is_new FROM new
        )
        SELECT * EXCLUDE (status) FROM had_rows ANTI JOIN result USING (uri, unit_id, status)
        WHERE status IN ('committed', 'quarantined')
        ORDER BY ALL
        """,
        manifest=old,
        new=new,
        result=rows,
    )
    untouched = (page.filter(pc.invert(_touched(page, new))) for page in manifest.pages())
    pages = _merged(untouched, rows.cast(schemas.ARCHIVES))
    folded = Manifest.of(pages, (entry.unit_id for entry in entries))
    return Fold(manifest=replace(folded, etag=manifest.etag), evictions=evictions)


def _touched(rows: pa.Table, new: pa.Table) -> pa.ChunkedArray:
    """Rows that a fold may change: of the same URI or content as a new one."""
    return pc.or_(_is_in(rows["uri"], new["uri"]), _is_in(rows["archive_id"], new["archive_id"]))


def _merged(pages: Iterable[pa.Table], rows: pa.Table) -> Iterator[pa.Table]:
    """Two sequences of rows as one, each in the order of the URIs."""
    for page in pages:
        if page.num_rows:
            is_due = pc.less(rows["uri"], page["uri"][-1])
            yield pa.concat_tables([page, rows.filter(is_due)]).sort_by("uri")
            rows = rows.filter(pc.invert(is_due))
    yield rows


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
    with _engine().cursor() as connection:
        for name, table in tables.items():
            connection.register(name, table)
        return connection.sql(sql, params=parameters or {}).to_arrow_table()


@cache
def _engine() -> duckdb.DuckDBPyConnection:
    """One for the process: starting another takes ten times as long as a query."""
    return duckdb.connect()
