"""Planning and folding against a manifest of a million archives, of which a night brings a thousand.

    python -m benchmarks.planning [--archives 1000000] [--new 1000] [--output result.json]

Each step runs in a fresh process, which imports what the driver imports, and tells its CPU time and its
largest resident set. The listing is a source that yields names as an object store's listing does; the
manifest is a real one. "Everything new" is the plan of an empty lake.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import tyro

from benchmarks._measure import report
from rmsai_ray.archives.sources import SOURCES, ArchiveRef
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.plan import choose_unit_bytes, list_archives, pack_units
from rmsai_ray.ids import archive_id
from rmsai_ray.storage import Store
from rmsai_ray.tables import schemas
from rmsai_ray.tables.ledger import LedgerEntry
from rmsai_ray.tables.manifest import (
    Manifest,
    count_by_status,
    difference,
    fold,
    load_manifest,
    save_manifest,
)

MODEL, RUN = "framed-2400x64-000000000000", "backfill-0000000000000000"
UNIT_ARCHIVES = 32
PATIENTS_PER_MONTH = 10_000
TIME = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Options:
    """What to measure."""

    archives: int = 1_000_000
    new: int = 1000
    output: Path | None = None


class SyntheticSource:
    """``synthetic://<number>``: that many archives, of 2 MB each."""

    def __init__(self, uri: str) -> None:
        self._number = int(uri.rpartition("/")[2])

    def list_archives(self) -> Iterator[ArchiveRef]:
        """As an object store lists them."""
        for number in range(self._number):
            key = archive_key(number)
            yield ArchiveRef(
                uri=f"s3://ward/{key}", key=key, size=size_of(number), etag=etag_of(number), modified=TIME
            )

    def read(self, uri: str) -> bytes:
        """Nobody reads."""
        raise NotImplementedError


SOURCES.register("synthetic")(SyntheticSource)


def archive_key(number: int) -> str:
    """A patient and a month."""
    month, patient = divmod(number, PATIENTS_PER_MONTH)
    return f"icu/PT{patient:06}_{2000 + month // 12}-{month % 12 + 1:02}.h5"


def size_of(number: int) -> int:
    """Bytes; few archives are of exactly one size."""
    return 2_000_000 + number * 7919 % 500_000


def etag_of(number: int) -> str:
    """As long as an MD5."""
    return f"{number:032x}"


def main(options: Options) -> None:
    """Measures, prints, writes."""
    with tempfile.TemporaryDirectory(prefix="rmsai-bench-") as folder:
        lake = f"{folder}/lake"
        alone(write_manifest, lake, options.archives)
        nothing = alone(import_only, lake, 0)
        total = options.archives + options.new
        steps = {
            "a night's plan": alone(plan, lake, total),
            "a night's fold": alone(fold_new, lake, options.archives, options.new),
            "everything new": alone(plan, f"{folder}/empty", options.archives),
        }
        size = Path(f"{lake}/archives/model={MODEL}/manifest.parquet").stat().st_size
    rows: dict[str, Any] = {
        "archives in the manifest": options.archives,
        "new archives": options.new,
        "manifest MiB": size / 2**20,
        "MiB of a process that does nothing": nothing["peak_mib"],
    }
    for name, found in steps.items():
        rows |= {f"{name}: {what}": value for what, value in found.items()}
    ratios = {
        "a night's plan, seconds / 60": steps["a night's plan"]["cpu_s"] / 60,
        "a night's plan, memory / 1 GiB": steps["a night's plan"]["peak_mib"] / 1024,
    }
    report(f"Planning against {options.archives:,} archives", rows, ratios, options.output)


def alone(step: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Runs a step in a process of its own; its facts, CPU seconds and peak memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, step, arguments).result()


def measured(step: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> dict[str, Any]:
    """In the child."""
    started = time.process_time()
    facts = step(*arguments)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**facts, "cpu_s": time.process_time() - started, "peak_mib": peak_mib}


def import_only(lake: str, _: int) -> dict[str, Any]:
    """What the imports alone take."""
    import_driver()
    return {}


def import_driver() -> None:
    """What a backfill has in memory before it plans."""
    import_module("rmsai_ray.backfill.flow")


def write_manifest(lake: str, number: int) -> dict[str, Any]:
    """A settled lake's manifest, made in pages."""
    pages = [manifest_rows(first, min(first + 10_000, number)) for first in range(0, number, 10_000)]
    save_manifest(Store(lake), MODEL, Manifest.of([pa.concat_tables(pages).sort_by("uri")]))
    return {}


def plan(lake: str, number: int) -> dict[str, Any]:
    """Listing, manifest, difference and units, as the driver makes them."""
    import_driver()
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal started
        seconds[f"{name}_s"], started = time.perf_counter() - started, time.perf_counter()

    listing = list_archives(BackfillConfig(archives=f"synthetic://{number}", lake=lake))
    lap("listing")
    manifest = load_manifest(Store(lake), MODEL)
    lap("manifest")
    todo = difference(listing, manifest, RUN, retry=False)
    lap("difference")
    units = pack_units(
        todo, run_id=RUN, unit_bytes=lambda left: choose_unit_bytes(left, 2), max_archive_bytes=2**30
    )
    num_units = sum(1 for _ in units)
    lap("units")
    count_by_status(listing, manifest)
    lap("counts")
    return {"todo": todo.num_rows, "units": num_units, **seconds}


def fold_new(lake: str, number: int, new: int) -> dict[str, Any]:
    """The end of a night's run: manifest and ledger entries become the next manifest."""
    import_driver()
    rows = manifest_rows(number, number + new).to_pylist()
    units: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        times = {name: row[name].isoformat() for name in ("modified_time", "committed_time")}
        units.setdefault(row["unit_id"], []).append({**row, **times})
    entries = [
        LedgerEntry(unit_id=unit, run_id=RUN, model_id=MODEL, archives=found, parts={}, fragments=[])
        for unit, found in units.items()
    ]
    store = Store(lake)
    result = fold(load_manifest(store, MODEL), entries, RUN)
    save_manifest(store, MODEL, result.manifest)
    return {"rows": result.manifest.rows.num_rows, "evictions": result.evictions.num_rows}


def manifest_rows(first: int, last: int) -> pa.Table:
    """Committed archives."""
    rows = [
        {
            "uri": f"s3://ward/{archive_key(number)}",
            "model_id": MODEL,
            "archive_id": archive_id(str(number).encode()),
            "size": size_of(number),
            "etag": etag_of(number),
            "modified_time": TIME,
            "status": "committed",
            "attempts": 1,
            "patient_id": f"PT{number % PATIENTS_PER_MONTH:06}",
            "period": archive_key(number)[-10:-3],
            "variant": "v3",
            "degraded": False,
            "num_events": 10,
            "num_windows": 70,
            "num_rejects": 0,
            "error": None,
            "unit_id": f"{number // UNIT_ARCHIVES:016x}",
            "run_id": RUN,
            "committed_time": TIME,
        }
        for number in range(first, last)
    ]
    return pa.Table.from_pylist(rows, schemas.ARCHIVES)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
