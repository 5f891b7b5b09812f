from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import lance
import pandas as pd
import pyarrow as pa
import pytest

from rmsai_ray.backfill import maintain as flow
from rmsai_ray.backfill.maintain import MaintainConfig, maintain, months_before
from rmsai_ray.errors import ConfigError, LakeError
from rmsai_ray.tables.lake import open_lake
from rmsai_ray.tables.lease import Lease, latest_claim
from tests.unit.tables.test_units import Lake, archive


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two small units, one of them not settled; one of two archives is very old."""
    made = Lake(tmp_path / "lake")
    made.write("u1", archive("a", "x", period="2000-01"), archive("b", "y"))
    made.settle()
    made.write("u2", archive("c", "z"))
    return made


def windows(lake: Lake) -> list[str]:
    found = open_lake(lake.store.uri).rows("SELECT DISTINCT archive_id AS id FROM windows ORDER BY id")
    return [row["id"] for row in found]


def test_it_settles_compacts_and_tells(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    maintain(MaintainConfig(lake=lake.store.uri, keep_versions_days=0.0))
    assert windows(lake) == ["x", "y", "z"]
    assert lake.published() == lake.rows("windows")
    assert len(lake.keys()) == 5
    assert lake.waiting() == set()
    assert "windows" in capsys.readouterr().out
    [run] = Path(lake.store.uri).glob("runs/maintain-*/run.json")
    record = json.loads(run.read_text())
    assert record["status"] == "done"
    before = record["counts"]["before"]["windows"]
    assert (before["num_files"], before["num_rows"]) == (3, 6)
    assert record["counts"]["after"]["windows"]["num_files"] == 2
    claim = latest_claim(lake.store)
    assert claim is not None
    assert claim.holder.is_released


def test_old_results_go_to_the_archive_and_come_back(lake: Lake, tmp_path: Path) -> None:
    there = str(tmp_path / "cold")
    maintain(MaintainConfig(lake=lake.store.uri, archive_older_than_months=24, archive=there))
    assert windows(lake) == ["y", "z"]
    maintain(MaintainConfig(lake=lake.store.uri, restore_since="1999-01", archive=there))
    assert windows(lake) == ["x", "y", "z"]
    assert lake.published() == lake.rows("windows")


def test_embeddings_of_16_bits_and_back(lake: Lake) -> None:
    maintain(MaintainConfig(lake=lake.store.uri))
    before = embeddings(lake)
    maintain(MaintainConfig(lake=lake.store.uri, embeddings="float16"))
    assert embeddings(lake).type.value_type == pa.float16()
    assert lake.published() == lake.rows("windows")
    lake = Lake(Path(lake.store.uri))  # as the next run has it
    lake.write("u3", archive("e", "late"))
    lake.settle()
    lake.write("u4", archive("c", "new"))
    lake.settle()
    assert embeddings(lake).type.value_type == pa.float16()
    assert windows(lake) == ["late", "new", "x", "y"]
    assert lake.published() == lake.rows("windows")
    maintain(MaintainConfig(lake=lake.store.uri, embeddings="float32"))
    assert embeddings(lake).type == before.type
    assert lake.published() == lake.rows("windows")


def test_embeddings_that_would_not_find_their_nearest_stay(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = pd.DataFrame({"format": ["float16"], "recall_at_10": [0.98]})
    monkeypatch.setattr(flow, "embedding_formats", lambda lake: found)
    with pytest.raises(LakeError, match=r"float16.*0\.9800"):
        maintain(MaintainConfig(lake=lake.store.uri, embeddings="float16"))
    assert embeddings(lake).type.value_type == pa.float32()


def embeddings(lake: Lake) -> pa.ChunkedArray:
    return lance.dataset(lake.vectors.uri).to_table()["embedding"]


def test_a_lake_that_a_run_works_on_is_refused(lake: Lake) -> None:
    with Lease(lake.store, "backfill-1"), pytest.raises(LakeError, match="held by run backfill-1"):
        maintain(MaintainConfig(lake=lake.store.uri))
    assert lake.waiting() == {"u2"}


def test_rows_that_get_lost_stop_the_job(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(store: object, model_id: str, units: set[str]) -> None:
        lake.store.delete(info.key for info in lake.store.list("events"))

    monkeypatch.setattr(flow, "compact_parts", lose)
    with pytest.raises(LakeError, match="events had 3 rows and has 0"):
        maintain(MaintainConfig(lake=lake.store.uri))
    [run] = Path(lake.store.uri).glob("runs/maintain-*/run.json")
    assert json.loads(run.read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"keep_versions_days": -1.0}, "keep_versions_days"),
        ({"archive_older_than_months": -1}, "archive_older_than_months"),
        ({"restore_since": "2025"}, "period"),
        ({"restore_since": "2025-01", "archive_older_than_months": 12}, "restore_since"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        MaintainConfig(lake="lake", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("months", "expected"), [(0, "2026-03"), (2, "2026-01"), (3, "2025-12"), (27, "2023-12")]
)
def test_months_are_counted_across_years(months: int, expected: str) -> None:
    assert months_before(datetime(2026, 3, 31, tzinfo=UTC), months) == expected
