"""Reading units: each archive ends committed, skipped, unchanged or quarantined; what is lost has a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rmsai_ray.archives import packs
from rmsai_ray.archives.broken import BrokenArchive, broken_archives
from rmsai_ray.archives.packing import content_of
from rmsai_ray.archives.sources import ArchiveRef, open_source
from rmsai_ray.backfill import read
from rmsai_ray.backfill.fetch import fetch
from rmsai_ray.backfill.plan import Unit
from rmsai_ray.backfill.read import ReadTask, UnitReader
from rmsai_ray.backfill.report import BY_LIBRARY
from rmsai_ray.errors import StorageError
from rmsai_ray.ids import archive_id
from rmsai_ray.signals.leads import LEADS
from rmsai_ray.tables.blocks import UnitTables
from tests.local_backfill import tiny_bundle
from tests.upstream_files import archive_bytes, edited

TASK = ReadTask(
    archives_uri="ward://",
    run_id="backfill-1",
    model_id="tiny",
    code_version="0",
    spec=tiny_bundle().spec,
    leads=LEADS,
    tail=True,
    strict=False,
    attempts=3,
    max_archive_bytes=2**20,
)


class Ward:
    """An archive source whose objects fail as often as they are told to."""

    def __init__(self, contents: dict[str, bytes], failures: dict[str, int]) -> None:
        self._contents, self._failures = contents, dict(failures)
        self.reads: list[str] = []

    def list_archives(self) -> Iterator[ArchiveRef]:
        raise NotImplementedError

    def read(self, uri: str) -> bytes:
        self.reads.append(uri)
        if self._failures.get(uri, 0) > 0:
            self._failures[uri] -= 1
            raise StorageError(f"cannot read {uri}: 503")
        return self._contents[uri]


@cache
def good(seed: int = 0) -> bytes:
    return archive_bytes(num_events=1, seed=seed)


@cache
def broken() -> dict[str, BrokenArchive]:
    return broken_archives()


@pytest.fixture
def read_unit(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[UnitTables, Ward]]:
    """Reads contents by URI as one unit, without waiting between attempts."""
    monkeypatch.setattr(read.time, "sleep", lambda seconds: None)

    def run(
        contents: dict[str, bytes],
        *,
        failures: dict[str, int] | None = None,
        planned: dict[str, Any] | None = None,
        **task: Any,
    ) -> tuple[UnitTables, Ward]:
        ward = Ward(contents, failures or {})
        monkeypatch.setattr(read, "open_source", lambda uri: ward)
        archives = [
            {
                "uri": uri, "size": len(content), "etag": "e", "replaces": "", "previous_archive_id": None,
                "modified_time": datetime(2025, 10, 1, tzinfo=UTC), "same_size_ids": [], **(planned or {}),
            }
            for uri, content in contents.items()
        ]  # fmt: skip
        reader = UnitReader(ReadTask(**{**vars(TASK), **task}))
        return reader.read(Unit(unit_id="u1", archives=archives)), ward

    return run


def test_pauses_grow_are_capped_and_stop_with_the_last_attempt() -> None:
    pauses: list[float] = []

    def fail() -> bytes:
        raise StorageError("503")

    fetched = fetch(fail, 8, pauses.append)
    assert fetched.content is None
    assert fetched.attempts == 8
    assert fetched.error is not None
    assert (fetched.error.reason, fetched.error.detail) == ("storage_error", "503")
    assert len(pauses) == 7
    for pause, longest in zip(pauses, [0.5, 1, 2, 4, 8, 8, 8], strict=True):
        assert longest / 2 <= pause <= longest


def test_one_attempt_never_waits() -> None:
    def fail() -> bytes:
        raise StorageError("503")

    assert fetch(fail, 1, pytest.fail).attempts == 1


def test_what_comes_at_last_is_taken() -> None:
    answers: Iterator[bytes | None] = iter([None, None, b"abc"])

    def sometimes() -> bytes:
        if (answer := next(answers)) is None:
            raise StorageError("503")
        return answer

    pauses: list[float] = []
    fetched = fetch(sometimes, 5, pauses.append)
    assert (fetched.content, fetched.attempts, fetched.error, len(pauses)) == (b"abc", 3, None, 2)


def test_only_storage_errors_are_tried_again() -> None:
    def bug() -> bytes:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        fetch(bug, 5, pytest.fail)


def test_an_archive_becomes_rows(read_unit: Callable[..., Any]) -> None:
    unit, _ = read_unit({"ward://PT1234_2025-09.h5": good()})
    (row,) = unit.archives
    expected = {
        "status": "committed", "archive_id": archive_id(good()), "attempts": 1, "patient_id": "PT1234",
        "period": "2025-09", "variant": "v3", "num_events": 1, "num_windows": 7, "num_rejects": 0,
        "unit_id": "u1", "run_id": "backfill-1", "model_id": "tiny", "error": None,
    }  # fmt: skip
    assert row | expected == row
    assert (unit.windows.num_rows, unit.events.num_rows, unit.rejects.num_rows) == (7, 1, 0)
    assert unit.num_bytes == {"read": len(good())}
    assert unit.seconds["read"] > 0


def test_what_only_the_library_reads_gives_the_same_rows_and_is_counted(
    read_unit: Callable[..., Any],
) -> None:
    unusual = good() + b"something behind the end"
    unit, _ = read_unit({"ward://PT1234_2025-09.h5": unusual})
    assert unit.num_bytes == {"read": len(unusual), BY_LIBRARY: len(unusual)}
    assert unit.windows.num_rows == 7


def test_an_object_that_fails_at_first_counts_its_attempts(read_unit: Callable[..., Any]) -> None:
    unit, ward = read_unit({"a": good(), "b": good(1)}, failures={"a": 2, "b": 3})
    assert [(row["status"], row["attempts"]) for row in unit.archives] == [
        ("committed", 3),
        ("quarantined", 3),
    ]
    assert unit.archives[1]["error"] == "storage_error: cannot read b: 503"
    assert (
        unit.rejects.to_pylist()[0] | {"uri": "b", "level": "archive", "archive_id": None}
        == unit.rejects.to_pylist()[0]
    )
    assert sorted(ward.reads) == ["a"] * 3 + ["b"] * 3


def test_an_oversized_object_is_never_fetched(read_unit: Callable[..., Any]) -> None:
    unit, ward = read_unit({"a": good()}, max_archive_bytes=1000)
    assert ward.reads == []
    (row,) = unit.archives
    assert (row["status"], row["attempts"], row["num_rejects"]) == ("quarantined", 0, 1)
    assert row["error"] == f"oversized: {len(good())} bytes, more than the allowed 1000"
    assert unit.rejects["reason"].to_pylist() == ["oversized"]


def test_one_get_per_object(read_unit: Callable[..., Any]) -> None:
    contents = {f"{i}": good(i % 3) for i in range(40)}
    unit, ward = read_unit(contents)
    assert sorted(ward.reads) == sorted(contents)
    assert [row["uri"] for row in unit.archives] == list(contents)


def test_duplicates_inside_a_unit_are_skipped(read_unit: Callable[..., Any]) -> None:
    unit, _ = read_unit({"a": good(), "b": good(1), "c": good()})
    assert [row["status"] for row in unit.archives] == ["committed", "committed", "skipped"]
    assert unit.archives[2]["archive_id"] == archive_id(good())
    assert unit.archives[2]["num_windows"] == 0
    assert unit.windows.num_rows == 14


def test_broken_duplicates_are_each_quarantined(read_unit: Callable[..., Any]) -> None:
    unit, _ = read_unit({"a": b"junk", "b": b"junk"})
    assert [row["status"] for row in unit.archives] == ["quarantined", "quarantined"]
    assert unit.rejects["uri"].to_pylist() == ["a", "b"]


def test_content_that_the_lake_holds_elsewhere_is_skipped(read_unit: Callable[..., Any]) -> None:
    unit, _ = read_unit({"a": good()}, planned={"same_size_ids": ["x", archive_id(good())]})
    assert [row["status"] for row in unit.archives] == ["skipped"]
    assert (unit.windows.num_rows, unit.events.num_rows, unit.rejects.num_rows) == (0, 0, 0)


def test_content_that_is_as_it_was_is_unchanged(read_unit: Callable[..., Any]) -> None:
    unit, _ = read_unit({"a": good()}, planned={"previous_archive_id": archive_id(good())})
    assert [row["status"] for row in unit.archives] == ["unchanged"]
    assert unit.windows.num_rows == 0


@pytest.mark.parametrize("name", sorted(broken().keys() - {"missing_ppg"}))  # a backfill does not look at PPG
def test_every_kind_of_damage_ends_as_it_was_made_to(name: str, read_unit: Callable[..., Any]) -> None:
    made = broken()[name]
    unit, _ = read_unit({"ward://" + made.file_name: made.content})
    (row,) = unit.archives
    if made.status == "fatal":
        assert (row["status"], row["num_windows"], row["num_rejects"]) == ("quarantined", 0, 1)
        assert row["error"].startswith(f"{made.code}: ")
        (reject,) = unit.rejects.to_pylist()
        assert (reject["level"], reject["reason"], reject["place"]) == ("archive", made.code, "")
        assert unit.events.num_rows == unit.windows.num_rows == 0
        return
    assert row["status"] == "committed"
    assert row["degraded"] == (made.status == "degraded")
    events = unit.events.to_pylist()
    assert row["num_events"] == len(events)
    assert row["num_rejects"] == unit.rejects.num_rows
    assert row["num_windows"] == unit.windows.num_rows == sum(event["num_windows"] for event in events)
    if made.code:
        assert any(made.code in event["problems"] for event in events)
    if made.quality_flag:
        assert any(made.quality_flag in flags for flags in unit.windows["quality_flags"].to_pylist())


@pytest.mark.parametrize(
    ("name", "level", "place", "num_windows"),
    [
        ("no_leads", "event", "event_1001", 7),
        ("corrupt_chunk", "lead", "event_1001/ecg/ECG2", 13),
        ("all_nan", "lead", "event_1001/ecg/ECG2", 13),
    ],
)
def test_what_is_there_but_lost_has_a_row(
    name: str, level: str, place: str, num_windows: int, read_unit: Callable[..., Any]
) -> None:
    made = broken()[name]
    unit, _ = read_unit({"ward://" + made.file_name: made.content})
    assert unit.windows.num_rows == num_windows
    (reject,) = unit.rejects.to_pylist()
    assert (reject["level"], reject["place"], reject["reason"]) == (level, place, made.code)
    assert reject["detail"]


def test_an_archive_without_a_usable_event_is_quarantined_as_the_validator_says(
    read_unit: Callable[..., Any],
) -> None:
    unit, _ = read_unit({"a": edited(good(), lambda file: file["event_1001"].pop("ecg"))})
    (row,) = unit.archives
    assert row["status"] == "quarantined"
    assert row["error"].startswith("no_leads: event_1001")
    assert unit.rejects["level"].to_pylist() == ["archive"]


def test_the_strict_profile_refuses_what_the_lenient_one_reads(read_unit: Callable[..., Any]) -> None:
    raw = edited(good(), lambda file: file["event_1001/ecg"].pop("aVL"))
    lenient, _ = read_unit({"a": raw})
    strict, _ = read_unit({"a": raw}, strict=True)
    assert lenient.archives[0]["status"] == "committed"
    assert strict.archives[0]["status"] == "quarantined"
    assert strict.archives[0]["error"].startswith("missing_item: event_1001/ecg/aVL")


def test_one_broken_archive_costs_its_neighbours_nothing(read_unit: Callable[..., Any]) -> None:
    alone, _ = read_unit({"a": good(), "c": good(1)})
    beside, _ = read_unit({"a": good(), "b": b"junk", "c": good(1)})
    assert beside.windows.equals(alone.windows)
    assert beside.events.equals(alone.events)


def test_a_pack_gives_the_rows_of_its_archives(tmp_path: Path) -> None:
    raws = {f"PT{seed}_2025-09.h5": archive_bytes("v3", num_events=2, seed=seed) for seed in range(3)}
    raws |= {"PT8_2025-09.h5": broken()["truncated"].content, "PT9_2025-09.h5": raws["PT1_2025-09.h5"]}
    for folder in ("loose", "packed"):
        (tmp_path / folder).mkdir()
    for name, raw in raws.items():
        (tmp_path / "loose" / name).write_bytes(raw)
    made = [content_of(name, raw, "e")[0] for name, raw in raws.items()]
    (tmp_path / "packed" / "a.pack.h5").write_bytes(packs.build_pack(made))
    loose, packed = (read_folder(str(tmp_path / folder)) for folder in ("loose", "packed"))
    for table in ("windows", "events", "rejects"):
        assert [without_place(row) for row in getattr(packed, table).to_pylist()] == [
            without_place(row) for row in getattr(loose, table).to_pylist()
        ], table
    statuses = ["committed", "committed", "committed", "quarantined", "skipped"]
    for unit in (loose, packed):
        assert [row["status"] for row in unit.archives] == statuses
    for name in ("archive_id", "size", "num_windows", "patient_id", "period", "variant", "degraded"):
        assert [row[name] for row in packed.archives] == [row[name] for row in loose.archives]


def read_folder(uri: str) -> UnitTables:
    refs = sorted(open_source(uri).list_archives(), key=lambda ref: ref.uri)
    archives = [
        {
            "uri": ref.uri, "size": ref.size, "etag": ref.etag, "replaces": "", "previous_archive_id": None,
            "modified_time": ref.modified, "same_size_ids": [],
        }
        for ref in refs
    ]  # fmt: skip
    task = ReadTask(**{**vars(TASK), "archives_uri": uri})
    return UnitReader(task).read(Unit(unit_id="u1", archives=archives))


def without_place(row: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) for name, value in row.items() if name != "uri" and not name.endswith("_time")}
