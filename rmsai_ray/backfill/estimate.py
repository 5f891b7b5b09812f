"""The dry run: what a backfill will fetch, write and take, from a part of it that is done for measure."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from statistics import median

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from rmsai_ray.archives.packs import is_member, object_uri
from rmsai_ray.backfill.pipeline import run_units
from rmsai_ray.backfill.plan import Unit
from rmsai_ray.backfill.report import Summary
from rmsai_ray.backfill.resolve import Run, plan_units, shelve, tasks_of
from rmsai_ray.compute import StageResources, plan_stages
from rmsai_ray.job import ray_session
from rmsai_ray.storage import Store, is_s3
from rmsai_ray.tables.units import settle

SAMPLE_BYTES_PER_ENCODER = 24 << 20
LARGEST_SAMPLE = 0.25
"""Of what is to be done."""
UNITS_PER_ENCODER = 3
"""Of the sample. The first of each starts slower, which the median leaves out."""
OBJECTS_PER_LISTING = 1000
SCRATCH = "dry-run"
"""Folder of the lake."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is to be expected of a backfill."""

    num_gets: int
    """One for each object: an archive, or a pack of them, whose index takes one more."""
    num_puts: int
    """Parts, fragments and ledger entries."""
    num_lists: int
    """Pages of the listing of the archives."""
    read_bytes: int
    kept_bytes: int
    """What the lake grows by, before compaction."""
    num_units: int
    num_encoders: int
    seconds: float
    """From the listing to the summary, the start of Ray included."""


@dataclass(frozen=True)
class Line:
    """What a unit costs at least, and per byte that it reads."""

    start: float
    slope: float

    @staticmethod
    def through(points: Sequence[tuple[int, int]]) -> Line:
        """By least squares; in proportion where all lie at the same place."""
        x_N, y_N = np.array(points, float).T
        if np.ptp(x_N) == 0:
            return Line(0.0, y_N.sum() / max(1.0, x_N.sum()))
        slope, start = np.polyfit(x_N, y_N, 1)
        return Line(max(0.0, float(start)), max(0.0, float(slope)))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a part of the work took."""

    num_units: int
    num_objects: int
    kept_bytes: Line
    """Of a unit, from its bytes read."""
    seconds_per_byte: float
    """Of a worker's time, by the median unit; with GPUs of the stage that binds."""
    overhead_s: float
    """Starting and stopping, and what else was not a worker's time; and the fold."""
    stages: StageResources


def estimate(run: Run, todo: pa.Table, *, num_listed: int, listing_s: float) -> Estimate:
    """Does a part of the work on the same Ray, into a folder that is gone afterwards, and scales it up."""
    trial = _try(run, todo)
    read_bytes = sum(size for size in todo["size"].to_pylist() if size <= run.config.max_archive_bytes)
    num_units = len(plan_units(run, todo, num_workers=trial.stages.num_encoders))
    num_encoders = min(trial.stages.num_encoders, num_units)
    return Estimate(
        num_gets=_num_gets(todo["uri"].to_pylist()),
        num_puts=round(trial.num_objects / trial.num_units * num_units),
        num_lists=-(-num_listed // OBJECTS_PER_LISTING),
        read_bytes=read_bytes,
        kept_bytes=round(trial.kept_bytes.start * num_units + trial.kept_bytes.slope * read_bytes),
        num_units=num_units,
        num_encoders=num_encoders,
        seconds=listing_s + trial.overhead_s + trial.seconds_per_byte * read_bytes / num_encoders,
    )


def print_estimate(console: Console, num_listed: int, num_todo: int, expected: Estimate | None) -> None:
    """The plan, as a table; without an estimate where nothing is to be done."""
    table = Table(title="Plan (nothing was written)", title_justify="left", show_header=False)
    table.add_row("archives listed", f"{num_listed:,}")
    table.add_row("to do", f"{num_todo:,} archives")
    if expected:
        requests = f"{expected.num_gets:,} GET, {expected.num_puts:,} PUT, {expected.num_lists:,} LIST"
        table.add_row("requests", f"{requests}, and a few dozen")
        table.add_row("bytes to read", f"{expected.read_bytes:,} ({expected.read_bytes / 2**20:,.1f} MiB)")
        table.add_row("bytes to keep", f"{expected.kept_bytes / 2**20:,.1f} MiB of tables")
        table.add_row("units", f"{expected.num_units:,}")
        encoders = f"{expected.num_encoders} encoder{'s' if expected.num_encoders > 1 else ''}"
        table.add_row("estimated time", f"{expected.seconds:,.0f} s with {encoders}, Ray's start included")
    console.print(table)


def _num_gets(uris: list[str]) -> int:
    packs = {object_uri(uri) for uri in uris if is_member(uri)}
    return sum(not is_member(uri) for uri in uris) + 2 * len(packs)


def _try(run: Run, todo: pa.Table) -> Trial:
    """Backfills a sample into a lake of its own."""
    started = time.perf_counter()
    with scratch_lake(run) as trial:
        shelve(trial)
        trial.vectors.ensure_exists()
        before = _sizes(trial.lake)
        summary, rates, kept = Summary(), list[float](), list[tuple[int, int]]()
        with ray_session() as cluster:
            stages = plan_stages(cluster, num_encoders=run.config.num_encoders, num_gpus=run.config.num_gpus)
            units = _sample(trial, todo, stages.num_encoders)
            for report in run_units(units, tasks_of(trial, on_gpu=stages.encoder_num_gpus > 0), stages):
                summary.add(report)
                num_bytes = report["num_bytes"]
                rates.append(stages.busy_s(report["seconds"]) / max(1, num_bytes["read"]))
                kept.append((num_bytes["read"], num_bytes["parquet"] + num_bytes["lance"]))
        num_added = len(_sizes(trial.lake).keys() - before.keys())
        settle(trial.lake, trial.vectors, run.bundle.model_id)
        elapsed_s = time.perf_counter() - started
    return Trial(
        num_units=len(units),
        num_objects=num_added,
        kept_bytes=Line.through(kept),
        seconds_per_byte=median(rates),
        overhead_s=elapsed_s - stages.busy_s(summary.seconds) / min(stages.num_encoders, len(units)),
        stages=stages,
    )


def _sample(trial: Run, todo: pa.Table, num_encoders: int) -> list[Unit]:
    """Archives from all over the plan, in some units for each encoder, and one that is a unit by itself."""
    total = sum(todo["size"].to_pylist())
    wanted = min(SAMPLE_BYTES_PER_ENCODER * num_encoders, LARGEST_SAMPLE * total)
    step = max(1, round(total / max(1.0, wanted)))
    unit_bytes = max(1, round(wanted / (UNITS_PER_ENCODER * num_encoders)))
    smaller = replace(trial, config=replace(trial.config, unit_bytes=unit_bytes))
    units = plan_units(smaller, todo.take(list(range(0, todo.num_rows, step))), num_workers=num_encoders)
    alone = todo.slice(1, 1 if step > 1 else 0)
    return units + plan_units(smaller, alone, num_workers=num_encoders)


def _sizes(store: Store) -> dict[str, int]:
    return {info.key: info.size for info in store.list()}


@contextmanager
def scratch_lake(run: Run) -> Iterator[Run]:
    """The run, into a lake that lies inside the real one, where every worker can reach it, and then goes.

    What a killed dry run left there goes when it is a day old, and nobody can be at work on it.
    """
    yesterday = datetime.now(UTC) - timedelta(days=1)
    run.lake.delete(info.key for info in list(run.lake.list(SCRATCH)) if info.modified < yesterday)
    lake = Store(run.lake.child_uri(f"{SCRATCH}/{secrets.token_hex(4)}"))
    try:
        yield replace(run, lake=lake)
    finally:
        lake.delete(_sizes(lake))
        if not is_s3(lake.uri):
            shutil.rmtree(lake.uri, ignore_errors=True)  # folders are no objects
