"""Rows that keep a schema and say only what a test is about."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from rmsai_ray.tables import schemas

EMBEDDING_DIM = 2
MODEL = "tiny-8x2-aaaaaaaaaaaa"


def rows(schema: pa.Schema, *given: dict[str, Any]) -> pa.Table:
    """A table with the given values, and something of the right type elsewhere."""
    filled = [{field.name: _filler(field) for field in schema} | row for row in given]
    return pa.Table.from_pylist(filled, schema)


def windows(unit: str, archive: str, num_windows: int, **values: Any) -> pa.Table:
    """Windows of one archive; each embedding tells its place."""
    return rows(
        schemas.windows(EMBEDDING_DIM),
        *(
            {
                "window_id": f"{archive}/{place}",
                "archive_id": archive,
                "unit_id": unit,
                "model_id": MODEL,
                "embedding": [float(place), -1.0],
                **values,
            }
            for place in range(num_windows)
        ),
    )


def events(unit: str, *archives: str) -> pa.Table:
    """One event of each archive."""
    given = [{"event_uid": f"{archive}/1", "archive_id": archive, "unit_id": unit} for archive in archives]
    return rows(schemas.EVENTS, *given)


def rejects(unit: str, *uris: str) -> pa.Table:
    """One reject of each URI."""
    return rows(schemas.REJECTS, *({"uri": uri, "unit_id": unit} for uri in uris))


def _filler(field: pa.Field) -> Any:
    kind = field.type
    if field.nullable:
        return None
    if pa.types.is_string(kind):
        return ""
    if pa.types.is_boolean(kind):
        return False
    if pa.types.is_fixed_size_list(kind):
        return [0.0] * kind.list_size
    return [] if pa.types.is_list(kind) else 0
