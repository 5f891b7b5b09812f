from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from rmsai_ray import runs
from rmsai_ray.runs import JsonLog, RunRecord, code_version, command_line, now, versions
from rmsai_ray.storage import Store

SECRET = "hunter2hunter2"


@pytest.fixture
def lake(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def record() -> RunRecord:
    return RunRecord(run_id="backfill-1", job="backfill", argv=["backfill.py"], config={"lake": "l"})


def read(lake: Store) -> dict[str, object]:
    content: dict[str, object] = json.loads(lake.get("runs/backfill-1/run.json"))
    return content


def test_a_record_is_there_before_the_work(lake: Store) -> None:
    record().begin(lake)
    written = read(lake)
    assert (written["status"], written["ended"]) == ("running", None)
    assert written["config"] == {"lake": "l"}
    assert {"torch", "pyarrow", "python", "rmsai_ray"} <= set(written["versions"])  # type: ignore[call-overload]
    assert written["code_version"] == code_version()


def test_a_finished_record_says_how_it_ended(lake: Store) -> None:
    run = record()
    run.begin(lake)
    run.counts, run.timings_s = {"windows": 7}, {"read": 0.5}
    run.finish(lake, "failed", "LakeError('held')")
    written = read(lake)
    assert (written["status"], written["error"]) == ("failed", "LakeError('held')")
    assert (written["counts"], written["timings_s"]) == ({"windows": 7}, {"read": 0.5})
    assert str(written["started"]) <= str(written["ended"]) <= now().isoformat()


def test_the_same_run_again_keeps_a_line_for_every_invocation(lake: Store) -> None:
    first, killed, last = record(), record(), record()
    first.begin(lake)
    first.counts = {"windows": 7}
    first.finish(lake, "done")
    killed.begin(lake)
    last.begin(lake)
    last.finish(lake, "done")
    lines = read(lake)["invocations"]
    assert [line["status"] for line in lines] == ["done", "running", "done"]  # type: ignore[attr-defined]
    assert [line.get("counts") for line in lines] == [{"windows": 7}, None, {}]  # type: ignore[attr-defined]


def test_credentials_of_the_environment_are_not_recorded(
    lake: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    run = record()
    run.begin(lake)
    run.finish(lake, "done")
    assert SECRET.encode() not in lake.get("runs/backfill-1/run.json")


def test_log_lines_are_json_with_run_fields_and_error(lake: Store) -> None:
    handler = JsonLog(lake, "backfill-1")
    logger = logging.getLogger("rmsai_ray.test_runs")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        logger.info("archive", extra={"fields": {"uri": "/a.h5", "status": "committed"}})
        try:
            raise ValueError("odd")
        except ValueError:
            logger.warning("went %s", "wrong", exc_info=True)
        logger.debug("not of interest")
    finally:
        logger.removeHandler(handler)
    handler.flush()
    (info,) = lake.list("runs/backfill-1/logs")
    first, second = (json.loads(line) for line in lake.get(info.key).splitlines())
    assert (first["message"], first["uri"], first["run_id"]) == ("archive", "/a.h5", "backfill-1")
    assert (second["level"], second["message"], second["error"]) == (
        "WARNING",
        "went wrong",
        "ValueError('odd')",
    )


def test_a_silent_run_writes_no_log(lake: Store) -> None:
    JsonLog(lake, "backfill-1").flush()
    assert list(lake.list()) == []


def test_an_absent_package_is_recorded_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "RECORDED_PACKAGES", ("numpy", "no-such-package-anywhere"))
    found = versions.__wrapped__()
    assert found["no-such-package-anywhere"] == "absent"
    assert found["numpy"][0].isdigit()


def test_outside_of_git_the_version_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert code_version.__wrapped__() == runs.__version__


def test_the_command_line_hides_where_the_program_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/home/someone/jobs/backfill.py", "--lake", "l"])
    assert command_line() == ["backfill.py", "--lake", "l"]
