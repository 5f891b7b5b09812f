"""Every benchmark in turn, and one table of what was reached beside what was aimed at.

    python -m benchmarks.everything [--only parsing encoding] [--folder build/bench]

Takes about half an hour on two cores, which should have nothing else to do. The figures of each go to
FOLDER/<name>.json, the table to FOLDER/summary.json. Aims are for two cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Aim:
    """One figure of a benchmark, and where it should lie."""

    benchmark: str
    figure: str
    least: float | None = None
    most: float | None = None

    def is_met(self, value: float) -> bool:
        """Whether a value lies there."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        return f"≥ {self.least:g}" if self.most is None else f"≤ {self.most:g}"


AIMS = (
    Aim("backfill", "backfill / slowest stage alone on one core", least=0.9),
    Aim("backfill", "backfill / slowest stage alone on all cores", least=0.9),
    Aim("backfill", "backfill / plain script", least=0.9),
    Aim("backfill", "backfill / DataLoader script", least=1),
    Aim("backfill", "backfill with the original's network / original's loop", least=10),
    Aim("backfill", "backfill / original's loop", least=500),
    Aim("parsing", "direct / idiomatic h5py", least=8),
    Aim("parsing", "direct / inflating alone", least=0.25),
    Aim("encoding", "seed-2400x64: lanes / matrix products", least=0.75),
    Aim("encoding", "seed-2400x64: lanes / best torch", least=1.5),
    Aim("encoding", "seed-2400x64: largest difference to torch", most=1e-5),
    Aim("encoding", "seed-2400x64: two processes / one", least=1.9),
    Aim("encoding", "framed-2400x64: two processes / one", least=1.9),
    Aim("fetching", "ours / s3fs", least=3),
    Aim("fetching", "extra memory of ours (MiB)", most=64),
    Aim("fetching", "failed objects under faults", most=0),
    Aim("ingest", "committed / raw", least=0.8),
    Aim("ingest", "committed / a row at a time", least=100),
    Aim("search", "recall@10", least=0.99),
    Aim("search", "ten nearest rows: index against scan", least=50),
    Aim("planning", "a night's plan, seconds / 60", most=1),
    Aim("planning", "a night's plan, memory / 1 GiB", most=1),
    Aim("growth", "cost per event of the last size / of the first (worker)", most=1.1),
    Aim("growth", "driver memory of the last size / of the first", most=1.1),
    Aim("start", "first committed unit", most=20),
    Aim("dry_run", "seconds", least=0.8),
    Aim("dry_run", "seconds", most=1.2),
    Aim("dry_run", "bytes written", least=0.8),
    Aim("dry_run", "bytes written", most=1.2),
)
WITHOUT_AIMS = ("roofline", "storage", "training")


@dataclass
class Options:
    """What to run."""

    only: tuple[str, ...] = ()
    """Names of benchmarks; none means all."""
    folder: Path = Path("build/bench")


def main(options: Options) -> int:
    """Runs, prints, writes; 1 if a benchmark failed."""
    options.folder.mkdir(parents=True, exist_ok=True)
    names = options.only or (*dict.fromkeys(aim.benchmark for aim in AIMS), *WITHOUT_AIMS)
    failed = [name for name in names if not run(name, options.folder / f"{name}.json")]
    found = [(aim, value_of(aim, options.folder)) for aim in AIMS if aim.benchmark in names]
    table = Table("benchmark", "figure", "reached", "aim", "", title="All benchmarks", title_justify="left")
    for aim, value in found:
        mark = "" if value is None else "met" if aim.is_met(value) else "[bold red]missed[/]"
        table.add_row(aim.benchmark, aim.figure, "–" if value is None else f"{value:,.3g}", str(aim), mark)
    Console().print(table)
    summary = [asdict(aim) | {"reached": value} for aim, value in found]
    (options.folder / "summary.json").write_text(json.dumps(summary, indent=2))
    for name in failed:
        print(f"{name} failed", file=sys.stderr)
    return 1 if failed else 0


def run(name: str, output: Path) -> bool:
    """One benchmark in a process of its own."""
    output.unlink(missing_ok=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", "--output", str(output.absolute())]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def value_of(aim: Aim, folder: Path) -> float | None:
    """The figure; None where its benchmark gave none."""
    path = folder / f"{aim.benchmark}.json"
    if not path.exists():
        return None
    result = json.loads(path.read_text())
    value = (result["values"] | result["ratios"]).get(aim.figure)
    return None if value is None else float(value)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
