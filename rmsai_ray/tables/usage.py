"""What the lake's rows cost: bytes per row of every table and store, embeddings and the rest apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from rmsai_ray.tables.lake import Lake

TABLES = ("windows", "events", "rejects", "archives")


def storage(lake: Lake) -> pd.DataFrame:
    """One row per store and table: ``store, table, num_files, num_rows, num_bytes, bytes_per_row,
    embedding_bytes_per_row, metadata_bytes_per_row``.

    Parquet is counted from the files' footers, compressed as they lie. LanceDB's embeddings are counted as
    the values that they are; the rest of its bytes are the other columns, versions and indices.
    """
    rows = [_parquet(lake, table) for table in TABLES]
    if lake.vector_files():
        rows.append(_lance(lake))
    frame = pd.DataFrame(rows)
    per_row = frame["num_rows"].where(frame["num_rows"] > 0)
    frame["bytes_per_row"] = frame["num_bytes"] / per_row
    frame["embedding_bytes_per_row"] = frame.pop("embedding_bytes") / per_row
    frame["metadata_bytes_per_row"] = frame["bytes_per_row"] - frame["embedding_bytes_per_row"]
    return frame


@dataclass(frozen=True, kw_only=True)
class FileCount:
    """What lies in one table of one store."""

    num_files: int
    num_rows: int
    num_bytes: int


def count_files(lake: Lake) -> dict[str, FileCount]:
    """By table: the Parquet ones, and ``lancedb``, whose files are all versions, indices and records."""
    found = {table: lake.parquet_files(table) for table in TABLES} | {"lancedb": lake.vector_files()}
    rows = {table: lake.dataset(table).count_rows() for table in TABLES}
    rows["lancedb"] = lake.vectors().count_rows()
    return {
        name: FileCount(num_files=len(files), num_rows=rows[name], num_bytes=sum(info.size for info in files))
        for name, files in found.items()
    }


def _parquet(lake: Lake, table: str) -> dict[str, Any]:
    dataset = lake.dataset(table)
    files = [fragment.metadata for fragment in dataset.get_fragments() if hasattr(fragment, "metadata")]
    return {
        "store": "parquet",
        "table": table,
        "num_files": len(files),
        "num_rows": sum(footer.num_rows for footer in files),
        "num_bytes": sum(info.size for info in lake.parquet_files(table)),
        "embedding_bytes": sum(_embedding_bytes(footer) for footer in files),
    }


def _embedding_bytes(footer: Any) -> int:
    """Compressed bytes of the embedding's column chunks in one Parquet file."""
    columns = [
        footer.row_group(group).column(column)
        for group in range(footer.num_row_groups)
        for column in range(footer.num_columns)
    ]
    return sum(c.total_compressed_size for c in columns if c.path_in_schema.startswith("embedding."))


def _lance(lake: Lake) -> dict[str, Any]:
    table, files = lake.vectors(), lake.vector_files()
    num_rows = table.count_rows()
    kind = table.schema.field("embedding").type
    value_bytes = kind.list_size * kind.value_type.bit_width // 8
    return {
        "store": "lancedb",
        "table": table.name,
        "num_files": len(files),
        "num_rows": num_rows,
        "num_bytes": sum(info.size for info in files),
        "embedding_bytes": num_rows * value_bytes,
    }
