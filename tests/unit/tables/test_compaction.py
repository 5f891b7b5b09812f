"""Compaction of a local lake with real Parquet and Lance: fewer files, the same answers, at every moment."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest

from rmsai_ray.tables import lake as lake_module
from rmsai_ray.tables import parts
from rmsai_ray.tables.compaction import compact_parts, compact_vectors, remove_old_versions
from rmsai_ray.tables.lake import Lake as View
from rmsai_ray.tables.layout import COMPACTED, load_layout
from rmsai_ray.tables.manifest import load_manifest
from tests.local_backfill import before_each_write
from tests.small_tables import MODEL
from tests.unit.tables.test_units import Lake, archive

ORDER = {"windows": "window_id", "events": "event_uid", "rejects": "uri", "archives": "uri"}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return filled(Lake(tmp_path / "lake"))


def filled(lake: Lake) -> Lake:
    """Three small units in two periods; one archive is broken."""
    lake.write("u1", archive("a", "x"), archive("b", "y", period="2025-10"))
    lake.write("u2", archive("c", "z"))
    lake.write("u3", archive("d", "bad", "quarantined"))
    lake.settle()
    return lake


def answers(lake: Lake) -> dict[str, Any]:
    """What readers are told, in a fixed order."""
    view = View(lake.store.uri, MODEL)
    found = {table: view.rows(f"FROM {table} ORDER BY ALL") for table in ORDER}
    return {**found, "vectors": lake.published()}


def maintain(lake: Lake, **options: Any) -> None:
    """As the job does."""
    units = lake.settle().unit_ids
    parts.remove_unfinished(lake.store, MODEL, units)
    compact_parts(lake.store, MODEL, units, **options)


def names(lake: Lake) -> list[str]:
    """``table/period/name`` of the parts, compacted ones as ``*``."""
    keys = lake.keys()
    return sorted(key if COMPACTED not in key else key.partition(COMPACTED)[0] + "*" for key in keys)


def test_small_units_become_one_part_per_table_and_period(lake: Lake) -> None:
    before = answers(lake)
    maintain(lake)
    assert names(lake) == [
        "events/2025-09/*", "events/2025-10/*", "rejects/*", "windows/2025-09/*", "windows/2025-10/*"
    ]  # fmt: skip
    assert answers(lake) == before
    assert load_layout(lake.store, MODEL).units_of(load_layout(lake.store, MODEL).part_name("u1")) == {
        "u1", "u2", "u3"
    }  # fmt: skip


def test_compacting_again_writes_nothing(lake: Lake) -> None:
    maintain(lake)
    with before_each_write(lambda write: pytest.fail(write)):
        maintain(lake)


def test_later_units_join_those_that_are_compacted(lake: Lake) -> None:
    maintain(lake)
    lake.write("u4", archive("e", "new"))
    lake.settle()
    before = answers(lake)
    maintain(lake)
    assert len(lake.keys()) == 5
    assert answers(lake) == before
    assert set(load_layout(lake.store, MODEL).compacted) == {"u1", "u2", "u3", "u4"}


def test_parts_grow_no_larger_than_the_target(lake: Lake) -> None:
    sizes: dict[str, int] = {}
    for info in parts.list_part_infos(lake.store, MODEL):
        sizes[parts.name_of(info.key)] = sizes.get(parts.name_of(info.key), 0) + info.size
    before = lake.keys()
    maintain(lake, target_bytes=max(sizes.values()))  # the largest is not small, of the others there are two
    after = lake.keys()
    assert [key for key in after if "u1" in key] == [key for key in before if "u1" in key]
    maintain(lake, target_bytes=1)
    assert lake.keys() == after


def test_a_changed_archive_takes_its_old_rows_out_of_a_compacted_part(lake: Lake) -> None:
    maintain(lake)
    lake.write("u5", archive("a", "new"), archive("d", "mended"))
    lake.settle()
    assert lake.rows("windows") == [
        ("u1", "y"), ("u1", "y"), ("u2", "z"), ("u2", "z"), *[("u5", "mended")] * 2, *[("u5", "new")] * 2
    ]  # fmt: skip
    assert lake.published() == lake.rows("windows")
    assert lake.rows("rejects") == [("u1", "b"), ("u2", "c"), ("u5", "a"), ("u5", "d")]
    before = answers(lake)
    maintain(lake)
    assert answers(lake) == before


def test_a_unit_whose_rows_are_all_gone_leaves_the_layout(lake: Lake) -> None:
    maintain(lake)
    lake.write("u5", archive("d", "mended"))
    maintain(lake)
    assert set(load_layout(lake.store, MODEL).compacted) == {"u1", "u2", "u5"}


def test_a_worker_that_writes_a_compacted_unit_once_more_changes_nothing(lake: Lake) -> None:
    before = answers(lake)
    maintain(lake)
    lake.write("u1", archive("a", "x"), archive("b", "y", period="2025-10"))
    assert answers(lake) == before
    maintain(lake)
    assert answers(lake) == before
    assert len(lake.keys()) == 5


def test_wherever_it_dies_readers_notice_nothing_and_the_next_run_ends_it(lake: Lake, tmp_path: Path) -> None:
    before = answers(lake)
    deaths: list[tuple[str, Path]] = []

    def keep_a_copy(write: str) -> None:
        deaths.append((write, tmp_path / f"{len(deaths)}"))
        shutil.copytree(lake.store.uri, deaths[-1][1])

    with before_each_write(keep_a_copy):
        maintain(lake)
    expected = lake.keys()
    assert [write.split()[0] for write, _ in deaths] == ["create"] * 5 + ["replace"] + ["delete"] * 9
    for write, root in deaths:
        dead = Lake(root)
        assert answers(dead) == before, f"died at {write}"
        backfilled = Lake(Path(shutil.copytree(root, f"{root}-backfilled")))
        maintain(dead)
        assert answers(dead) == before, f"died at {write}"
        assert dead.keys() == expected, f"died at {write}"
        replace_one(backfilled)
        assert backfilled.rows("windows") == [*[("u1", "y")] * 2, *[("u2", "z")] * 2, *[("u5", "new")] * 2]
        assert backfilled.published() == backfilled.rows("windows")


def replace_one(lake: Lake) -> None:
    """What a backfill does, with a changed archive."""
    manifest = lake.settle()
    parts.remove_unfinished(lake.store, MODEL, manifest.unit_ids)
    lake.write("u5", archive("a", "new"))
    lake.settle()


def test_a_reader_that_lists_in_the_middle_lists_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    before = answers(lake)
    listed: list[str] = []
    list_files = lake_module._list_files

    def compact_first(uri: str, folder: str) -> Any:
        found = list_files(uri, folder)
        if not listed:
            maintain(lake)
        listed.append(folder)
        return found

    monkeypatch.setattr(lake_module, "_list_files", compact_first)
    assert answers(lake) == before
    assert len(listed) == len(ORDER) + 1


def test_rows_keep_values_types_and_the_version_of_their_schema(lake: Lake) -> None:
    key = next(info.key for info in lake.store.list("windows"))
    old = parts.read_part(lake.store, key)
    maintain(lake)
    key = next(info.key for info in lake.store.list("windows"))
    new = parts.read_part(lake.store, key)
    assert isinstance(old, pa.Table)
    assert isinstance(new, pa.Table)
    assert new.schema.equals(old.schema, check_metadata=True)


def test_lance_has_fewer_fragments_and_no_deleted_rows(lake: Lake) -> None:
    lake.write("u5", archive("a", "new"))
    lake.settle()
    before = lake.published()
    compact_vectors(lake.vectors)
    remove_old_versions(lake.vectors, timedelta(0))
    dataset = lance.dataset(lake.vectors.uri)
    assert len(dataset.get_fragments()) == 1
    assert [fragment.num_deletions for fragment in dataset.get_fragments()] == [0]
    assert len(dataset.versions()) == 1
    assert lake.published() == before
    assert load_manifest(lake.store, MODEL).rows.num_rows == 4


def test_versions_that_somebody_may_be_reading_stay(lake: Lake) -> None:
    old = lance.dataset(lake.vectors.uri)
    compact_vectors(lake.vectors)
    remove_old_versions(lake.vectors, timedelta(days=1))
    assert old.to_table().num_rows == len(lake.published())
