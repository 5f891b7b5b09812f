from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rmsai_ray.errors import LakeError, LakeHeldError, StorageError
from rmsai_ray.runs import now
from rmsai_ray.storage import ObjectInfo, Store
from rmsai_ray.tables import lease
from rmsai_ray.tables.lease import FOLDER, Holder, Lease, latest_claim, process_start, this_machine

NO_PID = 2**22 + 1
"""Larger than any process number of Linux."""


@pytest.fixture
def lake(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewals and watches in hundredths of a second."""
    monkeypatch.setattr(lease, "RENEW_S", 0.01)
    monkeypatch.setattr(lease, "WATCH_S", 0.2)
    monkeypatch.setattr(lease, "LOOK_AGAIN_S", 0.02)


def hold(lake: Store, epoch: int = 1, **changes: Any) -> None:
    """A claim of this very process, changed."""
    holder = Holder(
        run_id="backfill-other",
        host=socket.gethostname(),
        machine=this_machine(),
        pid=os.getpid(),
        process_started=process_start(os.getpid()),
        since=now().isoformat(),
        nonce="",
    )
    lake.put(f"{FOLDER}/{epoch:012}.json", json.dumps(asdict(replace(holder, **changes))).encode())


def dated(lake: Store, seconds_ago: float) -> None:
    """As if all claims had been written so long ago, by the store's clock."""
    for info in lake.list(FOLDER):
        path = Path(lake.uri, info.key)
        os.utime(path, (path.stat().st_atime, (now() - timedelta(seconds=seconds_ago)).timestamp()))


def holder(lake: Store) -> Holder:
    claim = latest_claim(lake)
    assert claim is not None
    return claim.holder


def test_a_lease_is_held_and_given_back_and_its_number_grows(lake: Store) -> None:
    for epoch in (1, 2, 3):
        with Lease(lake, f"backfill-{epoch}") as mine:
            assert mine.epoch == epoch
            assert (holder(lake).run_id, holder(lake).pid) == (f"backfill-{epoch}", os.getpid())
            assert not holder(lake).is_gone()
        assert holder(lake).is_gone()
        assert len(list(lake.list(FOLDER))) == 1


def test_a_run_that_fails_gives_its_lease_back(lake: Store) -> None:
    with pytest.raises(ValueError), Lease(lake, "backfill-1"):
        raise ValueError("odd")
    assert holder(lake).is_released


def test_a_living_holder_is_named_and_keeps_its_lease(lake: Store) -> None:
    with Lease(lake, "backfill-1") as mine:
        told = rf"backfill-1 \(process {os.getpid()} on {socket.gethostname()}, since 20"
        with pytest.raises(LakeHeldError, match=told):
            Lease(lake, "backfill-2").__enter__()
        mine.confirm()


@pytest.mark.parametrize("seconds_ago", [0, 119])
def test_a_foreign_holder_that_was_seen_lately_is_not_even_watched(lake: Store, seconds_ago: float) -> None:
    hold(lake, host="elsewhere", machine="elsewhere", pid=NO_PID)
    dated(lake, seconds_ago)
    with pytest.raises(LakeHeldError, match="on elsewhere"):
        Lease(lake, "backfill-2").__enter__()


@pytest.mark.parametrize("seconds_ago", [121, 7200, -7200])
@pytest.mark.usefixtures("quick")
def test_a_foreign_holder_that_shows_no_life_loses_the_lake_whatever_the_clocks_say(
    lake: Store, seconds_ago: float
) -> None:
    hold(lake, 7, host="elsewhere", machine="elsewhere")
    dated(lake, seconds_ago)
    with Lease(lake, "backfill-2") as mine:
        assert mine.epoch == 8


@pytest.mark.parametrize("seconds_ago", [7200, -7200])
@pytest.mark.usefixtures("quick")
def test_a_foreign_holder_that_renews_keeps_the_lake_whatever_the_clocks_say(
    lake: Store, seconds_ago: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "this_machine", lambda: "elsewhere")
    list_now = Store.list

    def list_wrongly(self: Store, prefix: str = "") -> Iterator[ObjectInfo]:
        off = timedelta(seconds=seconds_ago)
        return (replace(info, modified=info.modified - off) for info in list_now(self, prefix))

    monkeypatch.setattr(Store, "list", list_wrongly)
    with Lease(lake, "backfill-1") as mine:
        monkeypatch.setattr(lease, "this_machine", lambda: "here")
        with pytest.raises(LakeHeldError, match="held by run backfill-1"):
            Lease(lake, "backfill-2").__enter__()
        mine.confirm()


def test_a_dead_process_of_this_machine_loses_it_at_once(lake: Store) -> None:
    hold(lake, pid=NO_PID)
    with Lease(lake, "backfill-2") as mine:
        assert mine.epoch == 2


def test_a_process_that_nobody_has_waited_for_is_dead(lake: Store) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    hold(lake, pid=child.pid, process_started=process_start(child.pid))
    assert not holder(lake).is_gone()
    child.kill()
    deadline = time.monotonic() + 10
    while not holder(lake).is_gone() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert child.returncode is None
    with Lease(lake, "backfill-2"):
        pass
    child.communicate()


def test_a_later_process_of_the_same_number_is_not_the_holder(lake: Store) -> None:
    hold(lake, process_started="1")
    with Lease(lake, "backfill-2") as mine:
        assert mine.epoch == 2


def test_a_process_of_another_machine_that_has_our_name_is_not_looked_for_here(lake: Store) -> None:
    """As of two containers called localhost."""
    hold(lake, machine="elsewhere", pid=NO_PID)
    with pytest.raises(LakeHeldError):
        Lease(lake, "backfill-2").__enter__()


def test_of_many_that_take_a_dead_runs_lake_at_once_one_gets_it(lake: Store) -> None:
    hold(lake, pid=NO_PID)
    start, got, told = threading.Barrier(8), list[Lease](), list[LakeHeldError]()

    def take() -> None:
        mine = Lease(lake, "backfill-2")
        start.wait()
        try:
            got.append(mine.__enter__())
        except LakeHeldError as error:
            told.append(error)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (len(got), len(told)) == (1, 7)
    got[0].confirm()
    got[0].__exit__(None, None, None)


def test_who_looked_and_then_slept_through_the_next_tenures_is_told(
    lake: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epoch that it wants has come and gone, and its object with it."""
    hold(lake, 1, pid=NO_PID)
    seen = latest_claim(lake)
    with Lease(lake, "backfill-2"):
        pass
    with Lease(lake, "backfill-3"):
        pass
    monkeypatch.setattr(lease, "latest_claim", lambda store: seen)
    with pytest.raises(LakeHeldError, match="taken by another run just now"):
        Lease(lake, "backfill-1").__enter__()
    monkeypatch.undo()
    assert holder(lake).run_id == "backfill-3"
    assert len(list(lake.list(FOLDER))) == 1


@pytest.mark.usefixtures("quick")
def test_a_held_lease_is_renewed_and_no_late_renewal_brings_it_back(lake: Store) -> None:
    with Lease(lake, "backfill-1"):
        deadline = time.monotonic() + 10
        while holder(lake).num_renewals < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert holder(lake).num_renewals >= 2
    assert holder(lake).is_released


@pytest.mark.usefixtures("quick")
def test_who_slept_too_long_notices_and_leaves_the_new_holder_alone(lake: Store) -> None:
    with Lease(lake, "backfill-1") as mine:
        mine.confirm()
        hold(lake, 2, host="elsewhere", machine="elsewhere")
        time.sleep(0.05)
        with pytest.raises(LakeError, match=r"backfill-1 lost .*elsewhere"):
            mine.confirm()
    assert (holder(lake).host, holder(lake).is_released) == ("elsewhere", False)


def test_a_store_that_is_away_at_the_end_does_not_hide_how_the_run_ended(
    lake: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StorageError("away")

    mine = Lease(lake, "backfill-1").__enter__()
    monkeypatch.setattr(Store, "put", fail)
    mine.__exit__(ValueError, ValueError("odd"), None)
    assert not holder(lake).is_released


def test_who_holds_hears_that_it_does(tmp_path: Path) -> None:
    heard: list[str] = []
    with Lease(Store(str(tmp_path)), "run", on_renewal=lambda: heard.append("renewed")):
        assert heard == ["renewed"]
