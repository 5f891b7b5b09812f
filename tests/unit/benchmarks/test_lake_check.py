"""The check of lakes finds what it is there to find, in either store, and nothing in equal lakes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.lake_check import check_visible, compare, main
from tests.lake_builder import MODEL_A, build_lake

ROW = "patient_id = 'PT2000' AND event_id = 'event_1002' AND lead = 'vVX' AND start_sample = 70"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lakes") / "reference"
    build_lake(root)
    for part in root.rglob("unit-killed.parquet"):
        part.unlink()
    return root


@pytest.fixture
def lake(reference: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reference, tmp_path / "lake"))


def test_equal_lakes_are_equal(lake: Path, reference: Path) -> None:
    found = compare(str(lake), str(reference))
    assert not found
    assert str(found) == "0 lost, 0 added, 0 duplicated, 0 differing, 0 stray"


def in_windows(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    """Rewrites the Parquet part that holds the row."""
    return lambda lake: _rewrite(lake / f"windows/model={MODEL_A}/period=2025-09/unit-2.parquet", change)


def in_events(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    return lambda lake: _rewrite(lake / f"events/model={MODEL_A}/period=2025-09/unit-2.parquet", change)


def in_manifest(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    return lambda lake: _rewrite(lake / f"archives/model={MODEL_A}/manifest.parquet", change)


def in_vectors(change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Changes the LanceDB table."""
    name = "windows_" + MODEL_A.replace("-", "_")
    return lambda lake: change(lancedb.connect(str(lake / "lance")).open_table(name))


def _rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path, partitioning=None)), path)


def _first_twice(rows: pa.Table) -> pa.Table:
    return pa.concat_tables([rows, rows.slice(0, 1)])


def _with_a_status(rows: pa.Table) -> pa.Table:
    place = rows.schema.get_field_index("status")
    return rows.set_column(place, rows.schema.field(place), pa.array(["committed"] * len(rows)))


def _copy_of_a_part(lake: Path) -> None:
    part = lake / f"windows/model={MODEL_A}/period=2025-09/unit-2.parquet"
    shutil.copy(part, part.with_name("unit-killed.parquet"))


def _leftovers(lake: Path) -> None:
    leases = [f"runs/lease/{epoch:012}.json" for epoch in (1, 2)]
    for key in (f"ledger/model={MODEL_A}/unit-2.json", *leases):
        (lake / key).parent.mkdir(parents=True, exist_ok=True)
        (lake / key).write_text("{}")


def _of_an_unfinished_unit(table: Any) -> None:
    """A row of one more window, of a unit without entry or manifest row."""
    row = table.search().where(ROW).to_arrow()
    for name, value in {"unit_id": "unit-killed", "window_id": "another"}.items():
        place = row.schema.get_field_index(name)
        row = row.set_column(place, row.schema.field(place), pa.array([value]))
    table.add(row)


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        # A row that only one store lost is missing there, and differs between the two.
        pytest.param(in_windows(lambda rows: rows.slice(1)), {"lost": 1, "added": 1}, id="window lost"),
        pytest.param(in_vectors(lambda table: table.delete(ROW)), {"lost": 2}, id="vector lost"),
        pytest.param(in_events(lambda rows: rows.slice(1)), {"lost": 1}, id="event lost"),
        pytest.param(in_manifest(lambda rows: rows.slice(0, len(rows) - 1)), {"lost": 1}, id="archive lost"),
        pytest.param(in_windows(_first_twice), {"duplicated": 1}, id="window twice"),
        pytest.param(
            in_vectors(lambda table: table.add(table.search().where(ROW).to_arrow())),
            {"duplicated": 2},
            id="vector twice",
        ),
        pytest.param(in_events(_first_twice), {"duplicated": 1}, id="event twice"),
        pytest.param(in_manifest(_with_a_status), {"differing": 2}, id="archive judged otherwise"),
        pytest.param(
            in_vectors(lambda table: table.update(where=ROW, values={"condition": "Asystole"})),
            {"differing": 2},
            id="vector differs",
        ),
        pytest.param(
            in_vectors(lambda table: table.update(where=ROW, values={"embedding": [0.0, 0.0, 0.0, 1e-7]})),
            {"differing": 2},
            id="embedding differs",
        ),
        pytest.param(
            _copy_of_a_part, {"duplicated": 12, "stray": 1}, id="part of a unit that never finished"
        ),
        pytest.param(_leftovers, {"stray": 3}, id="ledger entry and leases"),
        pytest.param(in_vectors(_of_an_unfinished_unit), {"added": 2}, id="vector of an unfinished unit"),
    ],
)
def test_what_is_planted_is_found(
    lake: Path, reference: Path, plant: Callable[[Path], None], expected: dict[str, int]
) -> None:
    plant(lake)
    found = compare(str(lake), str(reference))
    assert {name: count for name, count in found.counts().items() if count} == expected
    assert found.examples


def test_a_lake_where_a_run_died_shows_what_its_manifest_says(lake: Path) -> None:
    """Parts of a unit that never finished lie there and are not seen; a finished one may be published."""
    part = lake / f"windows/model={MODEL_A}/period=2025-09/unit-2.parquet"
    rows = pq.read_table(part, partitioning=None)
    place = rows.schema.get_field_index("unit_id")
    killed = rows.set_column(place, rows.schema.field(place), pa.array(["unit-killed"] * len(rows)))
    pq.write_table(killed, part.with_name("unit-killed.parquet"))
    entry = lake / f"ledger/model={MODEL_A}/unit-killed.json"
    entry.parent.mkdir(parents=True)
    entry.write_text("{}")
    in_vectors(_of_an_unfinished_unit)(lake)
    assert not check_visible(str(lake))


def test_rows_of_an_archive_that_is_being_replaced_may_be_gone_all_at_once(lake: Path) -> None:
    (lake / f"windows/model={MODEL_A}/period=2025-09/unit-2.parquet").unlink()
    assert not check_visible(str(lake))


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        pytest.param(in_windows(_first_twice), {"duplicated": 1}, id="window twice"),
        pytest.param(in_windows(lambda rows: rows.slice(1)), {"lost": 1}, id="window lost"),
        pytest.param(in_events(lambda rows: rows.slice(1)), {"lost": 1}, id="event lost"),
        pytest.param(
            in_vectors(lambda table: table.add(table.search().where(ROW).to_arrow())),
            {"duplicated": 1},
            id="vector twice",
        ),
        pytest.param(in_vectors(_of_an_unfinished_unit), {"stray": 1}, id="vector of an unfinished unit"),
    ],
)
def test_what_must_never_be_seen_is_found_at_any_time(
    lake: Path, plant: Callable[[Path], None], expected: dict[str, int]
) -> None:
    plant(lake)
    found = check_visible(str(lake))
    assert {name: count for name, count in found.counts().items() if count} == expected


def test_alone_it_prints_json_and_tells_by_its_exit_code(
    lake: Path, reference: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(lake), str(reference)]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["listed"] == counts["committed"] + counts["quarantined"] + counts["skipped"] == 12
    in_events(lambda rows: rows.slice(1))(lake)
    assert main([str(lake), str(reference)]) == 1
    assert json.loads(capsys.readouterr().out)["lost"] == 1
    assert main([]) == 2
