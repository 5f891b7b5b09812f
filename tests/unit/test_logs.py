from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rmsai_ray.cli import main
from rmsai_ray.errors import ConfigError, StorageError
from rmsai_ray.logs import LogFilter, WorkerLog, archive_line, read_logs, remove_old_logs, runs_with_logs
from rmsai_ray.runs import JsonLog, log_prefix
from rmsai_ray.storage import Store

RUN = "backfill-1"
ALL = LogFilter()
worker_side = logging.getLogger("rmsai_ray.test_logs")


@pytest.fixture
def lake(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def row(uri: str, status: str = "committed") -> dict[str, Any]:
    numbers = dict.fromkeys(("attempts", "num_events", "num_windows", "num_rejects"), 1)
    return {
        "uri": uri,
        "archive_id": f"id-{uri}",
        "unit_id": "u1",
        "status": status,
        "error": None,
        **numbers,
    }


def test_a_unit_is_one_object_with_a_line_for_each_archive(lake: Store) -> None:
    log = WorkerLog(lake, RUN, log_prefix(RUN), "unit")
    with log.unit("u1"):
        worker_side.warning("memory is scarce")
        log.write([archive_line(row("a.h5"), 0.5), archive_line(row("b.h5", "quarantined"), 0.1)])
    assert len(list(lake.list(f"runs/{RUN}/logs"))) == 1
    lines = {line["message"] + line.get("uri", ""): line for line in read_logs(lake, RUN, ALL)}
    assert set(lines) == {"archivea.h5", "archiveb.h5", "memory is scarce"}
    assert {line["run_id"] for line in lines.values()} == {RUN}
    assert {line["unit_id"] for line in lines.values()} == {"u1"}
    assert {line["worker"]["pid"] for line in lines.values()} == {os.getpid()}
    line = lines["archivea.h5"]
    assert (line["level"], line["status"], line["num_windows"]) == ("INFO", "committed", 1)
    assert "patient_id" not in line
    took = datetime.fromisoformat(line["time"]) - datetime.fromisoformat(line["started"])
    assert took == timedelta(seconds=0.5)
    assert lines["archiveb.h5"]["level"] == "WARNING"


def test_what_made_a_unit_fail_is_logged_and_nothing_is_heard_afterwards(lake: Store) -> None:
    log = WorkerLog(lake, RUN, log_prefix(RUN), "read")
    with pytest.raises(ValueError, match="odd"), log.unit("u1"):
        raise ValueError("odd")
    worker_side.warning("of nobody")
    with log.unit("u2"):
        pass
    (line,) = read_logs(lake, RUN, ALL)
    assert (line["level"], line["unit_id"], line["error"]) == ("ERROR", "u1", "ValueError('odd')")


def test_messages_of_a_unit_are_bounded(lake: Store) -> None:
    log = WorkerLog(lake, RUN, log_prefix(RUN), "unit")
    with log.unit("u1"):
        for _ in range(10_000):
            worker_side.warning("again")
    lines = read_logs(lake, RUN, ALL)
    assert len(lines) == 501
    assert lines[-1]["message"] == "9500 more"


def test_a_log_that_cannot_be_written_costs_no_unit(lake: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise StorageError("503")

    monkeypatch.setattr(Store, "put", refuse)
    log = WorkerLog(lake, RUN, log_prefix(RUN), "unit")
    with log.unit("u1"):
        log.write([archive_line(row("a.h5"), 0.5)])
    driver = JsonLog(lake, RUN)
    driver.emit(worker_side.makeRecord("n", logging.INFO, "f", 1, "kept", (), None))
    driver.flush()
    monkeypatch.undo()
    driver.flush()
    assert [line["message"] for line in read_logs(lake, RUN, ALL)] == ["kept"]


def test_a_driver_writes_as_it_goes_and_no_line_twice(lake: Store) -> None:
    driver = JsonLog(lake, RUN)
    for number in range(2500):
        driver.emit(worker_side.makeRecord("n", logging.INFO, "f", 1, "line %d", (number,), None))
    assert len(read_logs(lake, RUN, ALL)) == 2000  # what a kill -9 leaves
    driver.flush()
    driver.flush()
    assert [line["message"] for line in read_logs(lake, RUN, ALL)] == [f"line {n}" for n in range(2500)]


def test_runs_by_their_last_log_and_old_logs_go(lake: Store) -> None:
    logs = ("b-run/logs/20260101T-x.jsonl", "a-run/logs/20260102T-x.jsonl")
    for key in (*logs, "b-run/run.json", "lease.json"):
        lake.put(f"runs/{key}", b"")
    assert runs_with_logs(lake) == ["b-run", "a-run"]
    old = (datetime.now(UTC) - timedelta(days=10)).timestamp()
    for key in (logs[0], "b-run/run.json"):
        os.utime(Path(lake.uri, "runs", key), (old, old))
    assert remove_old_logs(lake, keep_days=9) == 1
    assert [info.key for info in lake.list("runs/b-run")] == ["runs/b-run/run.json"]
    assert runs_with_logs(lake) == ["a-run"]


def test_the_command_filters_and_answers(lake: Store, capsys: pytest.CaptureFixture[str]) -> None:
    log = WorkerLog(lake, RUN, log_prefix(RUN), "unit")
    with log.unit("u1"):
        log.write([archive_line(row("PT1.h5"), 0.5), archive_line(row("PT2.h5", "quarantined"), 0.1)])

    def rmsai(*options: str) -> Any:
        assert main(["logs", "--lake", lake.uri, *options, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert [line["uri"] for line in rmsai()["lines"]] == ["PT1.h5", "PT2.h5"]
    assert [line["uri"] for line in rmsai("--level", "warning")["lines"]] == ["PT2.h5"]
    assert [line["uri"] for line in rmsai("--archive", "PT1", "--run", "backfill")["lines"]] == ["PT1.h5"]
    assert [line["uri"] for line in rmsai("--archive", "id-PT2.h5")["lines"]] == ["PT2.h5"]
    assert main(["logs", "--lake", lake.uri]) == 0
    assert "PT2.h5" in capsys.readouterr().out
    for bad in (("--run", "other"), ("--level", "loud"), ("--lake", f"{lake.uri}/none")):
        assert main(["logs", "--lake", lake.uri, *bad]) == 2
    assert not Path(lake.uri, "none").exists()
    with pytest.raises(ConfigError, match="loud"):
        LogFilter(level="loud")
