from __future__ import annotations

import pyarrow as pa

from rmsai_ray.tables import schemas
from rmsai_ray.tables.blocks import UNIT_BLOCK, UnitTables

WINDOWS = pa.schema(
    [
        pa.field("window_id", pa.string(), nullable=False),
        pa.field("signal", pa.list_(pa.float32(), 3), nullable=False),
    ]
)


def unit(name: str, num_windows: int) -> UnitTables:
    rows = [{"window_id": f"{name}/{i}", "signal": [i, float("nan"), -0.0]} for i in range(num_windows)]
    reject = {
        "uri": "/ä.h5", "model_id": "m", "archive_id": None, "level": "archive", "place": "",
        "reason": "corrupt", "detail": "…", "run_id": "r", "unit_id": name,
    }  # fmt: skip
    return UnitTables(
        unit_id=name,
        archives=[{"uri": "/ä.h5", "status": "committed", "size": 2**40, "error": None}],
        windows=pa.Table.from_pylist(rows, WINDOWS),
        events=schemas.EVENTS.empty_table(),
        rejects=pa.Table.from_pylist([reject], schemas.REJECTS),
        seconds={"read": 0.25},
        num_bytes={"read": 7},
    )


def assert_same(one: UnitTables, other: UnitTables) -> None:
    for name in ("windows", "events", "rejects"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.schema.equals(theirs.schema, check_metadata=True)
        assert repr(mine.to_pylist()) == repr(theirs.to_pylist())  # NaN and -0.0 included
    for name in ("unit_id", "archives", "seconds", "num_bytes"):
        assert getattr(one, name) == getattr(other, name)


def test_a_unit_survives_its_block() -> None:
    before = unit("a", 2)
    block = before.to_block()
    assert block.num_rows == 1
    assert block.schema.equals(UNIT_BLOCK)
    (after,) = UnitTables.from_block(block)
    assert_same(before, after)


def test_a_unit_without_windows_stays_one_row() -> None:
    before = unit("empty", 0)
    (after,) = UnitTables.from_block(before.to_block())
    assert_same(before, after)
    assert after.windows.num_rows == 0


def test_units_that_ray_put_into_one_block_come_apart_again() -> None:
    units = [unit("a", 2), unit("b", 0), unit("c", 1)]
    block = pa.concat_tables(one.to_block() for one in units)
    for before, after in zip(units, UnitTables.from_block(block), strict=True):
        assert_same(before, after)
    (second,) = UnitTables.from_block(block.slice(1, 1))
    assert_same(units[1], second)


def test_no_units_no_blocks() -> None:
    assert UnitTables.from_block(UNIT_BLOCK.empty_table()) == []
