"""What the backfill is compared with: its classes in plain processes, and what people write themselves."""

from __future__ import annotations

import multiprocessing
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from rmsai_ray.backfill.plan import Unit
from rmsai_ray.backfill.read import UnitReader
from rmsai_ray.backfill.stages import Tasks, UnitScorer, UnitWriter
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.checkpoint import load_model, untrained_model
from rmsai_ray.signals.leads import LEADS

CONTEXT = multiprocessing.get_context("spawn")
STAGES = ("read", "encode", "write")
END = None


def process_units(tasks: Tasks, units: list[Unit], num_processes: int) -> None:
    """The backfill's units in plain processes that take one after the other from a queue."""
    queue: Any = CONTEXT.Queue()
    for unit in [*units, *[END] * num_processes]:
        queue.put(unit)
    _run_all(_process_queue, [(tasks, queue)] * num_processes)


def time_stages(tasks: Tasks, units: list[Unit], num_processes: int) -> dict[str, float]:
    """Seconds of each stage alone, in so many processes at once; what flows between them stays in memory."""
    barrier, answers = CONTEXT.Barrier(num_processes), CONTEXT.Queue()
    arguments = [(tasks, units[i::num_processes], barrier, answers) for i in range(num_processes)]
    _run_all(_time_stages, arguments)
    found = [answers.get() for _ in range(num_processes)]
    return {stage: max(times[stage] for times in found) for stage in STAGES}


def _run_all(target: Any, arguments: Iterable[tuple[Any, ...]]) -> None:
    processes = [CONTEXT.Process(target=target, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"{target.__name__} ended with {process.exitcode}")


def _process_queue(tasks: Tasks, queue: Any) -> None:
    reader, scorer, writer = UnitReader(tasks.read), UnitScorer(tasks.encode), UnitWriter(tasks.write)
    while (unit := queue.get()) is not END:
        writer.write(scorer.score(reader.read(unit)))


def _time_stages(tasks: Tasks, units: list[Unit], barrier: Any, answers: Any) -> None:
    reader, scorer, writer = UnitReader(tasks.read), UnitScorer(tasks.encode), UnitWriter(tasks.write)
    items: list[Any] = units
    seconds = {}
    for stage, work in zip(STAGES, (reader.read, scorer.score, writer.write), strict=True):
        barrier.wait()
        started = time.perf_counter()
        items = [work(item) for item in items]
        seconds[stage] = time.perf_counter() - started
    answers.put(seconds)


class EventWindows(IterableDataset[tuple[str, torch.Tensor]]):
    """What one writes for a DataLoader: whole leads of archives on disk, one after the other."""

    def __init__(self, archives: list[Path]) -> None:
        self._archives = archives

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        worker = get_worker_info()
        step, first = (worker.num_workers, worker.id) if worker else (1, 0)
        for path in self._archives[first::step]:
            with h5py.File(path) as file:
                for name in [key for key in file if key.startswith("event_")]:
                    read_scalars(file[name])
                    for lead in LEADS:
                        samples = file[name]["ecg"][lead][:].astype(np.float32)
                        scaled = (samples - samples.mean()) / max(float(samples.std()), 1e-6)
                        yield f"{path.stem}/{name}/{lead}", torch.from_numpy(scaled)


def process_with_dataloader(archives: list[Path], lake: Path, num_processes: int) -> None:
    """Batches of a DataLoader through the same network in torch; a Parquet file and a LanceDB table.

    Neither rhythm, quality, detectors nor thresholds, and nothing that survives a crash.
    """
    torch.set_num_threads(1)
    network = load_model("framed-2400x64").network
    loader = DataLoader(EventWindows(archives), batch_size=256, num_workers=num_processes - 1)
    tables = []
    for names, x_BT in loader:
        with torch.inference_mode():
            z_BE, y_BT = network(x_BT)
        embedding = pa.FixedSizeListArray.from_arrays(z_BE.numpy().ravel(), z_BE.shape[1])
        error = ((y_BT - x_BT) ** 2).mean(1).numpy()
        tables.append(pa.table({"window": list(names), "embedding": embedding, "error": error}))
    rows = pa.concat_tables(tables)
    lake.mkdir(parents=True)
    pq.write_table(rows, lake / "windows.parquet")
    lancedb.connect(lake).create_table("windows", rows)


def read_scalars(event: h5py.Group) -> dict[str, Any]:
    """The vital signs of an event, as h5py's tutorial reads them."""
    return {f"{name}/{key}": vital[key][()] for name, vital in event["vitals"].items() for key in vital}


def original_bundle() -> ModelBundle:
    """The original processor's network: windows of 140 samples, embeddings of 128."""
    return untrained_model("rmsai-140x128")


def seconds_per_event_of_original(archive: Path, num_events: int, folder: Path) -> float:
    """The original's loop: one window at a time, one row per insert, in two stores."""
    bundle = original_bundle()
    length, stride = bundle.spec.window_samples, bundle.spec.stride_samples
    database = sqlite3.connect(folder / "metadata.db")
    database.execute("CREATE TABLE chunks (chunk_id TEXT UNIQUE, event_id TEXT, lead TEXT, error REAL)")
    schema = pa.schema([("id", pa.string()), ("vector", pa.list_(pa.float32(), bundle.spec.embedding_dim))])
    vectors = lancedb.connect(folder / "vectors").create_table("embeddings", schema=schema)
    started = time.perf_counter()
    with h5py.File(archive) as file:
        for name in [key for key in file if key.startswith("event_")][:num_events]:
            read_scalars(file[name])
            for lead in LEADS:
                samples = file[name]["ecg"][lead][:].astype(np.float32)
                for start in range(0, len(samples) - length + 1, stride):
                    window = samples[start : start + length]
                    x_1T = torch.from_numpy((window - window.mean()) / max(float(window.std()), 1e-6))[None]
                    with torch.no_grad():
                        z_1E, y_1T = bundle.network(x_1T)
                    error = float(((y_1T - x_1T) ** 2).mean())
                    chunk = f"{name}_{lead}_{start}"
                    vectors.add([{"id": chunk, "vector": z_1E[0].numpy()}])
                    database.execute("INSERT INTO chunks VALUES (?, ?, ?, ?)", (chunk, name, lead, error))
                    database.commit()
    return (time.perf_counter() - started) / num_events
