"""Progress for people: a bar on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rmsai_ray.backfill.plan import Unit

LINE_EVERY_S = 60.0


def follow(
    reports: Iterable[dict[str, Any]], units: list[Unit], console: Console
) -> Iterator[dict[str, Any]]:
    """Passes reports on, and shows how many archives are done."""
    total = sum(len(unit.archives) for unit in units)
    shown = _with_bar if console.is_terminal else _with_lines
    yield from shown(reports, total, console)


def _with_bar(reports: Iterable[dict[str, Any]], total: int, console: Console) -> Iterator[dict[str, Any]]:
    columns = (
        TextColumn("archives"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[windows]:,} windows"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("archives", total=total, windows=0)
        windows = 0
        for report in reports:
            windows += report["counts"]["windows"]
            progress.update(task, advance=sum(report["archives"].values()), windows=windows)
            yield report


def _with_lines(reports: Iterable[dict[str, Any]], total: int, console: Console) -> Iterator[dict[str, Any]]:
    done, last = 0, time.monotonic()
    for report in reports:
        done += sum(report["archives"].values())
        if time.monotonic() - last >= LINE_EVERY_S:
            console.print(f"{done:,} of {total:,} archives", highlight=False)
            last = time.monotonic()
        yield report
