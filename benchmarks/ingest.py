"""Committed ingest against a raw bulk write of the same tables, and against a row at a time.

    python -m benchmarks.ingest [--events 20000] [--unit-events 1280] [--repeat 3] [--output result.json]

"Committed" is what a backfill does with scored units: parts, fragments and ledger entries, then the fold.
"Raw" writes the same windows and events as one Parquet file each, with the same encodings, and the windows as
one Lance dataset; nothing could be resumed, replaced or found by period. All is CPU time of this process
with one thread for Arrow. The windows are simulated archives', scored by the default model, and multiplied
with ids of their own and noise on their numbers and times.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tyro

from benchmarks._corpus import make_archives
from benchmarks._measure import interleaved, medians, report
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.detectors import NONE
from rmsai_ray.backfill.plan import list_archives
from rmsai_ray.backfill.read import UnitReader
from rmsai_ray.backfill.resolve import Run, find_todo, plan_units, resolve, shelve, tasks_of
from rmsai_ray.backfill.stages import UnitScorer
from rmsai_ray.ids import archive_id
from rmsai_ray.storage import Store
from rmsai_ray.tables import parts, schemas
from rmsai_ray.tables.blocks import UnitTables
from rmsai_ray.tables.manifest import load_manifest
from rmsai_ray.tables.units import settle, write_unit
from rmsai_ray.tables.vectors import VectorTable

OWN_IDS = ("window_id", "chunk_id", "vector_id", "event_uid", "event_uuid")
NOISE = 0.01


@dataclass
class Options:
    """What to measure."""

    events: int = 20_000
    unit_events: int = 1280
    """Events of one unit; 1,280 are as many as 256 MiB of archives hold, the largest unit."""
    repeat: int = 3
    single_rows: int = 60
    output: Path | None = None


def main(options: Options) -> None:
    """Measures, prints, writes."""
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory(prefix="rmsai-bench-") as name:
        folder = Path(name)
        run, scored = score(folder, options.unit_events)
        copies = -(-options.events // scored.events.num_rows)
        units = [copy_of(scored, number) for number in range(copies)]
        windows = pa.concat_tables([unit.windows for unit in units])
        events = pa.concat_tables([unit.events for unit in units])
        each = numbered(folder)
        measures = {
            "committed": lambda: committed(run, units, each()),
            "raw": lambda: raw(windows, events, each()),
        }
        seconds = medians(interleaved(options.repeat, measures))
        row_s = one_by_one(windows.slice(0, options.single_rows), each())
        rows = {
            "windows": windows.num_rows,
            "units": len(units),
            "committed, ms of CPU per event": 1000 * seconds["committed"] / events.num_rows,
            "raw, ms of CPU per event": 1000 * seconds["raw"] / events.num_rows,
            "committed, windows per second": windows.num_rows / seconds["committed"],
            "raw, windows per second": windows.num_rows / seconds["raw"],
            "a row at a time, windows per second": 1 / row_s,
        }
    ratios = {
        "committed / raw": seconds["raw"] / seconds["committed"],
        "committed / a row at a time": row_s * windows.num_rows / seconds["committed"],
    }
    report("Ingest", rows, ratios, options.output)


def numbered(folder: Path) -> Callable[[], Path]:
    """Gives a fresh folder at every call."""
    numbers = iter(range(10**6))
    return lambda: folder / f"{next(numbers)}"


def score(folder: Path, num_events: int) -> tuple[Run, UnitTables]:
    """One unit of simulated archives as it leaves the encoder."""
    make_archives(f"{folder}/archives", num_events)
    config = BackfillConfig(
        archives=f"{folder}/archives", lake=f"{folder}/lake", detectors=NONE, unit_bytes=10**10
    )
    run = resolve(config)
    shelve(run)
    todo = find_todo(run, list_archives(run.config), load_manifest(run.lake, run.bundle.model_id))
    [unit] = plan_units(run, todo, num_workers=1)
    tasks = tasks_of(run, on_gpu=False)
    return run, UnitScorer(tasks.encode).score(UnitReader(tasks.read).read(unit))


def copy_of(unit: UnitTables, number: int) -> UnitTables:
    """The unit with ids of its own and numbers that are a little different."""
    suffix = f"{number:04}"
    names = {row["archive_id"]: archive_id(f"{row['archive_id']}{suffix}".encode()) for row in unit.archives}
    unit_id = f"{unit.unit_id[:-4]}{suffix}"
    archives = [
        {**row, "uri": row["uri"] + suffix, "archive_id": names[row["archive_id"]], "unit_id": unit_id}
        for row in unit.archives
    ]
    rng = np.random.default_rng(number)
    return replace(
        unit,
        unit_id=unit_id,
        archives=archives,
        windows=changed(unit.windows, names, unit_id, suffix, rng),
        events=changed(unit.events, names, unit_id, suffix, rng),
        rejects=unit.rejects.slice(0, 0),
    )


def changed(
    table: pa.Table, names: dict[str, str], unit_id: str, suffix: str, rng: np.random.Generator
) -> pa.Table:
    """A table's copy, see :func:`copy_of`."""
    columns: dict[str, Any] = {name: table[name].combine_chunks() for name in table.column_names}
    for name, column in columns.items():
        if name == "archive_id":
            columns[name] = [names[value] for value in column.to_pylist()]
        elif name == "unit_id":
            columns[name] = [unit_id] * len(column)
        elif name in OWN_IDS:
            columns[name] = [value + suffix for value in column.to_pylist()]
        else:
            columns[name] = noisy(column, rng)
    return pa.table(columns, schema=table.schema)


def noisy(column: pa.Array, rng: np.random.Generator) -> pa.Array:
    """Measured values and times are a little different, in lists and structs too; the rest is as it was."""
    kind = column.type
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(noisy(column.flatten(), rng), type=kind)
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(column.offsets, noisy(column.values, rng), type=kind)
    if pa.types.is_struct(kind):
        children = [noisy(column.field(place), rng) for place in range(kind.num_fields)]
        return pa.StructArray.from_arrays(children, fields=list(kind))
    if pa.types.is_float32(kind):
        factors = 1 + NOISE * rng.standard_normal(len(column), np.float32)
        return pc.multiply(column, pa.array(factors))
    if pa.types.is_float64(kind):
        return pc.add(column, pa.array(rng.integers(-2, 3, len(column)).astype(np.float64)))
    if pa.types.is_timestamp(kind):
        milliseconds = rng.integers(0, 60_000, len(column))
        return pc.add(column, pa.array(1000 * milliseconds, pa.duration("us")))
    if pa.types.is_int16(kind):
        return pc.add(column, pa.array(rng.integers(0, 3, len(column)), pa.int16()))
    return column


def committed(run: Run, units: list[UnitTables], folder: Path) -> float:
    """CPU seconds from scored units to rows that readers see."""
    store, model_id = Store(str(folder)), run.bundle.model_id
    vectors = VectorTable(store.uri, model_id, run.bundle.spec.embedding_dim)
    vectors.ensure_exists()
    started = time.process_time()
    for unit in units:
        write_unit(store, vectors, unit, run_id=run.run_id, model_id=model_id)
    settle(store, vectors, model_id)
    return time.process_time() - started


def raw(windows: pa.Table, events: pa.Table, folder: Path) -> float:
    """CPU seconds of the same tables in one go."""
    folder.mkdir()
    started = time.process_time()
    for name, table in (("windows", windows), ("events", events)):
        (folder / f"{name}.parquet").write_bytes(parts.to_parquet(table))
    schema = schemas.published(windows.schema)
    lance.write_dataset(windows.cast(schema), folder / "windows.lance")
    return time.process_time() - started


def one_by_one(windows: pa.Table, folder: Path) -> float:
    """CPU seconds of one LanceDB add per row, per row."""
    table = lancedb.connect(folder).create_table("windows", schema=windows.schema)
    started = time.process_time()
    for row in range(windows.num_rows):
        table.add(windows.slice(row, 1))
    return (time.process_time() - started) / windows.num_rows


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
