"""What a backfill says of itself: one report per unit, added up to the summary at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from rmsai_ray.signals.leads import LEADS
from rmsai_ray.tables.blocks import UnitTables
from rmsai_ray.terminal import printable

STAGES = ("read", "encode", "write")
ADDED_UP = ("archives", "counts", "windows_by", "anomalies_by", "rejects", "seconds", "num_bytes", "nodes")
SHOWN_CONDITIONS = 12
BY_LIBRARY = "read by HDF5's library"
"""Bytes of archives that are laid out so that only the library can read them."""


def unit_report(unit: UnitTables, seconds: dict[str, float], num_bytes: dict[str, int]) -> dict[str, Any]:
    """Counts of one finished unit."""
    return {
        "archives": dict(Counter(row["status"] for row in unit.archives)),
        "counts": {
            "events": unit.events.num_rows,
            "windows": unit.windows.num_rows,
            "anomalies": pc.sum(unit.windows["is_anomaly"]).as_py() or 0,
        },
        "windows_by": _count_by(unit.windows),
        "anomalies_by": _count_by(unit.windows.filter(unit.windows["is_anomaly"])),
        "rejects": dict(Counter(unit.rejects["reason"].to_pylist())),
        "seconds": seconds,
        "num_bytes": num_bytes,
        "unit_id": unit.unit_id,
        "retries": sum(max(0, row["attempts"] - 1) for row in unit.archives),
        "nodes": [f"{stage}\t{node}" for stage, node in unit.nodes.items()],
    }


@dataclass
class Summary:
    """The sum of the reports of one invocation."""

    archives: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    windows_by: Counter[str] = field(default_factory=Counter)
    """``condition<TAB>lead`` → windows."""
    anomalies_by: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    """Worker seconds by stage."""
    num_bytes: Counter[str] = field(default_factory=Counter)
    nodes: Counter[str] = field(default_factory=Counter)
    """``stage<TAB>node id`` → units."""
    num_units: int = 0

    def add(self, report: dict[str, Any]) -> None:
        """Adds the report of one unit."""
        self.num_units += 1
        for name in ADDED_UP:
            getattr(self, name).update(report[name])

    @property
    def slowest_stage(self) -> str | None:
        """The stage that took most worker seconds; None where nothing was done."""
        return max(STAGES, key=lambda stage: self.seconds[stage]) if self.seconds else None

    def to_json(self) -> dict[str, Any]:
        """For the run record."""
        return {
            "archives": dict(self.archives),
            **self.counts,
            "rejects": dict(self.rejects),
            "bytes": dict(self.num_bytes),
            "units": self.num_units,
            "units_by_node": self._units_by_node(),
        }

    def _units_by_node(self) -> dict[str, dict[str, int]]:
        """Stage → node id → units."""
        found: dict[str, dict[str, int]] = {}
        for key, count in self.nodes.items():
            stage, _, node = key.partition("\t")
            found.setdefault(stage, {})[node] = count
        return found


def print_summary(
    console: Console,
    summary: Summary,
    *,
    listing: dict[str, int],
    places: dict[str, str],
    elapsed_s: float,
    binding: str | None = None,
) -> None:
    """The page that an operator reads when a backfill has ended; ``binding`` says what limited its speed."""
    console.print()
    console.print(_totals(summary, listing, elapsed_s, binding))
    if summary.counts["windows"]:
        console.print(Group(_matrix(summary), ""))
    if summary.rejects:
        rejects = Table(title="Rejects by reason", title_justify="left")
        rejects.add_column("reason")
        rejects.add_column("rows", justify="right")
        for reason, count in summary.rejects.most_common():
            rejects.add_row(reason, f"{count:,}")
        console.print(rejects)
    where = Table(show_header=False, box=None, pad_edge=False)
    for name, place in places.items():
        where.add_row(f"[bold]{name}[/]", place)
    console.print(where, soft_wrap=True)


def _totals(summary: Summary, listing: dict[str, int], elapsed_s: float, binding: str | None) -> Table:
    table = Table(title="Backfill", title_justify="left", show_header=False)
    done = ", ".join(f"{count:,} {status}" for status, count in sorted(listing.items())) or "none"
    table.add_row("archives listed", f"{sum(listing.values()):,} ({done})")
    table.add_row(
        "new in this run", f"{sum(summary.archives.values()):,} archives in {summary.num_units:,} units"
    )
    table.add_row("events", f"{summary.counts['events']:,}")
    anomalies, windows = summary.counts["anomalies"], summary.counts["windows"]
    share = f" ({anomalies / windows:.1%} anomalous)" if windows else ""
    table.add_row("windows", f"{windows:,}{share}")
    read, parquet, in_lance = (_mebibytes(summary.num_bytes[name]) for name in ("read", "parquet", "lance"))
    table.add_row("bytes", f"{read} read, {parquet} Parquet, {in_lance} LanceDB")
    if detoured := summary.num_bytes[BY_LIBRARY]:
        table.add_row("of unusual layout", f"{_mebibytes(detoured)}, which take three times as long to read")
    total = sum(summary.seconds[stage] for stage in STAGES)
    if total:
        split = ", ".join(f"{stage} {summary.seconds[stage] / total:.0%}" for stage in STAGES)
        table.add_row("worker time", f"{total:.1f} s: {split}")
        table.add_row("binding stage", binding or summary.slowest_stage or "none")
    rate = f" ({summary.counts['events'] / elapsed_s * 60:,.0f} events per minute)" if total else ""
    table.add_row("elapsed", f"{elapsed_s:.1f} s{rate}")
    return table


def _matrix(summary: Summary) -> Table:
    """Anomalous share of windows, by condition and lead."""
    present = {key.partition("\t")[2] for key in summary.windows_by}
    leads = [lead for lead in LEADS if lead in present]
    table = Table(title="Anomalous windows by reported condition and lead", title_justify="left")
    table.add_column("condition")
    for lead in leads:
        table.add_column(lead, justify="right", no_wrap=True)
    by_condition: Counter[str] = Counter()
    for key, count in summary.windows_by.items():
        by_condition[key.partition("\t")[0]] += count
    if len(by_condition) > SHOWN_CONDITIONS:
        table.caption = f"the {SHOWN_CONDITIONS} most frequent of {len(by_condition)} conditions"
    for condition, _ in by_condition.most_common(SHOWN_CONDITIONS):
        table.add_row(
            Text(printable(condition)), *(_share(summary, f"{condition}\t{lead}") for lead in leads)
        )
    return table


def _share(summary: Summary, cell: str) -> str:
    windows = summary.windows_by[cell]
    return f"{summary.anomalies_by[cell] / windows:.0%}" if windows else "–"


def _count_by(windows: pa.Table) -> dict[str, int]:
    counted = windows.group_by(["condition", "lead"]).aggregate([([], "count_all")])
    return {
        f"{condition}\t{lead}": count
        for condition, lead, count in zip(
            *(counted[name].to_pylist() for name in ("condition", "lead", "count_all")), strict=True
        )
    }


def _mebibytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"


def count_status(statuses: Iterable[str]) -> dict[str, int]:
    """How many archives of a listing ended how."""
    return dict(Counter(statuses))
