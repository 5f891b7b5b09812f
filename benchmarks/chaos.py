"""Strikes running backfills in many ways, lets each be finished, and compares with an undisturbed run.

    python -m benchmarks.chaos [--seed 0] [--rounds N | --minutes 28] [--kinds driver-part storage-lost …]

Real jobs on a real Ray of two nodes and a real S3 server, behind a proxy that strikes at chosen requests.
Each round takes a lake with some archives in it, of which a few have changed since, and strikes several
times; after each strike the documented queries must show nothing unfinished and nothing twice; then the
same command runs to its end, and an independent program (``benchmarks/lake_check.py``) compares. The seed
decides rounds, kinds and requests. Prints a line per round and JSON at the end; exits with 1 where anything
is lost, twice, different or too soon, and where a kind never struck.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks._chaos_drivers import nursery
from benchmarks._chaos_kinds import KINDS, ROUNDS
from benchmarks._chaos_ray import two_nodes
from benchmarks._chaos_scenes import BUCKET, RoundResult, Stage, Strikes, environment_of, seeded
from benchmarks._flaky_proxy import flaky_proxy
from benchmarks.lake_check import Findings
from cluster.local_s3 import local_s3

LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Without it Ray takes the loopback's address for that of the network card."""
HANG_S = 8.0
"""Longer than a read may be silent."""
TALLEST_RUN_S = 90.0


@dataclass
class Options:
    """How long, and what."""

    seed: int = 0
    """Of rounds, kinds and requests; the archives are always the same."""
    rounds: int | None = None
    """So many, however long they take."""
    minutes: float = 28.0
    """Without ``--rounds``: no round begins that might end later."""
    kinds: tuple[str, ...] = ()
    """Only rounds that have one of these; else all."""


def main(options: Options) -> int:
    """Prepares, strikes, compares; the exit code."""
    unknown = set(options.kinds) - set(KINDS)
    if unknown:
        print(f"no such kinds: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}", file=sys.stderr)
        return 2
    total, lines = Findings(), 0
    with stage() as played:
        began = time.monotonic()
        for number, name in enumerate(_schedule(options), 1):
            if options.rounds is None and time.monotonic() - began > 60 * options.minutes - TALLEST_RUN_S:
                break
            started = time.monotonic()
            result = ROUNDS[name].play(played, seeded(options.seed, number, name))
            total, lines = total + result.findings, number
            _tell(number, name, result, time.monotonic() - started)
        elapsed_s = time.monotonic() - began
    wanted = [kind for name in _rounds_of(options) for kind in ROUNDS[name].kinds]
    return _summary(played, total, lines, elapsed_s, wanted)


@contextmanager
def stage() -> Iterator[Stage]:
    """Server, proxy, Ray and archives, with everything prepared."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), LOOPBACK_ONLY: "0"}
    strikes = Strikes()
    with (
        tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as name,
        local_s3() as server,
        flaky_proxy(server.endpoint, strikes.choose, carried_out=strikes.carried_out, hang_s=HANG_S) as proxy,
    ):
        server.create_bucket(BUCKET)
        environment_of(proxy, server.env())
        with (
            two_nodes() as nodes,
            nursery(Path(name), {**os.environ, "RAY_ADDRESS": nodes.address}) as drivers,
        ):
            made = Stage(Path(name), drivers, nodes, proxy, strikes)
            made.prepare()
            yield made


def _rounds_of(options: Options) -> list[str]:
    wanted = set(options.kinds)
    return [name for name, scene in ROUNDS.items() if not wanted or wanted & set(scene.kinds)]


def _schedule(options: Options) -> Iterator[str]:
    """Each round once, then as often as they weigh."""
    names = _rounds_of(options)
    dice = seeded(options.seed, "schedule")
    weights = [ROUNDS[name].weight for name in names]
    number = 0
    while options.rounds is None or number < options.rounds:
        yield names[number] if number < len(names) else dice.choices(names, weights)[0]
        number += 1


def _tell(number: int, name: str, result: RoundResult, elapsed_s: float) -> None:
    struck = ", ".join(result.struck) or "nothing struck"
    print(f"{number:>4}  {name}, {elapsed_s:.0f} s: {struck}: {result.findings}", flush=True)


def _summary(played: Stage, total: Findings, num_rounds: int, elapsed_s: float, wanted: list[str]) -> int:
    tables = list(played.reference.values())
    statuses = [status for each in tables for status in each.archives["status"].to_pylist()]
    missed = sorted(set(wanted) - set(played.tally))
    print(
        json.dumps(
            {
                "listed": len(statuses),
                **{name: statuses.count(name) for name in ("committed", "quarantined", "skipped")},
                "stored": sum(each.windows.num_rows for each in tables),
                "missing": total.lost,
                "duplicates": total.duplicated,
                "differing": total.differing + total.added,
                "unfinished": total.stray,
                "kills": played.num_kills,
                "strikes": sum(played.tally.values()),
                "kinds": dict(sorted(played.tally.items())),
                "never struck": missed,
                "rounds": num_rounds,
                "minutes": round(elapsed_s / 60, 1),
                "examples": total.examples,
            },
            indent=2,
        )
    )
    return 1 if total or missed else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
