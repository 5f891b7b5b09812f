"""The dry run: what a backfill would fetch and how long it would take, from a sample of the real work."""

from __future__ import annotations

import os
import time

from rich.console import Console
from rich.table import Table

from rmsai_ray.archives.reader import read_archive
from rmsai_ray.archives.sources import open_source
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.plan import Unit
from rmsai_ray.backfill.rows import UnitRows
from rmsai_ray.encoding.encoder import WindowEncoder, limit_threads
from rmsai_ray.errors import ArchiveError, StorageError
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.signals.leads import select_leads

SAMPLED_ARCHIVES = 4


def print_plan(
    console: Console, config: BackfillConfig, bundle: ModelBundle, num_listed: int, units: list[Unit]
) -> None:
    """Objects, bytes, units and the estimated time on this machine's cores."""
    num_bytes = sum(unit.num_bytes for unit in units)
    table = Table(title="Plan (nothing was written)", title_justify="left", show_header=False)
    table.add_row("archives listed", f"{num_listed:,}")
    table.add_row("to do", f"{sum(len(unit.archives) for unit in units):,} archives, one GET each")
    table.add_row("bytes", f"{num_bytes:,} ({num_bytes / 2**20:,.1f} MiB)")
    table.add_row("units", f"{len(units):,}")
    if units:
        seconds = seconds_per_byte(config, bundle, units) * num_bytes / (os.cpu_count() or 1)
        table.add_row("estimated time", f"{seconds:,.0f} s on {os.cpu_count()} cores, after Ray's start")
    console.print(table)


def seconds_per_byte(config: BackfillConfig, bundle: ModelBundle, units: list[Unit]) -> float:
    """Seconds of one core per archive byte, measured on the first readable archives of the plan."""
    limit_threads(1)
    source, encoder = open_source(config.archives), WindowEncoder(bundle)
    sample = [archive["uri"] for unit in units for archive in unit.archives][:: max(1, len(units))]
    started, num_bytes = time.perf_counter(), 0
    for uri in sample[:SAMPLED_ARCHIVES]:
        try:
            content = source.read(uri)
            archive = read_archive(content, uri)
        except (ArchiveError, StorageError):
            continue
        rows = UnitRows("", bundle.model_id, "", bundle.spec, "")
        rows.add_archive(archive, uri, select_leads(config.leads), tail=config.tail)
        windows, _, _ = rows.tables()
        signal = windows["signal"].combine_chunks()
        if len(signal):
            encoder.encode(
                signal.flatten().to_numpy().reshape(len(signal), -1),
                windows["num_samples"].to_numpy(),
                windows["lead"].to_pylist(),
            )
        num_bytes += len(content)
    return (time.perf_counter() - started) / num_bytes if num_bytes else 0.0
