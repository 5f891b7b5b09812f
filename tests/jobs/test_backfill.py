"""The backfill as an operator types it: its demo twice, and the exit codes of what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.storage import Store
from rmsai_ray.tables.lake import open_lake
from rmsai_ray.tables.lease import Lease

ROOT = Path(__file__).resolve().parents[2]
NUM_REAL_EVENTS, NUM_SIMULATED_EVENTS, NUM_LEADS = 25, 80, 7


def backfill(*options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "jobs/backfill.py", *options],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.timeout(600)
def test_demo_twice(tmp_path: Path) -> None:
    first = backfill(cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "9 (9 committed)" in first.stdout
    lake = open_lake(str(tmp_path / "demo/lake"))
    before = lake.rows("SELECT * FROM windows ORDER BY window_id")
    assert len(before) == NUM_REAL_EVENTS + NUM_SIMULATED_EVENTS * NUM_LEADS
    assert lake.vectors().count_rows() == len(before)

    second = backfill(cwd=tmp_path)

    assert second.returncode == 0, second.stderr
    assert "0 archives in 0 units" in second.stdout
    assert open_lake(lake.uri).rows("SELECT * FROM windows ORDER BY window_id") == before


def test_bad_configuration_starts_nothing(tmp_path: Path) -> None:
    done = backfill("--archives", "in", "--lake", "out", "--attempts", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert "attempts=0: must be positive" in done.stderr
    assert not list(tmp_path.iterdir())


def test_too_many_rejects_have_an_exit_code_of_their_own(tmp_path: Path) -> None:
    name, content = simulate_archive(0, 1, seed=1)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(content)
    (tmp_path / "in" / "PT0001_2026-10.h5").write_bytes(content[: len(content) // 2])

    done = backfill("--archives", "in", "--lake", "out", cwd=tmp_path)

    assert done.returncode == 3, done.stderr
    assert "1 of 2 archives are quarantined" in done.stderr
    rejects = open_lake(str(tmp_path / "out")).rows("SELECT reason FROM rejects")
    assert rejects == [{"reason": "truncated"}]


def test_a_lake_that_is_held_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with Lease(Store(str(tmp_path / "out")), "backfill-of-somebody"):
        done = backfill("--archives", "in", "--lake", "out", cwd=tmp_path)
    assert done.returncode == 4
    assert "is held by run backfill-of-somebody" in done.stderr


@pytest.mark.timeout(600)
def test_a_watching_backfill_takes_what_comes_and_ends_with_sigterm(tmp_path: Path) -> None:
    printed = tmp_path / "printed"
    (tmp_path / "in").mkdir()

    def bring(number: int) -> None:
        name, content = simulate_archive(number, 1, seed=1)
        (tmp_path / "in" / name).write_bytes(content)

    def wait_for(num_summaries: int) -> None:
        deadline = time.monotonic() + 280
        while printed.read_text().count("rmsai stats --lake") < num_summaries:
            assert process.poll() is None, printed.read_text()
            assert time.monotonic() < deadline, printed.read_text()
            time.sleep(0.1)

    bring(0)
    where = ("--archives", "in", "--lake", "out", "--detectors", "none")
    with printed.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, ROOT / "jobs/backfill.py", *where, "--watch", "1", "--settle-s", "0.2"],
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "200"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(1)
        bring(1)
        wait_for(2)
        time.sleep(0.5)  # it waits now
        process.terminate()
        assert process.wait(timeout=60) == 0, printed.read_text()
    finally:
        process.kill()
        process.wait()
    done = open_lake(str(tmp_path / "out")).rows("SELECT status FROM archives")
    assert done == [{"status": "committed"}] * 2
    (record,) = (tmp_path / "out/runs").glob("*/run.json")
    assert [each["status"] for each in json.loads(record.read_text())["invocations"]] == ["done", "done"]
