"""Pseudonyms in a backfill's options, listing and plan."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rmsai_ray import job
from rmsai_ray.archives.pseudonyms import Door
from rmsai_ray.backfill.config import NAMES_NOBODY, BackfillConfig
from rmsai_ray.backfill.flow import backfill
from rmsai_ray.backfill.plan import name_archives, pack_units, source_of, with_sources
from rmsai_ray.privacy import ENVIRONMENT_VARIABLE, WITHHELD, Pseudonymiser
from rmsai_ray.tables.manifest import LISTING, Manifest, difference

DOOR = Door(Pseudonymiser(bytes(range(32))))
NOON = datetime(2025, 10, 5, 12, tzinfo=UTC)
NAMES = ("PT1_2025-09.h5", "PT2_2025-10.h5", "a.pack.h5#PT3_2025-10.h5", "a.pack.h5#PT4_2025-10.h5")


def listing(*names: str) -> pa.Table:
    rows = [{"uri": f"s3://icu/{name}", "size": 9, "etag": name, "modified_time": NOON} for name in names]
    return pa.Table.from_pylist(rows, LISTING)


def todo_of(named: pa.Table) -> pa.Table:
    return with_sources(difference(named, Manifest(), "run", retry=False), named)


def units(todo: pa.Table, **options: Any) -> list[Any]:
    return list(
        pack_units(todo, run_id="r", unit_bytes=lambda left: 1 << 20, max_archive_bytes=1 << 20, **options)
    )


def test_the_plan_knows_archives_by_stand_ins_and_where_to_read_them() -> None:
    [unit] = units(todo_of(name_archives(listing(*NAMES), DOOR)), door=DOOR)
    assert {source_of(row) for row in unit.archives} == {f"s3://icu/{name}" for name in NAMES}
    for row in unit.archives:
        assert row["uri"] == DOOR.uri(source_of(row))
        shown = {name: value for name, value in row.items() if name != "source_uri"}
        assert "PT" not in str(shown)
        assert "icu" not in str(shown)
        assert row["modified_time"].year > 2100
    sources = [source_of(row).partition("#")[0] for row in unit.archives]
    assert sources.index("s3://icu/a.pack.h5") + 1 == len(sources) - 1 - sources[::-1].index(
        "s3://icu/a.pack.h5"
    )


def test_the_same_listing_has_the_same_names_and_units() -> None:
    ids = [
        [unit.unit_id for unit in units(todo_of(name_archives(listing(*names), DOOR)), door=DOOR)]
        for names in (NAMES, NAMES[::-1])
    ]
    assert ids[0] == ids[1]
    other = Door(Pseudonymiser(bytes(range(1, 33))))
    assert ids[0] != [
        unit.unit_id for unit in units(todo_of(name_archives(listing(*NAMES), other)), door=other)
    ]


def test_real_names_stay_as_they_are() -> None:
    assert name_archives(listing(*NAMES), Door(None)).equals(listing(*NAMES))
    [unit] = units(todo_of(listing(*NAMES)))
    assert all(source_of(row) == row["uri"] for row in unit.archives)


def test_every_option_was_thought_of() -> None:
    names = {field.name for field in fields(BackfillConfig)}
    assert names - NAMES_NOBODY == {"archives", "prefix", "period", "since", "until"}, (
        "does it name somebody?"
    )
    assert names >= NAMES_NOBODY


def test_a_record_has_no_option_that_names_archives_or_days() -> None:
    config = BackfillConfig(archives="s3://icu/PT1", lake="l", prefix="PT1", since=date(2025, 1, 1))
    assert config.recorded()["archives"] == "s3://icu/PT1"
    shown = replace(config, pseudonymise=True).recorded()
    assert {name: value for name, value in shown.items() if value == WITHHELD} == dict.fromkeys(
        ("archives", "prefix", "since"), WITHHELD
    )
    assert shown["lake"] == "l"


def test_pseudonyms_and_their_key_are_part_of_the_run() -> None:
    config = BackfillConfig(archives="a", lake="l")
    made = [config.result_options("m", "1", "knn", None, key) for key in (None, "a", "b")]
    assert len({str(options) for options in made}) == 3
    assert "pseudonyms" not in made[0]


def test_without_a_key_nothing_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    for key in ("", "ab" * 31):
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, key)
        for more in ([], ["--validate-only"]):
            options = ["--archives", str(tmp_path / "a"), "--lake", str(tmp_path / "l"), "--pseudonymise"]
            assert job.run(BackfillConfig, backfill, presets={}, argv=options + more) == job.EXIT_BAD_CONFIG
            said = capsys.readouterr().err
            assert ENVIRONMENT_VARIABLE in said
            assert not key or key not in said
