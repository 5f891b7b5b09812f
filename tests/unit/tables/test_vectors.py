from __future__ import annotations

from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest

from rmsai_ray.errors import LakeError
from rmsai_ray.tables import schemas
from rmsai_ray.tables.vectors import VALUES_PER_DELETE, VectorTable, table_name
from tests.small_tables import EMBEDDING_DIM, MODEL, windows

Fragments = dict[str, list[dict[str, Any]]]


@pytest.fixture
def vectors(tmp_path: Path) -> VectorTable:
    table = VectorTable(str(tmp_path), MODEL, EMBEDDING_DIM)
    table.ensure_exists()
    return table


def contents(vectors: VectorTable) -> list[str]:
    return sorted(lance.dataset(vectors.uri).to_table(columns=["window_id"])["window_id"].to_pylist())


def write(vectors: VectorTable, **num_windows: int) -> Fragments:
    """Fragments by unit, of one archive each."""
    return {unit: vectors.write_fragments(windows(unit, f"of-{unit}", n)) for unit, n in num_windows.items()}


def test_nothing_of_two_models_shares_a_table() -> None:
    assert table_name("framed-2400x64-0123456789ab") == "windows_framed_2400x64_0123456789ab"


def test_a_table_is_made_once(vectors: VectorTable) -> None:
    vectors.publish(write(vectors, u1=2))
    vectors.ensure_exists()
    assert vectors.count_rows() == 2
    assert lance.dataset(vectors.uri).schema.names == schemas.windows(EMBEDDING_DIM).names


def test_rows_are_invisible_until_they_are_published(vectors: VectorTable) -> None:
    fragments = write(vectors, u1=2, u2=1)
    assert vectors.count_rows() == 0
    assert vectors.publish(fragments) == 2
    assert contents(vectors) == ["of-u1/0", "of-u1/1", "of-u2/0"]


def test_all_units_of_a_fold_become_visible_at_once(vectors: VectorTable) -> None:
    before = lance.dataset(vectors.uri).version
    vectors.publish(write(vectors, u1=1, u2=1, u3=1))
    assert lance.dataset(vectors.uri).version == before + 1


def test_publishing_again_adds_nothing(vectors: VectorTable) -> None:
    fragments = write(vectors, u1=2, u2=1)
    vectors.publish({"u1": fragments["u1"]})
    assert vectors.publish(fragments) == 1
    assert vectors.publish(fragments) == 0
    assert contents(vectors) == ["of-u1/0", "of-u1/1", "of-u2/0"]


def test_published_rows_are_those_that_were_written(vectors: VectorTable) -> None:
    written = windows("u1", "x", 3, condition="Normal", heart_rate=61.5, quality_flags=["nan", "noise"])
    vectors.publish({"u1": vectors.write_fragments(written)})
    assert lance.dataset(vectors.uri).to_table().equals(written)


def test_a_unit_without_windows_has_no_fragment(vectors: VectorTable) -> None:
    assert write(vectors, u1=0) == {"u1": []}
    assert vectors.publish({"u1": []}) == 0


def test_rows_of_a_replaced_archive_go_from_its_unit_alone(vectors: VectorTable) -> None:
    both = pa.concat_tables([windows("u1", "x", 1), windows("u1", "it's", 1)])
    vectors.publish(
        {"u1": vectors.write_fragments(both), "u2": vectors.write_fragments(windows("u2", "x", 2))}
    )
    for _ in range(2):
        vectors.delete_rows({"u1": {"x"}})
        assert contents(vectors) == ["it's/0", "x/0", "x/1"]
    vectors.delete_rows({"u1": {"it's"}, "u2": set("x")})
    assert contents(vectors) == []


def test_rows_that_come_back_after_a_delete_are_published(vectors: VectorTable) -> None:
    vectors.publish(write(vectors, u1=1))
    vectors.delete_rows({"u1": {"of-u1"}})
    assert vectors.publish({"u2": vectors.write_fragments(windows("u2", "of-u1", 1))}) == 1
    assert contents(vectors) == ["of-u1/0"]


def test_more_units_than_fit_into_one_statement_are_deleted(vectors: VectorTable) -> None:
    vectors.publish(write(vectors, first=1, kept=1, last=1))
    many = {f"m{i:04}": {"x"} for i in range(VALUES_PER_DELETE)}
    vectors.delete_rows({"first": {"of-first"}, **many, "last": {"of-last"}})
    assert contents(vectors) == ["of-kept/0"]


def test_a_table_of_another_version_is_refused(tmp_path: Path) -> None:
    vectors = VectorTable(str(tmp_path), MODEL, EMBEDDING_DIM)
    old = schemas.windows(EMBEDDING_DIM).with_metadata({"rmsai_schema": "windows/1"})
    lance.write_dataset(old.empty_table(), vectors.uri, schema=old)
    with pytest.raises(LakeError, match=r"windows/1.*windows/2"):
        vectors.ensure_exists()
