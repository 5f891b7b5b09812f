"""Whether ten times the events take ten times the work, and the driver no more memory.

    python -m benchmarks.growth [--sizes 2000 20000] [--output result.json]

Runs ``jobs/backfill.py`` on local folders, a fresh lake for each size. 100,000 events take 20 GB of disk and
a quarter of an hour: ``--sizes 2000 20000 100000``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import tyro

from benchmarks._corpus import make_archives
from benchmarks._measure import report

ROOT = Path(__file__).parents[1]


@dataclass
class Options:
    """What to measure."""

    sizes: tuple[int, ...] = (2000, 20000)
    folder: Path | None = None
    """Where there is room; default: the system's folder for temporary files."""
    output: Path | None = None


def main(options: Options) -> None:
    """Measures, prints, writes."""
    rows: dict[str, Any] = {}
    worker_ms, elapsed_ms, driver_mib = [], [], []
    for size in options.sizes:
        with tempfile.TemporaryDirectory(prefix="rmsai-bench-", dir=options.folder) as name:
            make_archives(f"{name}/archives", size)
            rest_s, peak_bytes = run_job(Path(name))
            record = json.loads(next(Path(name).glob("lake/runs/*/run.json")).read_text())
        timings = record["timings_s"]
        stages = sum(timings[stage] for stage in ("read", "encode", "write"))
        worker_ms.append(1000 * stages / size)
        elapsed_ms.append(1000 * rest_s / size)
        driver_mib.append(peak_bytes / 2**20)
        rows[f"{size:,} events: ms of a worker per event"] = worker_ms[-1]
        rows[f"{size:,} events: ms elapsed per event, after the first unit"] = elapsed_ms[-1]
        rows[f"{size:,} events: MiB of the driver"] = driver_mib[-1]
    ratios = {
        "cost per event of the last size / of the first (worker)": worker_ms[-1] / worker_ms[0],
        "cost per event of the last size / of the first (elapsed)": elapsed_ms[-1] / elapsed_ms[0],
        "driver memory of the last size / of the first": driver_mib[-1] / driver_mib[0],
    }
    report("Growth", rows, ratios, options.output)


def run_job(folder: Path) -> tuple[float, int]:
    """(seconds from the first committed unit to the end, largest resident memory of the driver)."""
    lake = folder / "lake"
    command = [sys.executable, ROOT / "jobs/backfill.py", "--archives", folder / "archives", "--lake", lake]
    started, first_s, peak_bytes = time.perf_counter(), 0.0, 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
        driver = psutil.Process(job.pid)
        while job.poll() is None:
            peak_bytes = max(peak_bytes, driver.memory_info().rss)
            if not first_s and any(lake.glob("ledger/*/*.json")):
                first_s = time.perf_counter() - started
            time.sleep(0.1)
    if job.returncode:
        raise RuntimeError(f"the job ended with {job.returncode}")
    return time.perf_counter() - started - first_s, peak_bytes


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
