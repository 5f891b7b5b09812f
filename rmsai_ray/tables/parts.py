"""Parquet parts: one object per unit, table and period, named so that a repeat overwrites itself.

windows/model=<model>/period=<YYYY-MM>/<unit>.parquet
events/model=<model>/period=<YYYY-MM>/<unit>.parquet
rejects/model=<model>/<unit>.parquet
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rmsai_ray.errors import LakeError
from rmsai_ray.storage import ObjectInfo, Store
from rmsai_ray.tables.layout import load_layout
from rmsai_ray.tables.lease import Confirm

TABLES = ("windows", "events", "rejects")
SUFFIX = ".parquet"

ALL_DIFFERENT = ("window_id", "chunk_id", "seed_chunk_id", "vector_id", "event_uid", "uri")
"""Texts that hardly repeat; neighbours begin alike."""
ROWS_PER_GROUP = 1 << 16


def model_folder(table: str, model_id: str) -> str:
    """Where one model's parts of one table lie."""
    return f"{table}/model={model_id}"


def part_key(table: str, model_id: str, name: str, period: str | None = None) -> str:
    """The key of one part, named by its unit or by a compaction; ``period`` is None for ``rejects``."""
    folder = model_folder(table, model_id)
    return f"{folder}/{name}{SUFFIX}" if period is None else f"{folder}/period={period}/{name}{SUFFIX}"


def to_parquet(table: pa.Table) -> bytes:
    """The table as one Parquet file; the encoding of a column follows from what its values are like."""
    return write_parquet(table.schema, [table])


def write_parquet(schema: pa.Schema, tables: Iterable[pa.Table]) -> bytes:
    """Tables one after the other as one Parquet file, at least one row group each."""
    sink = pa.BufferOutputStream()
    dictionaries, encodings = choose_encodings(schema)
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=dictionaries,
        column_encoding=encodings,
    ) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=ROWS_PER_GROUP)
    return bytes(sink.getvalue())


def choose_encodings(schema: pa.Schema) -> tuple[list[str], dict[str, str]]:
    """Columns in dictionaries, and the encoding of others; by path inside the file."""
    dictionaries, encodings = [], {}
    for path, kind in _leaves(schema):
        if path in ALL_DIFFERENT:
            encodings[path] = "DELTA_BYTE_ARRAY"
        elif pa.types.is_string(kind) or pa.types.is_float64(kind):
            dictionaries.append(path)
        elif pa.types.is_timestamp(kind):
            encodings[path] = "DELTA_BINARY_PACKED"
        elif pa.types.is_float32(kind) or pa.types.is_float16(kind):
            encodings[path] = "BYTE_STREAM_SPLIT"
    return dictionaries, encodings


def _leaves(fields: Iterable[pa.Field], parent: str = "") -> Iterator[tuple[str, pa.DataType]]:
    """(path inside a Parquet file, type) of every column below ``fields``."""
    for field in fields:
        path, kind = parent + field.name, field.type
        while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            path, kind = f"{path}.list.element", kind.value_type
        if pa.types.is_struct(kind):
            yield from _leaves(kind, f"{path}.")
        else:
            yield path, kind


def read_part(store: Store, key: str) -> pa.Table | None:
    """The rows of one part, or None where it is gone."""
    return _find_part(store, key)[0]


def _find_part(store: Store, key: str) -> tuple[pa.Table | None, str]:
    """As :func:`read_part`, with the object's etag."""
    content, etag = store.find_version(key)
    return (
        (None, "") if content is None else (pq.read_table(pa.BufferReader(content), partitioning=None), etag)
    )


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

    Raises:
        LakeError: another run changed the part meanwhile, since it took the lake.
    """
    table, etag = _find_part(store, key)
    if table is None:
        return None
    dropped = pc.is_in(table[column], value_set=pa.array(sorted(set(values)), pa.string()))
    left = table.filter(pc.invert(dropped))
    if left.num_rows == 0:
        store.delete([key])
    elif left.num_rows < table.num_rows and store.replace(key, to_parquet(left), etag) is None:
        raise LakeError(f"{store.child_uri(key)} was changed by another run, which took the lake")
    return left


def remove_unfinished(
    store: Store, model_id: str, finished_units: set[str], confirm: Confirm = lambda: None
) -> list[str]:
    """Deletes the parts of units that never wrote their ledger entry, those that a compaction has replaced,
    and those that one had not finished; returns their keys.

    ``confirm`` is called between looking and deleting: what was seen while the lease was held is nothing that
    a later holder needs, since its units have other names.
    """
    layout = load_layout(store, model_id)
    visible = {layout.part_name(unit) for unit in finished_units}
    orphans = [key for key in list_parts(store, model_id) if name_of(key) not in visible]
    if orphans:
        confirm()
    store.delete(orphans)
    return orphans


def list_parts(store: Store, model_id: str) -> set[str]:
    """The keys of all parts of one model, in all tables."""
    return {info.key for info in list_part_infos(store, model_id)}


def list_part_infos(store: Store, model_id: str) -> Iterator[ObjectInfo]:
    """All parts of one model, in all tables."""
    for table in TABLES:
        for info in store.list(model_folder(table, model_id)):
            if info.key.endswith(SUFFIX):
                yield info


def name_of(key: str) -> str:
    """The unit whose part it is, or the name of a compacted part."""
    return key.rpartition("/")[2].removesuffix(SUFFIX)
