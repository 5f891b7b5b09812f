"""Hostile archives: what becomes of each kind, and what that takes; and what the limits cost clean archives.

    python -m benchmarks.hostile [--archives 20] [--repeat 7] [--output result.json] [--json]

Each kind is read as a backfill reads it, with the usual limits. Memory is what a process's peak exceeds its
memory before; of a parser that died it is not known. Clean archives are read with the account of limits and
without (its methods do nothing), and all of them in the process that HDF5's library is in, which backfills
ask for unusual ones only. CPU time of both processes, medians over interleaved repeats.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import tyro

from benchmarks._measure import interleaved, medians, report
from benchmarks._reading import Reading, measured
from rmsai_ray.archives.guard import close_parser, parser_pid, read_guarded
from rmsai_ray.archives.hostile import hostile_files
from rmsai_ray.archives.limits import Budget
from rmsai_ray.archives.reader import DEFAULTS, read_archive
from rmsai_ray.archives.simulator import simulate_archive

EVENTS_PER_ARCHIVE = 10


@dataclass
class Options:
    """What to measure."""

    archives: int = 20
    repeat: int = 7
    output: Path | None = None
    json: bool = False
    """Only the hostile files, one JSON object; nothing else is printed."""


class Unlimited(Budget):
    """An account that is not kept."""

    def charge(self, num_bytes: int, where: str) -> None:
        """Nothing."""

    def charge_json(self, content: str, where: str) -> int:
        """Nothing."""
        return 0

    def refund(self, num_bytes: int) -> None:
        """Nothing."""

    def tick(self) -> None:
        """Nothing."""

    def enter(self, path: str) -> None:
        """Nothing."""

    def count_members(self, count: int) -> None:
        """Nothing."""

    def count_attributes(self, count: int) -> None:
        """Nothing."""

    def count_rate(self, rate_hz: float) -> None:
        """Nothing."""


def main(options: Options) -> None:
    """Measures, prints, writes."""
    readings = read_all()
    if options.json:
        sys.stdout.write(json.dumps({kind: asdict(reading) for kind, reading in readings.items()}))
        close_parser()
        return
    worst = {
        "kinds of hostile files": len(readings),
        "refused": sum(bool(reading.reasons) for reading in readings.values()),
        "most CPU time of the worker (s)": max(reading.cpu_s for reading in readings.values()),
        "most time (s)": max(reading.elapsed_s for reading in readings.values()),
        "most memory of the worker (MiB)": max(reading.worker_mib for reading in readings.values()),
        "most memory of the parser (MiB)": max(reading.parser_mib for reading in readings.values()),
    }
    rows: dict[str, Any] = {kind: describe(reading) for kind, reading in readings.items()}
    seconds = medians(interleaved(options.repeat, clean_ways(options.archives)))
    num_events = options.archives * EVENTS_PER_ARCHIVE
    rows |= worst | {f"{name} (events per CPU-second)": num_events / each for name, each in seconds.items()}
    ratios = {
        "with limits / without, CPU time": seconds["with limits"] / seconds["without limits"],
        "in the other process / with limits, CPU time": seconds["in the other process"]
        / seconds["with limits"],
    }
    report("Hostile archives, and what limits cost", rows, ratios, options.output)
    close_parser()


def read_all() -> dict[str, Reading]:
    """Every kind; the parser is started before, so that its memory can be looked at."""
    files = hostile_files()
    newest = files["layout_latest"]
    measured(newest.content, newest.file_name)
    found = {}
    for kind, file in files.items():
        found[kind] = measured(file.content, file.file_name)
        if parser_pid() is None:
            measured(newest.content, newest.file_name)
    return found


def describe(reading: Reading) -> str:
    """One line about a kind."""
    outcome = ", ".join(reading.reasons) or f"{reading.num_events} events"
    memory = f"{reading.worker_mib:.0f} + {reading.parser_mib:.0f} MiB"
    return f"{outcome}; {memory}; {reading.cpu_s:.2f} s CPU, {reading.elapsed_s:.2f} s"


def clean_ways(num_archives: int) -> dict[str, Any]:
    """CPU seconds for all clean archives, by way of reading them."""
    archives = [simulate_archive(i, EVENTS_PER_ARCHIVE, seed=0) for i in range(num_archives)]

    def direct(kind: type[Budget]) -> float:
        started = time.process_time()
        for name, raw in archives:
            read_archive(raw, name, archive_id="given", budget=kind(len(raw)))
        return time.process_time() - started

    def guarded() -> float:
        started = time.process_time() + _parser_s()
        for name, raw in archives:
            budget = Budget(len(raw))
            read_guarded(raw, name, options=asdict(DEFAULTS), archive_id="given", detour=None, budget=budget)
        return time.process_time() + _parser_s() - started

    return {
        "without limits": partial(direct, Unlimited),
        "with limits": partial(direct, Budget),
        "in the other process": guarded,
    }


def _parser_s() -> float:
    pid = parser_pid()
    if pid is None:
        return 0.0
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main(tyro.cli(Options))
