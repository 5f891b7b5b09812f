"""What ``--dry-run`` foretells, against what the run then does.

    python -m benchmarks.dry_run [--events 2000] [--output result.json]

From an S3 server of this machine to the same. Ratios are foretold / found; within 0.8 to 1.2 is right.
"""

from __future__ import annotations

import io
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from benchmarks._corpus import make_archives
from benchmarks._measure import report
from cluster.local_s3 import local_s3
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.estimate import estimate
from rmsai_ray.backfill.flow import backfill_once
from rmsai_ray.backfill.plan import list_archives
from rmsai_ray.backfill.resolve import find_todo, resolve
from rmsai_ray.job import show_logs
from rmsai_ray.storage import Store
from rmsai_ray.tables.manifest import load_manifest

MADE_BY_A_RUN = ("windows/", "events/", "rejects/", "lance/")


@dataclass
class Options:
    """What to measure."""

    events: int = 2000
    output: Path | None = None


def main(options: Options) -> None:
    """Foretells, runs, compares."""
    show_logs()
    with local_s3() as server:
        os.environ.update(server.env())
        bucket = server.create_bucket("bench")
        make_archives(f"{bucket}/archives", options.events)
        config = BackfillConfig(archives=f"{bucket}/archives", lake=f"{bucket}/lake")
        run = resolve(config)
        started = time.perf_counter()
        listing = list_archives(config)
        todo = find_todo(run, listing, load_manifest(run.lake, run.bundle.model_id))
        listing_s = time.perf_counter() - started
        expected = estimate(run, todo, num_listed=listing.num_rows, listing_s=listing_s)
        dry_run_s = time.perf_counter() - started
        started = time.perf_counter()
        summary = backfill_once(run, Console(file=io.StringIO()))
        seconds = time.perf_counter() - started
        written = {
            info.key: info.size for info in Store(config.lake).list() if info.key.startswith(MADE_BY_A_RUN)
        }
    rows = {
        "seconds of the dry run": dry_run_s,
        "seconds of the run": seconds,
        "seconds foretold": expected.seconds,
        "MiB read": summary.num_bytes["read"] / 2**20,
        "MiB written": sum(written.values()) / 2**20,
        "MiB written, foretold": expected.kept_bytes / 2**20,
        "units": summary.num_units,
        "PUT foretold": expected.num_puts,
    }
    ratios = {
        "seconds": expected.seconds / seconds,
        "bytes read": expected.read_bytes / summary.num_bytes["read"],
        "bytes written": expected.kept_bytes / sum(written.values()),
        "GET": expected.num_gets / sum(summary.archives.values()),
        "units": expected.num_units / summary.num_units,
    }
    report(f"Dry run of {options.events} events: foretold / found", rows, ratios, options.output)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
