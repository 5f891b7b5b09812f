from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from rmsai_ray.storage import Store
from rmsai_ray.tables import parts, schemas

MODEL = "tiny-8x4-aaaaaaaaaaaa"


@pytest.fixture
def lake(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def rejects(*uris: str) -> pa.Table:
    fixed = {
        "model_id": MODEL, "archive_id": None, "level": "archive", "place": "", "reason": "corrupt",
        "detail": "", "run_id": "r", "unit_id": "u",
    }  # fmt: skip
    return pa.Table.from_pylist([{**fixed, "uri": uri} for uri in uris], schemas.REJECTS)


def test_keys_name_table_model_period_and_unit() -> None:
    key = parts.part_key("windows", MODEL, "unit-1", "2025-09")
    assert key == f"windows/model={MODEL}/period=2025-09/unit-1.parquet"
    assert parts.part_key("rejects", MODEL, "unit-1") == f"rejects/model={MODEL}/unit-1.parquet"
    assert parts.name_of(key) == "unit-1"


def test_a_part_keeps_rows_types_and_schema_version(lake: Store) -> None:
    size = parts.write_part(lake, "a.parquet", rejects("/a", "/b"))
    (info,) = lake.list()
    assert info.size == size
    table = parts.read_part(lake, "a.parquet")
    assert table is not None
    assert table.equals(rejects("/a", "/b"))
    assert table.schema.equals(schemas.REJECTS, check_metadata=True)


def test_hive_folders_of_a_key_do_not_become_columns(lake: Store) -> None:
    key = parts.part_key("rejects", MODEL, "unit-1")
    parts.write_part(lake, key, rejects("/a"))
    table = parts.read_part(lake, key)
    assert table is not None
    assert table.column_names == schemas.REJECTS.names


def test_equal_rows_are_equal_bytes(lake: Store) -> None:
    assert parts.to_parquet(rejects("/a", "/b")) == parts.to_parquet(rejects("/a", "/b"))


def test_a_part_without_rows_is_no_part(lake: Store) -> None:
    parts.write_part(lake, "a.parquet", rejects("/a"))
    assert parts.write_part(lake, "a.parquet", rejects()) == 0
    assert list(lake.list()) == []
    assert parts.read_part(lake, "a.parquet") is None


def test_dropping_rows_twice_is_dropping_them_once(lake: Store) -> None:
    parts.write_part(lake, "a.parquet", rejects("/a", "/b", "/c"))
    for _ in range(2):
        left = parts.drop_rows(lake, "a.parquet", "uri", ["/b", "/unknown"])
        assert left is not None
        assert left["uri"].to_pylist() == ["/a", "/c"]
        stored = parts.read_part(lake, "a.parquet")
        assert stored is not None
        assert stored.equals(left)


def test_dropping_all_rows_removes_the_part(lake: Store) -> None:
    parts.write_part(lake, "a.parquet", rejects("/a"))
    left = parts.drop_rows(lake, "a.parquet", "uri", ["/a"])
    assert left is not None
    assert left.num_rows == 0
    assert list(lake.list()) == []
    assert parts.drop_rows(lake, "a.parquet", "uri", ["/a"]) is None


def test_a_part_that_loses_nothing_is_not_written_again(lake: Store) -> None:
    parts.write_part(lake, "a.parquet", rejects("/a"))
    (before,) = lake.list()
    parts.drop_rows(lake, "a.parquet", "uri", ["/b"])
    (after,) = lake.list()
    assert after.etag == before.etag


def test_rows_without_a_value_are_kept(lake: Store) -> None:
    parts.write_part(lake, "a.parquet", rejects("/a"))
    left = parts.drop_rows(lake, "a.parquet", "archive_id", ["x"])
    assert left is not None
    assert left.num_rows == 1


def test_only_parts_of_unfinished_units_of_this_model_are_removed(lake: Store) -> None:
    kept = [
        parts.part_key("windows", MODEL, "done", "2025-09"),
        parts.part_key("rejects", MODEL, "done"),
        parts.part_key("windows", "other-model", "lost", "2025-09"),
        f"windows/model={MODEL}/_SUCCESS",
        f"archives/model={MODEL}/manifest.parquet",
    ]
    orphans = [
        parts.part_key("windows", MODEL, "lost", "2025-09"),
        parts.part_key("windows", MODEL, "lost", "2025-10"),
        parts.part_key("events", MODEL, "lost", "2025-09"),
        parts.part_key("rejects", MODEL, "lost"),
    ]
    for key in (*kept, *orphans):
        lake.put(key, b"1")
    assert sorted(parts.remove_unfinished(lake, MODEL, {"done"})) == sorted(orphans)
    assert {info.key for info in lake.list()} == set(kept)
