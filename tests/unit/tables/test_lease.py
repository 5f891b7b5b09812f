from __future__ import annotations

import json
import os
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from rmsai_ray.errors import LakeError
from rmsai_ray.runs import now
from rmsai_ray.storage import Store
from rmsai_ray.tables import lease
from rmsai_ray.tables.lease import KEY, Lease

NO_PID = 2**22 + 1
"""Larger than any process number of Linux."""


@pytest.fixture
def lake(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def hold(lake: Store, **changes: Any) -> None:
    """A lease of this very process, changed."""
    holder = {
        "run_id": "backfill-other",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_started": psutil.Process().create_time(),
        "renewed": now().isoformat(),
    }
    lake.put(KEY, json.dumps(holder | changes).encode())


def holder(lake: Store) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lake.get(KEY))
    return found


def ago(seconds: float) -> str:
    return (now() - timedelta(seconds=seconds)).isoformat()


def test_a_lease_is_there_while_it_is_held_and_gone_afterwards(lake: Store) -> None:
    with Lease(lake, "backfill-1"):
        assert holder(lake)["run_id"] == "backfill-1"
        assert holder(lake)["pid"] == os.getpid()
    assert lake.find(KEY) is None
    with Lease(lake, "backfill-2"):
        assert holder(lake)["run_id"] == "backfill-2"


def test_a_run_that_fails_gives_its_lease_back(lake: Store) -> None:
    with pytest.raises(ValueError), Lease(lake, "backfill-1"):
        raise ValueError("odd")
    assert lake.find(KEY) is None


def test_a_living_holder_is_named_and_keeps_its_lease(lake: Store) -> None:
    with Lease(lake, "backfill-1"):
        with pytest.raises(LakeError, match=rf"backfill-1 \(process {os.getpid()} on {socket.gethostname()}"):
            Lease(lake, "backfill-2").__enter__()
        assert holder(lake)["run_id"] == "backfill-1"


@pytest.mark.parametrize("seconds", [0, 119])
def test_a_foreign_host_that_was_seen_lately_keeps_its_lease(lake: Store, seconds: float) -> None:
    hold(lake, host="elsewhere", pid=NO_PID, renewed=ago(seconds))
    with pytest.raises(LakeError, match="on elsewhere"):
        Lease(lake, "backfill-2").__enter__()
    assert holder(lake)["host"] == "elsewhere"


def test_a_foreign_host_that_was_not_seen_for_long_loses_it(lake: Store) -> None:
    hold(lake, host="elsewhere", renewed=ago(121))
    with Lease(lake, "backfill-2"):
        assert holder(lake)["run_id"] == "backfill-2"


def test_a_dead_process_of_this_host_loses_it_at_once(lake: Store) -> None:
    hold(lake, pid=NO_PID)
    with Lease(lake, "backfill-2"):
        assert holder(lake)["run_id"] == "backfill-2"


def test_a_later_process_of_the_same_number_is_not_the_holder(lake: Store) -> None:
    hold(lake, process_started=psutil.Process().create_time() - 60)
    with Lease(lake, "backfill-2"):
        assert holder(lake)["run_id"] == "backfill-2"


def test_the_loser_of_two_that_take_over_at_once_is_told(
    lake: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(lake, pid=NO_PID)
    take = Store.create
    answers = iter([take, lambda *_: False])  # it is there; and after the delete another was faster
    monkeypatch.setattr(Store, "create", lambda self, key, content: next(answers)(self, key, content))
    with pytest.raises(LakeError, match="taken by another run just now"):
        Lease(lake, "backfill-2").__enter__()


def test_a_held_lease_is_renewed(lake: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.01)
    with Lease(lake, "backfill-1"):
        first = holder(lake)["renewed"]
        deadline = time.monotonic() + 10
        while holder(lake)["renewed"] == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert holder(lake)["renewed"] > first
    assert lake.find(KEY) is None  # no late renewal brings it back


def test_who_slept_too_long_notices_and_leaves_the_new_holder_alone(
    lake: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.01)
    with Lease(lake, "backfill-1") as mine:
        mine.confirm()
        hold(lake, host="elsewhere")
        time.sleep(0.05)
        with pytest.raises(LakeError, match=r"backfill-1 lost .*elsewhere"):
            mine.confirm()
    assert holder(lake)["host"] == "elsewhere"
