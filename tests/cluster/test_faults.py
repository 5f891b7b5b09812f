"""Whatever dies or fails in the middle of a run: in the end the lake is that of an undisturbed one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks._flaky_proxy import Fault, Request, flaky_proxy
from benchmarks.lake_check import compare, read_tables
from cluster.local_s3 import LocalS3
from rmsai_ray.backfill.config import BackfillConfig
from tests.cluster.conftest import NUM_ARCHIVES, NUM_EVENTS
from tests.cluster.corpus import NUM_LEADS, only_model, run, simulate

ROOT = Path(__file__).resolve().parents[2]


def test_killed_worker_is_replaced(uninterrupted: BackfillConfig, tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    with killing(re.compile(r"ray::MapWorker\(MapBatches\(ProcessUnits\)\)\.\w+")) as killed:
        run(uninterrupted, lake=lake, unit_bytes=1)
    assert len(killed) == 1
    assert not compare(lake, uninterrupted.lake)


def test_unreliable_storage_costs_only_what_never_comes(
    s3_server: LocalS3, s3_uri: str, tmp_path: Path
) -> None:
    archives = simulate(f"{s3_uri}/archives", NUM_ARCHIVES, NUM_EVENTS)
    keys = sorted(info.key for info in archives.list())
    doomed, slow = keys[:2]
    faults: list[Fault] = ["503", "reset", "short", None]

    def choose(request: Request) -> Fault:
        name, num_before = request.path.rpartition("/")[2], request.num_before
        if name == doomed:
            return "503"
        if name == slow:
            return "hang" if num_before == 0 else None
        return faults[(keys.index(name) + num_before) % len(faults)] if name in keys else None

    lake = str(tmp_path / "lake")
    with flaky_proxy(s3_server.endpoint, choose) as proxy:
        command = ("--archives", archives.uri, "--lake", lake, "--attempts", "2")
        with driver(*command, environment={"AWS_ENDPOINT_URL": proxy.endpoint}) as process:
            output, _ = process.communicate(timeout=280)
    assert process.returncode == 3, output
    assert all(proxy.faults[fault] > 0 for fault in ("503", "reset", "short", "hang"))
    tables = read_tables(lake, only_model(lake))
    rows = {row["uri"].rpartition("/")[2]: row for row in tables.archives.to_pylist()}
    assert {name: row["status"] for name, row in rows.items()} == {
        **dict.fromkeys(keys, "committed"),
        doomed: "quarantined",
    }
    assert rows[doomed]["attempts"] == 2
    assert rows[doomed]["error"].startswith("storage_error: ")
    assert [row["reason"] for row in tables.rejects.to_pylist()] == ["storage_error"]
    assert rows[slow]["attempts"] == 1, "the client itself gives up a silent connection, and tries again"
    gets = {path.rpartition("/")[2]: count for (_, path), count in proxy.requests.items()}
    for place, key in list(enumerate(keys))[2:]:
        assert gets[key] == (faults.index(None) - place) % len(faults) + 1, "fetched again without need"
    assert gets[slow] == 2
    assert tables.windows.num_rows == (NUM_ARCHIVES - 1) * NUM_EVENTS * NUM_LEADS


@contextmanager
def driver(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """``jobs/backfill.py`` in a session of its own, which does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(ROOT / "jobs" / "backfill.py"), *arguments],
        env=os.environ | (environment or {}),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            kill(process)
        process.communicate()


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL for a driver, and then for what of its Ray does not end by itself."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=5)
    for member in alive:
        member.kill()
    psutil.wait_procs(alive, timeout=30)


@contextmanager
def killing(command: re.Pattern[str]) -> Iterator[list[int]]:
    """Kills the first worker of this process's Ray whose command line matches; gives its pid."""
    killed: list[int] = []
    stop = threading.Event()

    def hunt() -> None:
        while not stop.wait(0.01) and not killed:
            for process in psutil.Process().children(recursive=True):
                try:
                    if command.match(" ".join(process.cmdline())):
                        process.kill()
                        killed.append(process.pid)
                        return
                except psutil.NoSuchProcess:
                    continue

    hunter = threading.Thread(target=hunt, daemon=True)
    hunter.start()
    try:
        yield killed
    finally:
        stop.set()
        hunter.join()
