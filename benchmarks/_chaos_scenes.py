"""The stage of the chaos runs: archives, lakes, a Ray of two nodes, a proxy that strikes, and the checker."""

from __future__ import annotations

import os
import random
import re
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks._chaos_drivers import Driver, Nursery, wait_until
from benchmarks._chaos_ray import TwoNodes
from benchmarks._flaky_proxy import Fault, FlakyProxy, Request
from benchmarks.lake_check import Findings, Tables, check_visible, compare_with, read_lake
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.storage import Store

BUCKET = "tests"
NUM_ARCHIVES, NUM_BEFORE, NUM_CHANGED, EVENTS_PER_ARCHIVE = 20, 8, 3, 1
UNIT_BYTES = 400_000
"""Two archives each."""
RUN_TIMEOUT_S = 400.0
SEES_RETRIES = ("attempts",)
"""What storage faults may change: how often an archive was asked for."""


@dataclass
class Trigger:
    """Strikes once, at the n-th request of a kind: before it is passed on, or after it was carried out."""

    method: str
    path: re.Pattern[str]
    count: int
    is_after: bool
    strike: Callable[[], bool]
    loses_request: bool = True
    """Whether the client hears nothing any more; always where it is who dies."""
    num_seen: int = 0
    struck: threading.Event = field(default_factory=threading.Event)

    def sees(self, request: Request) -> bool:
        """Counts the request; whether it is the one."""
        if request.method != self.method or not self.path.search(request.path):
            return False
        self.num_seen += 1
        return self.num_seen == self.count


class Strikes:
    """What the proxy does: kills at chosen requests, and faults by chance."""

    def __init__(self) -> None:
        self.trigger: Trigger | None = None
        self._waiting: dict[Request, Trigger] = {}
        self._lock = threading.Lock()
        self.fault: Fault = None
        self.percent = 0
        self.salt = 0
        self.pattern = re.compile("")

    def choose(self, request: Request) -> Fault:
        """For :func:`benchmarks._flaky_proxy.flaky_proxy`."""
        with self._lock:
            trigger = self.trigger if self.trigger is not None and self.trigger.sees(request) else None
            if trigger is not None:
                self.trigger = None
                if trigger.is_after:
                    self._waiting[request] = trigger
        if trigger is not None:
            if trigger.is_after:
                return "lost" if trigger.loses_request else None
            _strike(trigger)
            return "reset" if trigger.loses_request else None
        if self.fault and self.pattern.search(request.path):
            text = f"{self.salt}/{request.method}/{request.path.rpartition('/')[2]}/{request.num_before}"
            if zlib.crc32(text.encode()) % 100 < self.percent and self._is_possible(request):
                return self.fault
        return None

    def carried_out(self, request: Request) -> None:
        """For the same: strikes that come after their request."""
        trigger = self._waiting.pop(request, None)
        if trigger is not None:
            _strike(trigger)

    def _is_possible(self, request: Request) -> bool:
        return request.method == "GET" if self.fault == "short" else True

    def calm(self) -> None:
        """No more strikes."""
        self.trigger, self.fault = None, None


def _strike(trigger: Trigger) -> None:
    if trigger.strike():
        trigger.struck.set()


@dataclass
class Stage:
    """What all scenes play on."""

    folder: Path
    nursery: Nursery
    nodes: TwoNodes
    proxy: FlakyProxy
    strikes: Strikes
    tally: Counter[str] = field(default_factory=Counter)
    """Kills and faults that struck, by kind."""
    num_kills: int = 0
    archives: str = f"s3://{BUCKET}/archives"
    base: dict[str, bytes] = field(default_factory=dict)
    """The lake before a round, with work to do."""
    done: dict[str, bytes] = field(default_factory=dict)
    """The lake of an undisturbed run."""
    reference: dict[str, Tables] = field(default_factory=dict)
    num_lakes: int = 0

    def prepare(self) -> None:
        """Archives of which some are in the lake already, and a few of these have changed since; a copy, and
        a broken one.

        Raises:
            RuntimeError: a backfill without disturbance failed.
        """
        archives = Store(self.archives)
        for patient in range(NUM_BEFORE):
            archives.put(*simulate_archive(patient, EVENTS_PER_ARCHIVE, seed=0))
        lake = f"s3://{BUCKET}/prepared"
        self.finish(lake)
        self.base = _contents(lake)
        for patient in range(NUM_CHANGED):
            archives.put(*simulate_archive(patient, EVENTS_PER_ARCHIVE, seed=1))
        for patient in range(NUM_BEFORE, NUM_ARCHIVES):
            archives.put(*simulate_archive(patient, EVENTS_PER_ARCHIVE, seed=0))
        name, content = simulate_archive(NUM_BEFORE - 1, EVENTS_PER_ARCHIVE, seed=0)
        archives.put(f"copy-of-{name}", content)
        archives.put("broken.h5", content[: len(content) // 2])
        self.finish(lake)
        self.done, self.reference = _contents(lake), read_lake(lake)

    def new_lake(self, objects: dict[str, bytes]) -> str:
        """A lake with these objects."""
        self.num_lakes += 1
        return self.write_lake(f"s3://{BUCKET}/lake-{self.num_lakes}", objects)

    def write_lake(self, uri: str, objects: dict[str, bytes]) -> str:
        """The same in a given place."""
        store = Store(uri)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.put(key, objects[key]), objects))
        return uri

    def backfill(
        self, lake: str, *options: str, tweaks: dict[str, float] | None = None, shift_s: float = 0.0
    ) -> Driver:
        """Starts one."""
        given = ("--archives", self.archives, "--lake", lake, "--unit-bytes", str(UNIT_BYTES))
        given += ("--max-reject-fraction", "0.5")
        return self.nursery.start("backfill", *given, *options, tweaks=tweaks, shift_s=shift_s)

    def maintain(self, lake: str) -> Driver:
        """Starts a compaction."""
        return self.nursery.start("maintain", "--lake", lake)

    def finish(self, lake: str, *options: str) -> None:
        """A backfill without disturbance."""
        driver = self.backfill(lake, *options)
        if driver.wait(RUN_TIMEOUT_S) != 0:
            raise RuntimeError(f"an undisturbed backfill ended with {driver.exit_code}:\n{driver.output()}")

    def kill_at(self, driver: Driver, kind: str, trigger: Trigger) -> tuple[bool, Findings]:
        """Waits for the end of a driver that is to be struck; whether it was, and an end that must not be."""
        self.strikes.trigger = trigger
        code = driver.wait(RUN_TIMEOUT_S)
        self.strikes.calm()
        if trigger.struck.is_set():
            self.count(kind)
            return True, Findings()
        if code == 0:
            return False, Findings()
        return False, Findings(differing=1, examples=(f"ended with {code}: {driver.output()}",))

    def strike_at(
        self, driver: Driver, kind: str, trigger: Trigger, *, kills: int = 1, others: Sequence[Driver] = ()
    ) -> bool:
        """Waits until something was struck, while drivers go on; False where they end before."""
        self.strikes.trigger = trigger
        everybody = (driver, *others)
        wait_until(
            lambda: trigger.struck.is_set() or all(each.ended.is_set() for each in everybody), RUN_TIMEOUT_S
        )
        self.strikes.calm()
        if trigger.struck.is_set():
            self.count(kind, kills=kills)
        return trigger.struck.is_set()

    def count(self, kind: str, *, kills: int = 1, times: int = 1) -> None:
        """Notes that a kind has struck."""
        self.tally[kind] += times
        self.num_kills += kills

    def compare(self, lake: str, *ignored: str) -> Findings:
        """A finished lake against that of the undisturbed run."""
        return check_visible(lake) + compare_with(lake, self.reference, ignored)

    def forget(self, lake: str) -> None:
        """Removes a lake."""
        store = Store(lake)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda info: store.delete([info.key]), list(store.list())))


@dataclass
class RoundResult:
    """What happened in a round."""

    struck: list[str] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)

    def note(self, what: str, found: Findings) -> None:
        """A strike ("" for none), and what readers saw after it."""
        if what:
            self.struck.append(what)
        if found:
            self.findings += Findings(examples=(f"after {what or 'a run'}:",)) + found

    def wrong(self, what: str) -> None:
        """Something else that must not be."""
        self.findings += Findings(differing=1, examples=(what,))

    def compared(self, stage: Stage, lake: str, *ignored: str) -> RoundResult:
        """With the finished lake against that of the undisturbed run; the lake goes, unless it is wrong."""
        self.findings += stage.compare(lake, *ignored)
        if not self.findings:
            stage.forget(lake)
        return self


def _contents(uri: str) -> dict[str, bytes]:
    store = Store(uri)
    return {info.key: store.get(info.key) for info in list(store.list())}


def seeded(seed: int, *names: object) -> random.Random:
    """Dice of their own for each purpose, so that one scene's do not change another's."""
    return random.Random(f"{seed}/{'/'.join(map(str, names))}")


def environment_of(proxy: FlakyProxy, backend: dict[str, str]) -> None:
    """From here on this process and all that it starts reach the S3 server through the proxy."""
    os.environ.update(backend | {"AWS_ENDPOINT_URL": proxy.endpoint})
