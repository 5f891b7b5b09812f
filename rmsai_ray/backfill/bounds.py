"""How close a run came to what the hardware allows: its slowest stage, beside the bound of that stage.

A bound is what a core of this machine does when it does nothing but inflate (for reading), multiply float32
matrices (for encoding), write the same rows in bulk (for writing). Each takes a fraction of a second.
"""

from __future__ import annotations

import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from rmsai_ray.archives.chunks import inflate
from rmsai_ray.archives.reader import read_archive
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.backfill.report import Summary
from rmsai_ray.encoding.flops import flops_per_window, sgemm_flops_per_s
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.storage import Store
from rmsai_ray.tables import parts
from rmsai_ray.tables.vectors import VectorTable

TRY_S = 0.1
ARCHIVE_LEVEL = 4
"""Of the archives' compression."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What a stage did per second of a worker, and what it could have done."""

    stage: str
    what: str
    done_per_s: float
    bound_per_s: float

    @property
    def share(self) -> float:
        """Of the bound that was reached."""
        return self.done_per_s / self.bound_per_s

    def __str__(self) -> str:
        return f"{self.stage}, at {self.share:.0%} of {self.what} alone on a core"


def binding_bound(summary: Summary, lake: Store, bundle: ModelBundle, *, on_gpu: bool) -> Bound | None:
    """The stage that took most worker seconds, beside its bound.

    None where nothing was done, and for encoding on a GPU, of which a core tells nothing.
    """
    stage = summary.slowest_stage
    if stage is None or not summary.counts["windows"] or (on_gpu and stage == "encode"):
        return None
    measures: dict[str, Callable[[], tuple[str, float, float]]] = {
        "read": lambda: ("inflating", summary.num_bytes["read"], inflated_bytes_per_s()),
        "encode": lambda: (
            "float32 matrix products",
            summary.counts["windows"] * flops_per_window(bundle.network),
            sgemm_flops_per_s(TRY_S),
        ),
        "write": lambda: (
            "a bulk write",
            summary.counts["windows"],
            written_rows_per_s(largest_part(lake, bundle.model_id)),
        ),
    }
    what, done, bound = measures[stage]()
    return Bound(stage=stage, what=what, done_per_s=done / summary.seconds[stage], bound_per_s=bound)


def inflated_bytes_per_s() -> float:
    """Compressed bytes per second, of leads that a monitor might have stored."""
    name, content = simulate_archive(0, 1, seed=0)
    leads = read_archive(content, name).events[0].leads.values()
    chunks = [(zlib.compress(lead.samples.tobytes(), ARCHIVE_LEVEL), lead.samples.nbytes) for lead in leads]

    def inflate_all() -> None:
        for stored, num_bytes in chunks:
            inflate(stored, num_bytes)

    return sum(len(stored) for stored, _ in chunks) / _best_s(inflate_all)


def written_rows_per_s(windows: pa.Table) -> float:
    """Rows per second of the windows table, to Parquet in memory and to a Lance fragment in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        table = VectorTable(folder, "bound", windows.schema.field("embedding").type.list_size)
        table.ensure_exists()

        def write() -> None:
            parts.to_parquet(windows)
            table.write_fragments(windows)

        return float(windows.num_rows / _best_s(write))


def largest_part(lake: Store, model_id: str) -> pa.Table:
    """The windows of the lake's largest part: small ones cost mostly their beginnings."""
    infos = parts.list_part_infos(lake, model_id)
    largest = max((info for info in infos if info.key.startswith("windows/")), key=lambda info: info.size)
    table = parts.read_part(lake, largest.key)
    assert table is not None, largest.key
    return table


def _best_s(work: Callable[[], None]) -> float:
    """Seconds of the fastest of some tries."""
    best, end = float("inf"), time.perf_counter() + TRY_S
    while time.perf_counter() < end:
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best
