"""Committing units to a local lake with real Parquet and Lance, and what a fold does to what lies there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest

from rmsai_ray.errors import LakeError
from rmsai_ray.storage import Store
from rmsai_ray.tables import ledger, parts
from rmsai_ray.tables.blocks import UnitTables
from rmsai_ray.tables.manifest import Manifest, load_manifest
from rmsai_ray.tables.units import preview, settle, write_unit
from rmsai_ray.tables.vectors import VectorTable
from tests.small_tables import EMBEDDING_DIM, MODEL, events, rejects, windows

RUN = "backfill-1"
TIME = "2025-10-01T00:00:00+00:00"


class Lake:
    """A lake in a folder, written and read by hand."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(str(folder))
        self.vectors = VectorTable(self.store.uri, MODEL, EMBEDDING_DIM)
        self.vectors.ensure_exists()

    def write(
        self, unit: str, *archives: dict[str, Any], run: str = RUN, epoch: int = 1
    ) -> ledger.LedgerEntry:
        return self.write_tables(tables(unit, run, *archives), run, epoch)

    def write_tables(self, unit: UnitTables, run: str = RUN, epoch: int = 1) -> ledger.LedgerEntry:
        return write_unit(self.store, self.vectors, unit, run_id=run, model_id=MODEL, epoch=epoch)

    def settle(self) -> Manifest:
        return settle(self.store, self.vectors, MODEL)

    def keys(self) -> list[str]:
        """Parts as ``table/period/unit``, sorted."""
        keys = [info.key for table in parts.TABLES for info in self.store.list(table)]
        short = (key.replace(f"model={MODEL}/", "").replace("period=", "") for key in keys)
        return sorted(key.removesuffix(".parquet") for key in short)

    def rows(self, table: str) -> list[tuple[str, str]]:
        """(unit, archive or URI) of every Parquet row."""
        column = "uri" if table == "rejects" else "archive_id"
        found = [parts.read_part(self.store, info.key) for info in self.store.list(table)]
        return sorted(
            (row["unit_id"], row[column]) for part in found if part is not None for row in part.to_pylist()
        )

    def published(self) -> list[tuple[str, str]]:
        rows = lance.dataset(self.vectors.uri).to_table().to_pylist()
        return sorted((row["unit_id"], row["archive_id"]) for row in rows)

    def waiting(self) -> set[str]:
        return ledger.unit_ids(self.store, MODEL)


def archive(uri: str, content: str, status: str = "committed", **changes: Any) -> dict[str, Any]:
    """What the reader says of one archive; ``committed`` comes with two windows, an event and a reject."""
    kept = status == "committed"
    base = {
        "uri": uri, "model_id": MODEL, "archive_id": content, "size": 1, "etag": "e", "modified_time": TIME,
        "status": status, "attempts": 1, "patient_id": "PT1", "period": "2025-09" if kept else None,
        "variant": "v3", "degraded": False, "num_events": int(kept), "num_windows": 2 * kept,
        "num_rejects": 1, "error": None, "committed_time": TIME,
    }  # fmt: skip
    return base | changes


def tables(unit: str, run: str, *archives: dict[str, Any]) -> UnitTables:
    kept = [row["archive_id"] for row in archives if row["status"] == "committed"]
    lost = [row["uri"] for row in archives if row["status"] in ("committed", "quarantined")]
    return UnitTables(
        unit_id=unit,
        archives=[row | {"unit_id": unit, "run_id": run} for row in archives],
        windows=pa.concat_tables([windows(unit, content, 2) for content in kept] or [windows(unit, "", 0)]),
        events=events(unit, *kept),
        rejects=rejects(unit, *lost),
        seconds={"read": 1.0, "encode": 2.0},
        num_bytes={"read": 10},
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def test_a_unit_is_parts_by_period_and_an_entry_and_nothing_that_readers_see(lake: Lake) -> None:
    entry = lake.write("u1", archive("a", "x"), archive("b", "y", period="2025-10"), archive("c", "z"))
    assert lake.keys() == [
        "events/2025-09/u1",
        "events/2025-10/u1",
        "rejects/u1",
        "windows/2025-09/u1",
        "windows/2025-10/u1",
    ]
    assert lake.rows("windows") == [("u1", content) for content in "xxyyzz"]
    assert {parts.name_of(key) for key in entry.parts} == {"u1"}
    assert sum(entry.parts.values()) == 3 + 3 + 6
    assert (entry.seconds["read"], entry.seconds["encode"], entry.num_bytes["read"]) == (1.0, 2.0, 10)
    assert entry.num_bytes["parquet"] > 0
    assert entry.seconds["write"] > 0
    assert list(ledger.read_entries(lake.store, MODEL, ["u1"])) == [entry]
    assert lake.published() == []
    assert load_manifest(lake.store, MODEL).rows.num_rows == 0


def test_settling_publishes_the_rows_and_empties_the_ledger(lake: Lake) -> None:
    lake.write("u1", archive("a", "x"))
    lake.write("u2", archive("b", "bad", "quarantined"))
    manifest = lake.settle()
    assert lake.published() == lake.rows("windows") == [("u1", "x"), ("u1", "x")]
    assert lake.rows("rejects") == [("u1", "a"), ("u2", "b")]
    assert lake.waiting() == set()
    assert manifest.rows["status"].to_pylist() == ["committed", "quarantined"]
    assert load_manifest(lake.store, MODEL).rows.equals(manifest.rows)


def test_settling_again_changes_nothing(lake: Lake) -> None:
    lake.write("u1", archive("a", "x"))
    before = lake.settle()
    version = lance.dataset(lake.vectors.uri).version
    assert lake.settle().rows.equals(before.rows)
    assert lance.dataset(lake.vectors.uri).version == version


def test_a_unit_without_windows_counts(lake: Lake) -> None:
    lake.write("u1", archive("a", "x", "skipped"))
    assert lake.settle().rows["status"].to_pylist() == ["skipped"]
    assert lake.keys() == []


def test_of_two_writers_of_one_unit_the_first_entry_stands(lake: Lake) -> None:
    first = lake.write("u1", archive("a", "x"))
    second = lake.write("u1", archive("a", "x", committed_time="2025-10-02T00:00:00+00:00"))
    assert first != second
    assert list(ledger.read_entries(lake.store, MODEL, ["u1"])) == [first]
    lake.settle()
    assert lake.published() == lake.rows("windows") == [("u1", "x"), ("u1", "x")]


def test_a_unit_that_is_written_once_more_after_the_fold_changes_nothing(lake: Lake) -> None:
    """As a worker does that the cluster lost sight of."""
    lake.write("u1", archive("a", "x"))
    lake.settle()
    lake.write("u2", archive("b", "y"))
    before = lake.settle()
    lake.write("u1", archive("a", "x"))
    assert lake.settle().rows.equals(before.rows)
    assert lake.waiting() == set()
    assert lake.published() == lake.rows("windows") == [("u1", "x"), ("u1", "x"), ("u2", "y"), ("u2", "y")]


def test_a_copy_in_another_unit_leaves_only_its_row(lake: Lake) -> None:
    lake.write("u1", archive("b", "x"), archive("c", "y"))
    lake.write("u2", archive("a", "x"))
    manifest = lake.settle()
    assert manifest.rows["status"].to_pylist() == ["committed", "skipped", "committed"]
    assert lake.published() == lake.rows("windows") == [("u1", "y"), ("u1", "y"), ("u2", "x"), ("u2", "x")]
    assert lake.rows("events") == [("u1", "y"), ("u2", "x")]
    assert lake.rows("rejects") == [("u1", "c"), ("u2", "a")]


def test_a_changed_archive_takes_its_old_rows_along_and_leaves_its_neighbours(lake: Lake) -> None:
    lake.write("u1", archive("a", "x"), archive("b", "y"))
    lake.settle()
    lake.write("u2", archive("a", "new", period="2025-11"))
    lake.settle()
    assert (
        lake.published() == lake.rows("windows") == [("u1", "y"), ("u1", "y"), ("u2", "new"), ("u2", "new")]
    )
    assert lake.rows("events") == [("u1", "y"), ("u2", "new")]
    assert lake.rows("rejects") == [("u1", "b"), ("u2", "a")]


def test_a_touched_archive_keeps_its_rows(lake: Lake) -> None:
    lake.write("u1", archive("a", "x"))
    lake.settle()
    lake.write("u2", archive("a", "x", "unchanged", etag="new"))
    manifest = lake.settle()
    assert manifest.rows["etag"].to_pylist() == ["new"]
    assert lake.published() == lake.rows("windows") == [("u1", "x"), ("u1", "x")]


def test_a_mended_archive_loses_its_reject(lake: Lake) -> None:
    lake.write("u1", archive("a", "bad", "quarantined"), archive("b", "worse", "quarantined"))
    lake.settle()
    lake.write("u2", archive("a", "x", num_rejects=0))
    lake.settle()
    assert lake.rows("rejects") == [("u1", "b"), ("u2", "a")]


def test_another_runs_rows_replace_those_of_the_same_content(lake: Lake) -> None:
    lake.write("u1", archive("a", "x"))
    lake.settle()
    lake.write("u2", archive("a", "x"), run="backfill-2")
    manifest = lake.settle()
    assert manifest.rows["run_id"].to_pylist() == ["backfill-2"]
    assert lake.published() == lake.rows("windows") == [("u2", "x"), ("u2", "x")]


def test_a_worker_that_outlived_its_run_cannot_undo_the_next_one(lake: Lake) -> None:
    late = "2025-10-01T05:00:00+00:00"  # by its clock, which is no argument
    lake.write("u1", archive("a", "old", committed_time=late), archive("b", "y"), epoch=1)
    lake.write("u2", archive("a", "new"), run="backfill-2", epoch=2)
    expected = preview(lake.store, MODEL)
    manifest = lake.settle()
    assert manifest.rows.select(["uri", "archive_id"]).to_pylist() == [{"uri": "a", "archive_id": "new"}]
    assert manifest.rows.equals(expected.rows)
    assert lake.published() == [("u2", "new"), ("u2", "new")]
    assert lake.waiting() == set()


def test_who_lost_the_lake_between_reading_and_writing_changes_nothing(lake: Lake) -> None:
    """At each of the steps of a fold, another run takes the lake, folds, and goes on."""
    lake.write("u0", archive("a", "x"), archive("b", "y"))
    lake.settle()
    slept = []

    def sleep_at(step: int) -> Callable[[], None]:
        calls = iter(range(10))

        def confirm() -> None:
            if next(calls) == step:
                slept.append(step)
                lake.settle()
                lake.write(f"u{step + 2}", archive("c", f"z{step}"), epoch=3 + step)
                lake.settle()

        return confirm

    for step in range(3):
        lake.write(f"w{step}", archive("a", f"new{step}"), epoch=3 + step)
        with pytest.raises(LakeError, match="took the lake"):
            settle(lake.store, lake.vectors, MODEL, sleep_at(step))
        expected = [("a", f"new{step}"), ("b", "y"), ("c", f"z{step}")]
        rows = load_manifest(lake.store, MODEL).rows.select(["uri", "archive_id"]).to_pylist()
        assert [(row["uri"], row["archive_id"]) for row in rows] == expected
        assert lake.published() == lake.rows("windows")
        assert {content for _, content in lake.published()} == {content for _, content in expected}
        assert len(lake.published()) == 2 * len(expected)
    assert slept == [0, 1, 2]


def test_a_unit_whose_parts_are_gone_was_never_finished(lake: Lake) -> None:
    entry = lake.write("u1", archive("a", "x"))
    lake.write("u2", archive("b", "y"))
    lake.store.delete([next(key for key in entry.parts if key.startswith("windows/"))])
    assert preview(lake.store, MODEL).rows["uri"].to_pylist() == ["b"]
    assert lake.settle().rows["uri"].to_pylist() == ["b"]
    assert lake.published() == [("u2", "y"), ("u2", "y")]
    assert lake.waiting() == set()


def test_a_preview_is_what_settling_gives_and_writes_nothing(lake: Lake) -> None:
    lake.write("u1", archive("b", "x"))
    lake.write("u2", archive("a", "x"))
    expected = preview(lake.store, MODEL)
    assert lake.waiting() == {"u1", "u2"}
    assert lake.published() == []
    assert expected.rows.equals(lake.settle().rows)


def test_models_do_not_touch_each_other(lake: Lake) -> None:
    lake.write("u1", archive("a", "x"))
    assert settle(lake.store, lake.vectors, "other-model").rows.num_rows == 0
    assert lake.waiting() == {"u1"}
