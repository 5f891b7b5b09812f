"""Backfill against its own slowest stage and against the original's loop, in one run.

    python benchmarks/backfill.py [--events 1000] [--repeat 3] [--output result.json]

Prints one table and writes JSON. Every figure is a median over interleaved repeats. Archives are simulated,
ten events of seven leads each; the model is the packaged default. "Alone" means a stage of the pipeline, on
Ray, fed from memory and written nowhere else: on one core (its share of two while the others run beside it)
and on all cores.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import lancedb
import numpy as np
import psutil
import pyarrow as pa
import ray.data
import torch
import tyro
from ray.data import ActorPoolStrategy
from rich.console import Console
from rich.table import Table

from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.flow import Run, find_todo, plan_units, read_task, resolve, run_units, shelve
from rmsai_ray.backfill.plan import Unit, list_archives
from rmsai_ray.backfill.read import unit_to_json
from rmsai_ray.backfill.stages import EncodeWindows, ReadUnits, WriteUnits
from rmsai_ray.compute import StageResources, plan_stages
from rmsai_ray.job import ray_session, show_logs
from rmsai_ray.signals.leads import LEADS
from rmsai_ray.tables.manifest import load_manifest
from rmsai_ray.tables.units import settle

EVENTS_PER_ARCHIVE = 10


@dataclass
class Options:
    """What to measure."""

    events: int = 1000
    repeat: int = 3
    original_events: int = 3
    output: Path | None = None


def main(options: Options) -> None:
    """Measures, prints, writes."""
    show_logs()
    with tempfile.TemporaryDirectory(prefix="rmsai-bench-") as folder, ray_session() as cluster:
        archives = Path(folder) / "archives"
        simulate(archives, options.events)
        stages = plan_stages(cluster, num_encoders=None, num_gpus=0)
        warm_up(archives, Path(folder) / "warm", stages)
        seconds: dict[str, list[float]] = defaultdict(list)
        peak_bytes = 0
        for repeat in range(options.repeat):
            lake = Path(folder) / f"lake-{repeat}"
            with peak_memory() as peak:
                seconds["pipeline"].append(time_pipeline(archives, lake, stages))
            peak_bytes = max(peak_bytes, peak[0])
            for stage, (one_core, all_cores) in time_stages(archives, lake, stages, cluster.num_cpus).items():
                seconds[f"{stage}, one core"].append(one_core)
                seconds[f"{stage}, all cores"].append(all_cores)
            per_event = time_original(archives, options.original_events, Path(folder) / f"original-{repeat}")
            seconds["original"].append(per_event * options.events)
            shutil.rmtree(lake)
    report(options, seconds, peak_bytes)


def simulate(folder: Path, num_events: int) -> None:
    """Writes the corpus."""
    folder.mkdir(parents=True)
    for patient in range(num_events // EVENTS_PER_ARCHIVE):
        name, content = simulate_archive(patient, EVENTS_PER_ARCHIVE, seed=1)
        (folder / name).write_bytes(content)


def warm_up(archives: Path, lake: Path, stages: StageResources) -> None:
    """Starts worker processes and fills the page cache."""
    run, units = planned(archives, lake, stages)
    list(run_units(run, units[:2], stages))


def planned(archives: Path, lake: Path, stages: StageResources) -> tuple[Run, list[Unit]]:
    """A fresh run with its units."""
    run = resolve(BackfillConfig(archives=str(archives), lake=str(lake)))
    todo = find_todo(run, list_archives(run.config), load_manifest(run.lake, run.bundle.model_id))
    shelve(run)
    run.vectors.ensure_exists()
    return run, plan_units(run, todo, num_workers=stages.num_encoders)


def time_pipeline(archives: Path, lake: Path, stages: StageResources) -> float:
    """Seconds from the plan to the manifest, on a Ray that is running."""
    started = time.perf_counter()
    run, units = planned(archives, lake, stages)
    for _ in run_units(run, units, stages):
        pass
    settle(run.lake, run.vectors, run.bundle.model_id)
    return time.perf_counter() - started


def time_stages(
    archives: Path, lake: Path, stages: StageResources, num_cpus: float
) -> dict[str, tuple[float, float]]:
    """Seconds of each stage alone, (on one core, on all)."""
    run, units = planned(archives, Path(f"{lake}-stages"), stages)
    model_id = run.bundle.model_id
    cores = int(num_cpus)
    planned_units = [pa.table({"unit": [unit_to_json(unit)]}) for unit in units]

    def stage(source: ray.data.Dataset, callable_: Any, arguments: tuple[Any, ...], size: int) -> Any:
        return source.map_batches(
            callable_,
            fn_constructor_args=arguments,
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=size),
            num_cpus=1,
        )

    def timed(make: Callable[[int], ray.data.Dataset]) -> tuple[float, float]:
        return tuple(drain(make(size)) for size in (1, cores))  # type: ignore[return-value]

    reading = (read_task(run),)
    encoding = (run.lake.uri, model_id, "cpu", run.config.batch_windows, run.scoring)
    writing = (run.lake.uri, run.run_id, model_id, run.bundle.spec.embedding_dim)
    source = ray.data.from_arrow(planned_units)
    read = stage(source, ReadUnits, reading, cores).materialize()
    scored = stage(read, EncodeWindows, encoding, cores).materialize()
    found = {
        "read": timed(lambda size: stage(source, ReadUnits, reading, size)),
        "encode": timed(lambda size: stage(read, EncodeWindows, encoding, size)),
        "write": timed(lambda size: stage(scored, WriteUnits, writing, size)),
    }
    shutil.rmtree(f"{lake}-stages")
    return found


def drain(dataset: ray.data.Dataset) -> float:
    """Seconds until the last block has come."""
    started = time.perf_counter()
    for _ in dataset.iter_internal_ref_bundles():
        pass
    return time.perf_counter() - started


def time_original(archives: Path, num_events: int, folder: Path) -> float:
    """Seconds per event of the original's loop: one window at a time, one row per insert, in two stores."""
    folder.mkdir()
    run = resolve(BackfillConfig(archives=str(archives), lake=str(folder / "lake")))
    network = run.bundle.network
    database = sqlite3.connect(folder / "metadata.db")
    database.execute("CREATE TABLE chunks (chunk_id TEXT UNIQUE, event_id TEXT, lead TEXT, error REAL)")
    schema = pa.schema(
        [("id", pa.string()), ("vector", pa.list_(pa.float32(), run.bundle.spec.embedding_dim))]
    )
    vectors = lancedb.connect(folder / "vectors").create_table("embeddings", schema=schema)
    first = min(archives.iterdir())
    started = time.perf_counter()
    with h5py.File(first) as file:
        for name in [key for key in file if key.startswith("event_")][:num_events]:
            event = file[name]
            for vital in event["vitals"].values():
                {key: vital[key][()] for key in vital}
            for lead in LEADS:
                samples = event["ecg"][lead][:].astype(np.float32)
                x_1T = torch.from_numpy((samples - samples.mean()) / max(samples.std(), 1e-6))[None]
                with torch.no_grad():
                    z_1E, y_1T = network(x_1T)
                error = float(((y_1T - x_1T) ** 2).mean())
                chunk = f"{name}_{lead}"
                vectors.add([{"id": chunk, "vector": z_1E[0].numpy()}])
                database.execute("INSERT INTO chunks VALUES (?, ?, ?, ?)", (chunk, name, lead, error))
                database.commit()
    return (time.perf_counter() - started) / num_events


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """The largest sum of unshared memory of this process and its children, plus the object store in use."""
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            peak[0] = max(peak[0], used_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


def used_bytes() -> int:
    """Proportional set size of this process and everything below it."""
    me = psutil.Process()
    total = 0
    for process in [me, *me.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


def report(options: Options, seconds: dict[str, list[float]], peak_bytes: int) -> None:
    """The table for people and the JSON for programs."""
    medians = {name: median(values) for name, values in seconds.items()}
    slowest = {
        cores: max(value for name, value in medians.items() if name.endswith(cores))
        for cores in ("one core", "all cores")
    }
    result = {
        "events": options.events,
        "events_per_minute": {name: options.events / value * 60 for name, value in medians.items()},
        "seconds": dict(seconds),
        "pipeline_to_slowest_stage_on_its_core": slowest["one core"] / medians["pipeline"],
        "pipeline_to_slowest_stage_on_all_cores": slowest["all cores"] / medians["pipeline"],
        "pipeline_to_original": medians["original"] / medians["pipeline"],
        "peak_memory_gib": peak_bytes / 2**30,
    }
    table = Table(title=f"Backfill of {options.events} events, medians of {options.repeat}")
    table.add_column("what")
    table.add_column("events per minute", justify="right")
    for name, rate in result["events_per_minute"].items():
        table.add_row(name, f"{rate:,.0f}")
    console = Console()
    console.print(table)
    for name, value in result.items():
        if isinstance(value, float):
            console.print(f"{name}: {value:.2f}", highlight=False)
    if options.output:
        options.output.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
