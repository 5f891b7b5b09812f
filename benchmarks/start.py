"""How long a newcomer waits: from the command to the first committed unit, and to the end.

    python -m benchmarks.start [--events 100] [--repeat 3] [--output result.json]

Runs ``jobs/backfill.py`` as people do, with a Ray of its own, on a fresh lake, and looks for the first ledger
entry, which is what makes a unit's rows safe.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks._corpus import make_archives
from benchmarks._measure import interleaved, medians, report

ROOT = Path(__file__).parents[1]


@dataclass
class Options:
    """What to measure."""

    events: int = 100
    repeat: int = 3
    output: Path | None = None


def main(options: Options) -> None:
    """Measures, prints, writes."""
    with tempfile.TemporaryDirectory(prefix="rmsai-bench-") as name:
        folder = Path(name)
        make_archives(str(folder / "archives"), options.events)
        lakes = iter(range(options.repeat))
        seconds_to_end: list[float] = []

        def first_unit() -> float:
            first, end = time_job(folder / "archives", folder / f"lake-{next(lakes)}")
            seconds_to_end.append(end)
            return first

        found = interleaved(options.repeat, {"first committed unit": first_unit})
    found["end"] = seconds_to_end
    report(f"Seconds from the command, {options.events} events", medians(found), {}, options.output)


def time_job(archives: Path, lake: Path) -> tuple[float, float]:
    """Seconds until a unit is committed, and until the job has ended."""
    command = [sys.executable, ROOT / "jobs/backfill.py", "--archives", archives, "--lake", lake]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
        while not any(lake.glob("ledger/*/*.json")) and job.poll() is None:
            time.sleep(0.02)
        first = time.perf_counter() - started
    if job.returncode:
        raise RuntimeError(f"the job ended with {job.returncode}")
    return first, time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
