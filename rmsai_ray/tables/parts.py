"""Parquet parts: one object per unit, table and period, named so that a repeat overwrites itself.

windows/model=<model>/period=<YYYY-MM>/<unit>.parquet
events/model=<model>/period=<YYYY-MM>/<unit>.parquet
rejects/model=<model>/<unit>.parquet
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rmsai_ray.storage import Store

TABLES = ("windows", "events", "rejects")
SUFFIX = ".parquet"


def model_folder(table: str, model_id: str) -> str:
    """Where one model's parts of one table lie."""
    return f"{table}/model={model_id}"


def part_key(table: str, model_id: str, unit_id: str, period: str | None = None) -> str:
    """The key of one part; ``period`` is None for ``rejects``."""
    folder = model_folder(table, model_id)
    return f"{folder}/{unit_id}{SUFFIX}" if period is None else f"{folder}/period={period}/{unit_id}{SUFFIX}"


def to_parquet(table: pa.Table) -> bytes:
    """The table as one Parquet file: texts in dictionaries, embeddings split by byte, then zstd."""
    sink = pa.BufferOutputStream()
    embeddings = ["embedding.list.element"] if "embedding" in table.schema.names else []
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    if "scores" in table.schema.names:
        texts.append("scores.list.element.detector")
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=texts,
        use_byte_stream_split=embeddings or False,
    )
    return bytes(sink.getvalue())


def read_part(store: Store, key: str) -> pa.Table | None:
    """The rows of one part, or None where it is gone."""
    content = store.find(key)
    return None if content is None else pq.read_table(pa.BufferReader(content), partitioning=None)


def write_part(store: Store, key: str, table: pa.Table) -> int:
    """Writes one part over whatever was there, or removes it where no row is left; returns the bytes."""
    if table.num_rows == 0:
        store.delete([key])
        return 0
    content = to_parquet(table)
    store.put(key, content)
    return len(content)


def drop_rows(store: Store, key: str, column: str, values: Iterable[str]) -> pa.Table | None:
    """Rewrites a part without the rows whose ``column`` is one of ``values``.

    Returns what is left, or None where there was no part. Doing it twice is doing it once.
    """
    table = read_part(store, key)
    if table is None:
        return None
    dropped = pc.is_in(table[column], value_set=pa.array(sorted(set(values)), pa.string()))
    left = table.filter(pc.invert(dropped))
    if left.num_rows < table.num_rows:
        write_part(store, key, left)
    return left


def remove_unfinished(store: Store, model_id: str, finished_units: set[str]) -> list[str]:
    """Deletes the parts of units that never wrote their ledger entry; returns their keys."""
    orphans = [key for key in list_parts(store, model_id) if unit_of(key) not in finished_units]
    store.delete(orphans)
    return orphans


def list_parts(store: Store, model_id: str) -> set[str]:
    """The keys of all parts of one model, in all tables."""
    return {
        info.key
        for table in TABLES
        for info in store.list(model_folder(table, model_id))
        if info.key.endswith(SUFFIX)
    }


def unit_of(key: str) -> str:
    """The unit that a part belongs to."""
    return key.rpartition("/")[2].removesuffix(SUFFIX)
