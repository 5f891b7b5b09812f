"""One run at a time works on a lake: each holder has an epoch, and only that of the highest may commit.

runs/lease/<epoch>.json

An epoch is taken by creating its object, which only one of several takers can. A living holder renews its
object, a run that ends marks it as released, and the highest one stays for ever: epochs never come again. No
clock of a holder decides anything. On the same machine a holder is dead when its process is gone; elsewhere,
when its object does not change while we watch.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from types import TracebackType
from uuid import uuid4

import psutil

from rmsai_ray.errors import LakeError, LakeHeldError, StorageError
from rmsai_ray.runs import now
from rmsai_ray.storage import ObjectInfo, Store

FOLDER = "runs/lease"
RENEW_S = 20.0
EXPIRES_S = 120.0
"""A foreign holder that was seen later is taken for alive without a second look."""
WATCH_S = 60.0
"""Three renewals. A foreign holder that shows none of them is dead."""
LOOK_AGAIN_S = 1.0

Confirm = Callable[[], None]
"""Raises LakeError where the lease is lost; called before what only the holder may do."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who works on a lake, or did."""

    run_id: str
    host: str
    machine: str
    """Kernel start and process namespace: where process numbers mean the same."""
    pid: int
    process_started: str
    """Tells a process from a later one of the same number."""
    since: str
    nonce: str
    num_renewals: int = 0
    is_released: bool = False

    def is_gone(self) -> bool:
        """Whether the holder has ended, as far as this machine can tell."""
        return self.is_released or (
            self.machine == this_machine() and process_start(self.pid) != self.process_started
        )

    def __str__(self) -> str:
        return f"run {self.run_id} (process {self.pid} on {self.host}, since {self.since})"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One epoch's object."""

    epoch: int
    info: ObjectInfo
    holder: Holder


class Lease:
    """Holds a lake for a run, as a context manager.

    Raises:
        LakeHeldError: another living run holds it; says which, where and since when.
    """

    epoch = 0
    """Number of this tenure, from 1; higher than that of every earlier one."""

    def __init__(self, store: Store, run_id: str, *, on_renewal: Callable[[], None] = lambda: None) -> None:
        self._store, self._me, self._on_renewal = store, _this_process(run_id), on_renewal
        self._stop = threading.Event()
        self._renewer = threading.Thread(target=self._renew, daemon=True, name="lease")

    def __enter__(self) -> Lease:
        claim = latest_claim(self._store)
        if claim is not None and not claim.holder.is_gone():
            _wait_for_death(self._store, claim)
        self.epoch = claim.epoch + 1 if claim else 1
        if not self._store.create(_key(self.epoch), self._content()):
            raise LakeHeldError(f"{self._store.uri} was taken by another run just now. Try again.")
        if not self._is_ours():  # we slept since we looked, and the epoch had come and gone
            self._store.delete([_key(self.epoch)])
            raise LakeHeldError(f"{self._store.uri} was taken by another run just now. Try again.")
        self._store.delete(_key(epoch) for epoch in _epochs(self._store) if epoch < self.epoch)
        self._on_renewal()
        self._renewer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._renewer.join()
        self._me = replace(self._me, is_released=True)
        try:
            if self._is_ours():
                self._store.put(_key(self.epoch), self._content())
        except StorageError as reason:
            log.warning("could not give %s back, which then happens by itself: %s", self._store.uri, reason)

    def confirm(self) -> None:
        """To be called before what only the holder may do.

        Raises:
            LakeError: another run took the lake meanwhile, e.g. while this machine slept.
        """
        if not self._is_ours():
            claim = latest_claim(self._store)
            raise LakeError(
                f"run {self._me.run_id} lost {self._store.uri} to {claim.holder if claim else 'nobody'}: it "
                "did not renew its lease in time. Finished units are kept; the same command goes on."
            )

    def _is_ours(self) -> bool:
        return max(_epochs(self._store), default=0) == self.epoch

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_S):
            self._me = replace(self._me, num_renewals=self._me.num_renewals + 1)
            try:
                if self._is_ours():
                    self._store.put(_key(self.epoch), self._content())
                    self._on_renewal()
            except StorageError:
                continue  # the next renewal comes well before the lease expires

    def _content(self) -> bytes:
        return json.dumps(asdict(self._me)).encode()


def latest_claim(store: Store) -> Claim | None:
    """The claim of the highest epoch: whoever holds the lake, or held it last."""
    while True:
        infos = {_epoch(info.key): info for info in store.list(FOLDER)}
        if not infos:
            return None
        epoch = max(infos)
        content = store.find(infos[epoch].key)
        if content is not None:  # else its taker has just given it up
            return Claim(epoch=epoch, info=infos[epoch], holder=Holder(**json.loads(content)))


def _wait_for_death(store: Store, claim: Claim) -> None:
    """Returns once a holder is known to be dead.

    A holder of this machine is alive as long as its process is. For another machine's, two clocks give a
    hint: the store's, which dates objects, and ours. A wrong one costs a wait or a second try, never a lake.
    """
    age_s = (now() - claim.info.modified).total_seconds()
    held = LakeHeldError(
        f"{store.uri} is held by {claim.holder}. "
        "Wait for it, or stop it; the lease of a dead run ends by itself."
    )
    if claim.holder.machine == this_machine() or 0 <= age_s < EXPIRES_S:
        raise held
    log.warning(
        "%s was held by %s; watching for %.0f s whether it still is", store.uri, claim.holder, WATCH_S
    )
    deadline = time.monotonic() + WATCH_S
    while time.monotonic() < deadline:
        time.sleep(LOOK_AGAIN_S)
        seen = latest_claim(store)
        if seen is None or (seen.epoch, seen.info.etag, seen.holder) != (
            claim.epoch,
            claim.info.etag,
            claim.holder,
        ):
            raise held


def process_start(pid: int) -> str:
    """What tells a living process from others of its number: "" where there is none.

    Counted from the start of the machine where that is known, since clocks are set while processes run.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        pass
    else:
        state, *others = stat.rpartition(")")[2].split()
        return "" if state in "ZX" else others[18]
    try:
        return str(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return ""


@cache
def this_machine() -> str:
    """What two processes share that see each other by number; a host's name may be that of many."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}/{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return f"{socket.gethostname()}/{psutil.boot_time():.0f}"


def _this_process(run_id: str) -> Holder:
    return Holder(
        run_id=run_id,
        host=socket.gethostname(),
        machine=this_machine(),
        pid=os.getpid(),
        process_started=process_start(os.getpid()),
        since=now().isoformat(timespec="seconds"),
        nonce=uuid4().hex,
    )


def _epochs(store: Store) -> list[int]:
    return [_epoch(info.key) for info in store.list(FOLDER)]


def _epoch(key: str) -> int:
    return int(key.rpartition("/")[2].removesuffix(".json"))


def _key(epoch: int) -> str:
    return f"{FOLDER}/{epoch:012}.json"
