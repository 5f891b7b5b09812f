"""The whole backfill, from an S3 server to committed tables, against its stages, scripts and the original.

    python -m benchmarks.backfill [--events 2000] [--repeat 1] [--output result.json]

Archives are simulated, ten events of seven leads each, on an S3 server of this machine; the model is the
packaged default. Ray runs already when the clock starts; its actors start anew for every run. Beside it:

- each stage alone, from memory to memory, in one process and in one per core;
- a script that runs the same classes in plain processes, one per core, without Ray;
- a script with torch's DataLoader, of the kind that people write: idiomatic h5py on local files, the same
  network in torch, no rhythm, quality, detectors or thresholds, no commit protocol;
- the original's loop, re-created: its own windows and network, one at a time, one insert per row.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import tyro

from benchmarks._corpus import EVENTS_PER_ARCHIVE, make_archives
from benchmarks._measure import medians, report
from benchmarks._plain import (
    STAGES,
    original_bundle,
    process_units,
    process_with_dataloader,
    seconds_per_event_of_original,
    time_stages,
)
from cluster.local_s3 import local_s3
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.pipeline import run_units
from rmsai_ray.backfill.plan import Unit, list_archives
from rmsai_ray.backfill.resolve import Run, find_todo, plan_units, resolve, shelve, tasks_of
from rmsai_ray.compute import Cluster, plan_stages
from rmsai_ray.job import ray_session, show_logs
from rmsai_ray.models.checkpoint import save_checkpoint
from rmsai_ray.storage import Store
from rmsai_ray.tables.manifest import load_manifest
from rmsai_ray.tables.units import settle

MEMORY_EVERY_S = 5.0
"""Looking at the memory of all processes takes time from them: the plain script has it looked at, too."""


@dataclass
class Options:
    """What to measure."""

    events: int = 2000
    """Of the pipeline and of the plain script."""
    stage_events: int = 1000
    """Of each stage alone, which is kept in memory."""
    peer_events: int = 500
    """Of the script with a DataLoader, and of the pipeline with the original's network."""
    original_events: int = 4
    repeat: int = 1
    output: Path | None = None


def main(options: Options) -> None:
    """Measures, prints, writes."""
    show_logs()
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - or this machine's S3 server goes first
    with tempfile.TemporaryDirectory(prefix="rmsai-bench-") as name, local_s3() as server:
        folder = Path(name)
        os.environ.update(server.env())
        bucket = server.create_bucket("bench")
        make_archives(f"{bucket}/archives", options.events)
        make_archives(f"{bucket}/few", options.stage_events)
        make_archives(f"{bucket}/peer", options.peer_events)
        make_archives(str(folder / "peer"), options.peer_events)
        save_checkpoint(original_bundle(), folder / "original")
        settle_down(f"{bucket}/archives")
        seconds: dict[str, list[float]] = defaultdict(list)
        peak_bytes = 0
        with ray_session() as cluster:
            time_backfill(f"{bucket}/few", f"{bucket}/warm", cluster)
            for repeat in range(options.repeat):
                with peak_memory() as peak:
                    seconds["backfill"].append(
                        time_backfill(f"{bucket}/archives", f"{bucket}/lake-{repeat}", cluster)
                    )
                peak_bytes = max(peak_bytes, peak[0])
                seconds["backfill, original's network"].append(
                    time_backfill(
                        f"{bucket}/peer",
                        f"{bucket}/original-{repeat}",
                        cluster,
                        model=str(folder / "original"),
                        threshold_profile="seed",
                    )
                )
        for repeat in range(options.repeat):
            compare(options, bucket, folder, repeat, cluster, seconds)
    show(options, seconds, peak_bytes)


def settle_down(uri: str) -> None:
    """Lets the disk end what writing the archives began, and every archive be in the page cache."""
    os.sync()
    store = Store(uri)
    for info in store.list():
        store.get(info.key)


def compare(
    options: Options,
    bucket: str,
    folder: Path,
    repeat: int,
    cluster: Cluster,
    seconds: dict[str, list[float]],
) -> None:
    """What the backfill is compared with, while no Ray runs."""
    cores = int(cluster.num_cpus)
    with peak_memory():
        taken = time_plain_script(f"{bucket}/archives", f"{bucket}/plain-{repeat}", cores)
    seconds["plain script"].append(taken)
    for num_processes in sorted({1, cores}):
        run, units = planned(f"{bucket}/few", f"{bucket}/stages-{repeat}-{num_processes}", cores)
        for stage, taken in time_stages(tasks_of(run, on_gpu=False), units, num_processes).items():
            seconds[f"{stage} alone, {num_processes} cores"].append(taken)
    started = time.perf_counter()
    process_with_dataloader(sorted((folder / "peer").iterdir()), folder / f"peer-lake-{repeat}", cores)
    seconds["DataLoader script"].append(time.perf_counter() - started)
    work = folder / "original-lake"
    work.mkdir()
    first = min((folder / "peer").iterdir())
    taken = seconds_per_event_of_original(first, options.original_events, work)
    seconds["original's loop"].append(taken * options.original_events)
    shutil.rmtree(work)


def planned(archives: str, lake: str, num_workers: int, **options: Any) -> tuple[Run, list[Unit]]:
    """A fresh run with its units."""
    run = resolve(BackfillConfig(archives=archives, lake=lake, **options))
    todo = find_todo(run, list_archives(run.config), load_manifest(run.lake, run.bundle.model_id))
    shelve(run)
    run.vectors.ensure_exists()
    return run, plan_units(run, todo, num_workers=num_workers)


def time_backfill(archives: str, lake: str, cluster: Cluster, **options: Any) -> float:
    """Seconds from the listing to the manifest, on a Ray that is running."""
    started = time.perf_counter()
    stages = plan_stages(cluster, num_encoders=None, num_gpus=0)
    run, units = planned(archives, lake, stages.num_encoders, **options)
    for _ in run_units(units, tasks_of(run, on_gpu=False), stages):
        pass
    settle(run.lake, run.vectors, run.bundle.model_id)
    return time.perf_counter() - started


def time_plain_script(archives: str, lake: str, num_processes: int) -> float:
    """Likewise, of plain processes."""
    started = time.perf_counter()
    run, units = planned(archives, lake, num_processes)
    process_units(tasks_of(run, on_gpu=False), units, num_processes)
    settle(run.lake, run.vectors, run.bundle.model_id)
    return time.perf_counter() - started


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """The largest sum of unshared memory of this process and its children, plus the object store in use."""
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(MEMORY_EVERY_S):
            peak[0] = max(peak[0], used_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


def used_bytes() -> int:
    """Proportional set size of this process and everything below it, but for the S3 server."""
    me = psutil.Process()
    total = 0
    for process in [me, *me.children(recursive=True)]:
        try:
            total += 0 if process.name() == "weed" else process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


def show(options: Options, seconds: dict[str, list[float]], peak_bytes: int) -> None:
    """Events per minute of everything, and the ratios."""
    cores = os.cpu_count() or 1
    events = {
        "backfill": options.events,
        "plain script": options.events,
        "backfill, original's network": options.peer_events,
        "DataLoader script": options.peer_events,
        "original's loop": options.original_events,
    }
    rates = {
        name: events.get(name, options.stage_events) / taken * 60 for name, taken in medians(seconds).items()
    }
    alone = {n: [rates[f"{stage} alone, {n} cores"] for stage in STAGES] for n in (1, cores)}
    together = 1 / sum(1 / rate for rate in alone[cores])
    original = rates["original's loop"]
    ratios = {
        "backfill / slowest stage alone on one core": rates["backfill"] / min(alone[1]),
        "backfill / slowest stage alone on all cores": rates["backfill"] / min(alone[cores]),
        "backfill / its three stages one after the other on all cores": rates["backfill"] / together,
        "backfill / plain script": rates["backfill"] / rates["plain script"],
        "backfill / DataLoader script": rates["backfill"] / rates["DataLoader script"],
        "backfill / original's loop": rates["backfill"] / original,
        "backfill with the original's network / original's loop": rates["backfill, original's network"]
        / original,
        "peak memory in GiB": peak_bytes / 2**30,
    }
    title = f"Events per minute; {options.events} events in archives of {EVENTS_PER_ARCHIVE}, {cores} cores"
    report(title, rates, ratios, options.output)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
