"""What every test shares: a real S3 server where one is asked for, and no process left at the end."""

from __future__ import annotations

import ctypes
import os
import secrets
import sys
import time
import uuid
from collections.abc import Iterator

import psutil
import pytest
from hypothesis import settings

from cluster.local_s3 import LocalS3, local_s3
from rmsai_ray.archives.guard import close_parser

# Token authentication as in production, with a token that no file keeps; Ray reads this when it is imported.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
# Likewise the key of pseudonyms, which workers have from the Ray that is started with it.
os.environ["RMSAI_PSEUDONYM_KEY"] = secrets.token_hex(32)
# Worker processes of several tests share two cores; more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Events of lineage are two more objects a run; where they are asked for, a test says so.
os.environ["OPENLINEAGE_DISABLED"] = "true"

# The same examples everywhere, so that a failure is everybody's; the search for new ones is the fuzzer's.
settings.register_profile("tests", derandomize=True, deadline=None)
settings.load_profile("tests")

GRACE_S = 60.0
"""Workers of Ray need half a second of a core to end, and a busy machine has many of them."""
ENDS_WITH_ITS_PARENT = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[LocalS3]:
    """A running S3 server whose endpoint and credentials are in the environment of this session."""
    with local_s3() as server, pytest.MonkeyPatch.context() as environment:
        for name, value in server.env().items():
            environment.setenv(name, value)
        server.create_bucket("tests")
        yield server


@pytest.fixture
def s3_uri(s3_server: LocalS3) -> str:
    """A prefix that no other test uses, as ``s3://bucket/prefix``."""
    return f"s3://tests/{uuid.uuid4().hex}"


def pytest_sessionstart(session: pytest.Session) -> None:
    """Adopt what children leave behind, so that nothing escapes the check below by losing its parent."""
    if sys.platform == "linux":
        pr_set_child_subreaper = 36
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session when a process that a test started outlives it, and end that process."""
    close_parser()
    deadline = time.monotonic() + GRACE_S
    num_clean_scans = 0  # two: a scan of /proc can miss a process that is just losing its parent
    while num_clean_scans < 2 and time.monotonic() < deadline:
        alive = _still_running()
        num_clean_scans = 0 if alive else num_clean_scans + 1
        time.sleep(0.1)
    for pid, command in alive.items():
        sys.stderr.write(f"\nleft behind by the tests: pid {pid}: {command[:300]}\n")
        psutil.Process(pid).kill()
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _still_running() -> dict[int, str]:
    """The commands of all descendants by pid, without zombies and what Python keeps for itself."""
    alive = {}
    for process in psutil.Process().children(recursive=True):
        try:
            command, status = " ".join(process.cmdline()), process.status()
        except psutil.NoSuchProcess:
            continue
        if status != psutil.STATUS_ZOMBIE and not any(name in command for name in ENDS_WITH_ITS_PARENT):
            alive[process.pid] = command
    return alive
