"""What the hardware allows, and how much of it each stage and the whole backfill reach, in one run.

    python -m benchmarks.roofline [--events 4000] [--repeat 1] [--output result.json]

Bounds: objects from this machine's S3 server, many GETs in flight, in one process; and on one core,
inflating alone, float32 matrix products, and a bulk write of the same rows. A stage's rate is that of one
process on one core. The ceiling of the whole backfill is every stage at its bound, on all cores.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks._corpus import make_archives
from benchmarks._measure import interleaved, medians, report
from benchmarks._plain import time_stages
from benchmarks.backfill import planned, time_backfill
from cluster.local_s3 import local_s3
from rmsai_ray.backfill.bounds import inflated_bytes_per_s, largest_part, written_rows_per_s
from rmsai_ray.backfill.resolve import tasks_of
from rmsai_ray.encoding.flops import flops_per_window, sgemm_flops_per_s
from rmsai_ray.job import ray_session, show_logs
from rmsai_ray.models.checkpoint import load_model
from rmsai_ray.models.profiles import DEFAULT_PROFILE
from rmsai_ray.storage import Store

GETS_IN_FLIGHT = 16
LEADS = 7


@dataclass
class Options:
    """What to measure."""

    events: int = 4000
    repeat: int = 1
    output: Path | None = None


def main(options: Options) -> None:
    """Measures, prints, writes."""
    show_logs()
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - or this machine's S3 server goes first
    with local_s3() as server:
        os.environ.update(server.env())
        bucket = server.create_bucket("bench")
        num_bytes = make_archives(f"{bucket}/archives", options.events)
        bundle = load_model(DEFAULT_PROFILE)
        lakes = iter(range(100))
        stages: dict[str, list[float]] = {"read": [], "encode": [], "write": []}

        def stage_rates() -> float:
            run, units = planned(f"{bucket}/archives", f"{bucket}/stages-{next(lakes)}", 1)
            for stage, seconds in time_stages(tasks_of(run, on_gpu=False), units, 1).items():
                stages[stage].append(seconds)
            return 0.0

        with ray_session() as cluster:
            time_backfill(f"{bucket}/archives", f"{bucket}/warm", cluster)
            rows = largest_part(Store(f"{bucket}/warm"), bundle.model_id)
            found = interleaved(
                options.repeat,
                {
                    "objects": lambda: num_bytes / seconds_of_gets(f"{bucket}/archives"),
                    "inflating": inflated_bytes_per_s,
                    "matrix products": lambda: sgemm_flops_per_s(0.3),
                    "bulk write": lambda: written_rows_per_s(rows),
                    "stages": stage_rates,
                    "backfill": lambda: time_backfill(
                        f"{bucket}/archives", f"{bucket}/lake-{next(lakes)}", cluster
                    ),
                },
            )
    bound, stage_s = medians(found), medians(stages)
    show(options, num_bytes, flops_per_window(bundle.network), bound, stage_s)


def seconds_of_gets(uri: str) -> float:
    """Every object once."""
    store = Store(uri)
    keys = [info.key for info in store.list()]
    started = time.perf_counter()
    with ThreadPoolExecutor(GETS_IN_FLIGHT) as pool:
        for _ in pool.map(lambda key: len(store.get(key)), keys):
            pass
    return time.perf_counter() - started


def show(
    options: Options, num_bytes: int, flops: int, bound: dict[str, float], stage_s: dict[str, float]
) -> None:
    """Rates beside their bounds."""
    windows, cores = options.events * LEADS, os.cpu_count() or 1
    at_bound_s = {
        "read": num_bytes / bound["inflating"],
        "encode": windows * flops / bound["matrix products"],
        "write": windows / bound["bulk write"],
    }
    rows = {
        "objects, MB/s": bound["objects"] / 1e6,
        "inflating, MB/s of stored bytes": bound["inflating"] / 1e6,
        "matrix products, GFLOP/s": bound["matrix products"] / 1e9,
        "bulk write, rows/s": bound["bulk write"],
        "read, MB/s": num_bytes / stage_s["read"] / 1e6,
        "encode, GFLOP/s": windows * flops / stage_s["encode"] / 1e9,
        "encode, windows/s": windows / stage_s["encode"],
        "write, rows/s": windows / stage_s["write"],
        "backfill, events/minute": options.events / bound["backfill"] * 60,
        "backfill, MB/s": num_bytes / bound["backfill"] / 1e6,
    }
    ceiling_s = max(sum(at_bound_s.values()) / cores, num_bytes / bound["objects"])
    ratios = {
        **{f"{stage} / its bound": at_bound_s[stage] / stage_s[stage] for stage in at_bound_s},
        "backfill / its stages on all cores": sum(stage_s.values()) / cores / bound["backfill"],
        "backfill / every stage at its bound on all cores": ceiling_s / bound["backfill"],
    }
    binding = max(stage_s, key=lambda stage: stage_s[stage])
    report(
        f"Roofline of {options.events} events, {cores} cores; binding: {binding}",
        rows,
        ratios,
        options.output,
    )


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
