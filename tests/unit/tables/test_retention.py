"""Old periods go to an archive and come back, on local lakes with real Parquet and Lance."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rmsai_ray.errors import ConfigError
from rmsai_ray.storage import Store
from rmsai_ray.tables import parts
from rmsai_ray.tables.compaction import compact_parts
from rmsai_ray.tables.lake import Lake as View
from rmsai_ray.tables.retention import bring_back, check_period, move_out
from tests.local_backfill import Died, before_each_write, dying_at
from tests.small_tables import MODEL
from tests.unit.tables.test_units import Lake, archive

OLD, NEW = "2025-09", "2025-10"


class ArchivedLake(Lake):
    """A lake with an archive beside it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "lake")
        self.archive = Store(str(folder / "archive"))

    def out(self, before: str = NEW) -> list[str]:
        self._begin()
        return move_out(self.store, self.vectors, MODEL, self.archive, before=before)

    def back(self, since: str = OLD) -> list[str]:
        self._begin()
        manifest = self.settle()
        return bring_back(self.store, self.vectors, MODEL, manifest, self.archive, since=since)

    def compact(self) -> None:
        self._begin()
        compact_parts(self.store, MODEL, self.settle().unit_ids)

    def archived(self) -> list[str]:
        return sorted(info.key for info in self.archive.list())

    def _begin(self) -> None:
        parts.remove_unfinished(self.store, MODEL, self.settle().unit_ids)


@pytest.fixture
def lake(tmp_path: Path) -> ArchivedLake:
    """Two units: one archive of an old and one of a new period, and two old ones."""
    made = ArchivedLake(tmp_path)
    made.write("u1", archive("a", "x"), archive("b", "y", period=NEW))
    made.write("u2", archive("c", "z"), archive("d", "w"))
    made.settle()
    return made


def answers(lake: Lake) -> dict[str, Any]:
    """What readers are told; each window once, and the same ones by both stores."""
    view = View(lake.store.uri, MODEL)
    found = {name: view.rows(f"FROM {name} ORDER BY ALL") for name in ("windows", "events", "rejects")}
    windows = [(row["unit_id"], row["archive_id"]) for row in found["windows"]]
    assert sorted(windows) == lake.published()
    assert len({row["window_id"] for row in found["windows"]}) == len(windows)
    return found


def contents(lake: Lake) -> list[str]:
    """Archives whose windows are in the lake."""
    return sorted({row["archive_id"] for row in answers(lake)["windows"]})


def test_old_periods_go_and_come_back(lake: ArchivedLake) -> None:
    before = answers(lake)
    moved = lake.out()
    assert contents(lake) == ["y"]
    assert [row["archive_id"] for row in answers(lake)["events"]] == ["y"]
    assert answers(lake)["rejects"] == before["rejects"]
    assert lake.archived() == moved
    assert len(moved) == 4  # windows and events of two units
    assert lake.settle().rows["status"].to_pylist() == ["committed"] * 4
    assert lake.out() == []
    assert lake.back() == moved
    assert answers(lake) == before
    assert lake.archived() == []
    assert lake.back() == []


def test_only_the_periods_that_are_asked_for_move(lake: ArchivedLake) -> None:
    assert lake.out(before=OLD) == []
    lake.out(before="2025-11")
    assert contents(lake) == []
    lake.back(since=NEW)
    assert contents(lake) == ["y"]


def test_what_has_no_period_stays(lake: ArchivedLake) -> None:
    lake.write("u3", archive("e", "timeless", period="unknown"))
    lake.settle()
    lake.out(before="9999-12")
    assert contents(lake) == ["timeless"]


def test_compaction_in_between_does_not_matter(lake: ArchivedLake) -> None:
    before = answers(lake)
    lake.out()
    lake.compact()
    lake.back()
    assert answers(lake) == before
    lake.compact()
    lake.out()
    lake.back()
    assert answers(lake) == before


def test_rows_that_were_replaced_meanwhile_stay_away(lake: ArchivedLake) -> None:
    lake.out()
    lake.write("u3", archive("a", "new"))
    lake.settle()
    assert contents(lake) == ["new", "y"]
    lake.back()
    assert contents(lake) == ["new", "w", "y", "z"]
    assert lake.archived() == []


def test_what_comes_later_of_an_old_period_goes_the_same_way(lake: ArchivedLake) -> None:
    lake.out()
    lake.write("u3", archive("e", "late"))
    lake.settle()
    before = contents(lake)
    assert before == ["late", "y"]
    lake.out()
    assert contents(lake) == ["y"]
    lake.back()
    assert contents(lake) == ["late", "w", "x", "y", "z"]


@pytest.mark.parametrize("act", [ArchivedLake.out, ArchivedLake.back])
def test_wherever_it_dies_nothing_is_lost_and_the_same_call_ends_it(
    act: Callable[[ArchivedLake], Any], lake: ArchivedLake, tmp_path: Path
) -> None:
    before = answers(lake)
    if act is ArchivedLake.back:
        lake.out()
        lake.compact()
    deaths: list[tuple[str, Path]] = []

    def keep_a_copy(write: str) -> None:
        deaths.append((write, tmp_path / f"copy-{len(deaths)}"))
        for name in ("lake", "archive"):
            shutil.copytree(tmp_path / name, deaths[-1][1] / name)

    with before_each_write(keep_a_copy):
        act(lake)
    expected = answers(lake)
    assert {write.split()[0] for write, _ in deaths} >= {"put", "delete_rows", "delete"}
    for write, root in deaths:
        act(ArchivedLake(root))
        assert answers(ArchivedLake(root)) == expected, f"died at {write}"
        ArchivedLake(root).back()
        assert answers(ArchivedLake(root)) == before, f"died at {write}"


@pytest.mark.parametrize("num_deletes", range(2))
def test_changing_one_s_mind_after_a_death_loses_nothing(lake: ArchivedLake, num_deletes: int) -> None:
    """The first unit came back, into compacted parts whose namesakes still lie in the archive."""
    lake.write("a0", archive("f", "first"))
    lake.settle()
    lake.out()
    lake.write("u3", archive("e", "late"))
    lake.compact()
    lake.out()
    names = [key.rpartition("/")[2][:2] for key in lake.archived() if key.startswith("windows")]
    assert names == ["a0", "co", "u1", "u2"]
    with pytest.raises(Died), dying_at(num_deletes, "delete events"):
        lake.back()
    lake.out()
    lake.back()
    assert contents(lake) == ["first", "late", "w", "x", "y", "z"]
    assert len(answers(lake)["events"]) == 6


@pytest.mark.parametrize("text", ["2025", "2025-13", "2025-1", "old", "2025-01-01"])
def test_a_period_is_a_month(text: str) -> None:
    with pytest.raises(ConfigError, match="YYYY-MM"):
        check_period(text)
    check_period("2025-12")
