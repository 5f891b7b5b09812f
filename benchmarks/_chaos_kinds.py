"""The rounds of the chaos runs: what is done to a lake, and which kinds of strikes that are."""

from __future__ import annotations

import json
import random
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks._chaos_local import clocks, disk
from benchmarks._chaos_scenes import RUN_TIMEOUT_S, SEES_RETRIES, RoundResult, Stage, Trigger
from benchmarks.lake_check import check_visible
from rmsai_ray.storage import Store
from rmsai_ray.tables.lease import latest_claim

HELD = 4
"""Exit code of a run that finds the lake held by another."""
POINTS: dict[str, tuple[tuple[str, str], ...]] = {
    "driver-start": (("PUT", r"/runs/lease/"), ("PUT", r"/runs/backfill-[^/]+/run\.json$")),
    "driver-part": (("PUT", r"/(windows|events)/model="), ("PUT", r"\.lance/data/")),
    "driver-ledger": (("PUT", r"/ledger/model="),),
    "driver-publish": (("PUT", r"\.lance/_(versions|transactions)/"),),
    "driver-fold": (("PUT", r"/archives/model=[^/]+/manifest\.parquet$"),),
    "driver-fold-end": (("DELETE", r"/ledger/model="),),
    "driver-term": (("PUT", r"/ledger/model="), ("PUT", r"/windows/model=")),
    "compact-part": (("PUT", r"/compact-"),),
    "compact-layout": (("PUT", r"/layout\.json$"),),
    "compact-remove": (("DELETE", r"/(windows|events|rejects)/model="),),
    "compact-vectors": (("PUT", r"\.lance/_(versions|transactions)/"),),
}
"""Kind → requests (method, path) at which it strikes."""
MOST = {"driver-part": 5, "driver-ledger": 2, "driver-term": 2, "compact-part": 3, "compact-remove": 6}
"""Of how many such requests one is chosen; else the first."""
CYCLE = (
    ("driver-start", False),
    ("driver-publish", False),
    ("driver-publish", False),
    ("driver-start", True),
    ("driver-publish", True),
    ("driver-fold", False),
    ("driver-fold", False),
    ("driver-fold", True),
    ("driver-fold-end", False),
    ("driver-fold-end", True),
)
"""(point, whether after the request): what may strike while the next driver settles a finished unit, in the
order in which it comes to that."""
COMPACTION = ("compact-part", "compact-layout", "compact-remove", "compact-vectors")
NUM_CYCLES, NUM_WORKERS = 4, 3
FAULT_PERCENT = {"503": 20, "lost": 10, "short": 25, "hang": 2}


@dataclass(frozen=True)
class Round:
    """One way to treat a lake."""

    play: Callable[[Stage, random.Random], RoundResult]
    kinds: tuple[str, ...]
    weight: float


def drivers(stage: Stage, dice: random.Random) -> RoundResult:
    """Kills one driver after the other, most of them while they settle what the killed ones had finished."""
    result, lake = RoundResult(), stage.new_lake(stage.base)
    plan: list[tuple[str, bool]] = []
    for _ in range(NUM_CYCLES):
        if dice.random() < 0.5:
            plan.append((dice.choice(("driver-part", "driver-term")), dice.random() < 0.5))
        chosen = sorted(dice.sample(range(len(CYCLE)), dice.randint(5, 8)))
        plan += [("driver-ledger", True), *(CYCLE[place] for place in chosen)]
    for point, is_after in plan:
        if not _kill(stage, dice, point, is_after, lake, result):
            break
    stage.finish(lake)
    return result.compared(stage, lake)


def _kill(
    stage: Stage, dice: random.Random, point: str, is_after: bool, lake: str, result: RoundResult
) -> bool:
    """Starts a backfill and kills it; False where it ended before."""
    driver, kind = stage.backfill(lake), point.removesuffix("-end")
    number = signal.SIGTERM if kind == "driver-term" else signal.SIGKILL
    trigger = _trigger(dice, point, lambda: driver.kill(number), is_after=is_after)
    struck, seen = stage.kill_at(driver, kind, trigger)
    result.note(kind if struck else "", seen + check_visible(lake))
    return struck


def _trigger(
    dice: random.Random, point: str, strike: Callable[[], bool], *, is_after: bool, loses: bool = True
) -> Trigger:
    method, path = dice.choice(POINTS[point])
    return Trigger(
        method=method,
        path=re.compile(path),
        count=dice.randint(1, MOST.get(point, 1)),
        is_after=is_after,
        strike=strike,
        loses_request=loses,
    )


def compaction(stage: Stage, dice: random.Random) -> RoundResult:
    """Kills compactions of a finished lake."""
    result, lake = RoundResult(), stage.new_lake(stage.done)
    for point in sorted(COMPACTION + tuple(dice.choices(COMPACTION, k=4)), key=COMPACTION.index):
        driver = stage.maintain(lake)
        trigger = _trigger(dice, point, driver.kill, is_after=dice.random() < 0.3)
        struck, seen = stage.kill_at(driver, "compaction-killed", trigger)
        result.note(f"compaction-killed ({point})" if struck else "", seen + check_visible(lake))
    stage.finish(lake)
    if stage.maintain(lake).wait(RUN_TIMEOUT_S):
        result.wrong("a compaction without disturbance failed")
    return result.compared(stage, lake)


def workers(stage: Stage, dice: random.Random) -> RoundResult:
    """Kills encoders, other workers and the second node under a run, which goes on."""
    result, lake = RoundResult(), stage.new_lake(stage.base)
    kinds = [dice.choice(("encoder", "worker")) for _ in range(NUM_WORKERS - 1)]
    kinds.insert(dice.randrange(NUM_WORKERS), "raylet")
    strikes = {
        "encoder": lambda: stage.nodes.kill_encoder(dice),
        "worker": lambda: stage.nodes.kill_worker(dice),
        "raylet": stage.nodes.kill_second_node,
    }
    driver = stage.backfill(lake)
    for kind in kinds:
        trigger = _trigger(dice, "driver-part", strikes[kind], is_after=dice.random() < 0.5, loses=False)
        if stage.strike_at(driver, kind, trigger):
            result.note(kind, check_visible(lake))
            if kind == "raylet":
                stage.nodes.rejoin()
    if driver.wait(RUN_TIMEOUT_S) != 0:
        result.struck.append(f"run ended with {driver.exit_code}")
    stage.finish(lake)
    return result.compared(stage, lake)


def storage(fault: str) -> Callable[[Stage, random.Random], RoundResult]:
    """A round in which the S3 server fails in one way."""

    def play(stage: Stage, dice: random.Random) -> RoundResult:
        result, lake = RoundResult(), stage.new_lake(stage.base)
        before = stage.proxy.faults[fault]
        stage.strikes.fault, stage.strikes.percent = fault, FAULT_PERCENT[fault]
        stage.strikes.salt = dice.randrange(1 << 30)
        driver = stage.backfill(lake)
        code = driver.wait(RUN_TIMEOUT_S)
        stage.strikes.calm()
        num_faults = stage.proxy.faults[fault] - before
        stage.count(f"storage-{fault}", kills=0, times=num_faults)
        result.note(f"{num_faults} x storage-{fault} (run ended with {code})", check_visible(lake))
        stage.finish(lake, "--retry-quarantined")
        return result.compared(stage, lake, *SEES_RETRIES)

    return play


def rivals(stage: Stage, dice: random.Random) -> RoundResult:
    """Two backfills at once; a compaction during a backfill; both in a lake where a run has died."""
    result, lake = RoundResult(), stage.new_lake(stage.base)
    _kill(stage, dice, "driver-ledger", True, lake, result)
    both = [stage.backfill(lake) for _ in range(2)]
    maintenance = []

    def compact() -> bool:
        maintenance.append(stage.maintain(lake))
        return True

    trigger = _trigger(dice, "driver-ledger", compact, is_after=False, loses=False)
    if stage.strike_at(both[0], "compaction-during-backfill", trigger, kills=0, others=both[1:]):
        result.struck.append("compaction-during-backfill")
    codes = sorted(each.wait(RUN_TIMEOUT_S) for each in both)
    stage.count("two-at-once", kills=0)
    result.note("two-at-once", check_visible(lake))
    refused = [each for each in (*both, *maintenance) if each.wait(RUN_TIMEOUT_S) == HELD]
    if codes != [0, HELD] or any(each not in refused for each in maintenance):
        result.wrong(f"two at once ended with {codes}: {both[0].output()} {both[1].output()}")
    for each in refused:
        if "held by run backfill-" not in each.output().replace("\n", " "):
            result.wrong(f"it is not told who holds the lake: {each.output()}")
    return result.compared(stage, lake)


def foreign(stage: Stage, dice: random.Random) -> RoundResult:
    """A holder on another machine: dead, or only asleep in the middle of a commit."""
    result, lake = RoundResult(), stage.new_lake(stage.base)
    _kill(stage, dice, "driver-ledger", True, lake, result)
    _move_claim(lake)
    refused = stage.backfill(lake)
    if refused.wait(RUN_TIMEOUT_S) != HELD or "elsewhere" not in refused.output():
        result.wrong(f"a claim of another host was taken at once: {refused.output()}")
    quick = {"tables.lease.EXPIRES_S": 0.0, "tables.lease.WATCH_S": 2.0}
    sleeper = stage.backfill(lake, tweaks=quick)

    def sleep() -> bool:
        """What the sleeper has just sent arrives after another run has taken the lake and ended."""
        sleeper.kill(signal.SIGSTOP)
        _move_claim(lake)
        heir = stage.backfill(lake, tweaks=quick)
        if heir.wait(RUN_TIMEOUT_S) != 0:
            result.wrong(f"the run that took the lake ended with {heir.exit_code}: {heir.output()}")
        return sleeper.kill(signal.SIGCONT)

    kind = dice.choice(("driver-publish", "driver-fold"))
    trigger = _trigger(dice, kind, sleep, is_after=False, loses=False)
    if stage.strike_at(sleeper, "asleep", trigger, kills=0):
        result.note(f"asleep ({kind})", check_visible(lake))
    stage.count("dead-claim", kills=0)
    result.struck.append("dead-claim")
    if sleeper.wait(RUN_TIMEOUT_S) == 0 and trigger.struck.is_set():
        result.wrong(f"a run that had lost the lake did not notice: {sleeper.output()}")
    stage.finish(lake)
    return result.compared(stage, lake)


def _move_claim(lake: str) -> None:
    """The claim of a lake becomes that of another machine."""
    store = Store(lake)
    claim = latest_claim(store)
    assert claim is not None
    there = {**vars(claim.holder), "host": "elsewhere", "machine": "elsewhere"}
    store.put(claim.info.key, json.dumps(there).encode())


ROUNDS = {
    "drivers": Round(
        drivers,
        ("driver-start", "driver-part", "driver-ledger", "driver-publish", "driver-fold", "driver-term"),
        8.0,
    ),
    "compaction": Round(compaction, ("compaction-killed",), 3.0),
    "workers": Round(workers, ("encoder", "worker", "raylet"), 2.0),
    "storage-503": Round(storage("503"), ("storage-503",), 0.3),
    "storage-lost": Round(storage("lost"), ("storage-lost",), 1.0),
    "storage-short": Round(storage("short"), ("storage-short",), 0.3),
    "storage-hang": Round(storage("hang"), ("storage-hang",), 0.3),
    "rivals": Round(rivals, ("two-at-once", "compaction-during-backfill"), 0.5),
    "foreign": Round(foreign, ("dead-claim", "asleep"), 0.5),
    "disk": Round(disk, ("disk-full",), 0.3),
    "clocks": Round(clocks, ("clock-jump",), 0.3),
}
KINDS = tuple(kind for each in ROUNDS.values() for kind in each.kinds)
