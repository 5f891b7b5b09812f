"""What the benchmarks share: interleaved repeats, medians, one table for people and one JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table


def interleaved(repeat: int, measures: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Calls every measure once per round, so that a noisy minute hits all of them; the values of each."""
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeat):
        for name, measure in measures.items():
            found[name].append(measure())
    return dict(found)


def medians(values: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each."""
    return {name: median(each) for name, each in values.items()}


def report(title: str, rows: Mapping[str, Any], ratios: Mapping[str, float], output: Path | None) -> None:
    """Prints measured values and, below them, the ratios that count; writes both as JSON if asked to.

    Args:
        title: of the table.
        rows: measured values, with the unit in the name.
        ratios: what is compared with a target.
        output: the JSON file, or None.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    table.add_column("value", justify="right")
    for name, value in rows.items():
        table.add_row(name, _text(value))
    table.add_section()
    for name, value in ratios.items():
        table.add_row(f"[bold]{name}[/bold]", f"[bold]{_text(value)}[/bold]")
    Console().print(table)
    if output:
        machine = {"cores": os.cpu_count(), "machine": platform.machine()}
        result = {"title": title, "machine": machine, "values": dict(rows), "ratios": dict(ratios)}
        output.write_text(json.dumps(result, indent=2))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
