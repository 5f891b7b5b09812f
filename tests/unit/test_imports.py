"""Imports go one way, and each third-party library has its home files; the offending import is named."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# From the bottom up. A part imports parts of lower layers, and itself; never its neighbours.
FOUNDATION, RECORD, SIGNALS, STORES, REGISTRY, JOB, FLOWS, BACKFILL, NIGHTLY, FRONT, JOBS = range(11)
LAYERS = {
    "errors": FOUNDATION,
    "plugins": FOUNDATION,
    "ids": FOUNDATION,
    "terminal": FOUNDATION,
    "storage": FOUNDATION,
    "scrubbing": FOUNDATION,
    "revisions": FOUNDATION,
    "privacy": FOUNDATION,
    "compute": RECORD,
    "exposure": RECORD,
    "runs": RECORD,
    "logs": RECORD,
    "metrics": RECORD,
    "lineage": RECORD,
    "signals": SIGNALS,
    "archives": STORES,
    "models": STORES,
    "tables": STORES,
    "registry": REGISTRY,
    "job": JOB,
    "corpus": FLOWS,
    "encoding": FLOWS,
    "training": FLOWS,
    "detection": FLOWS,
    "monitoring": FLOWS,
    "backfill": BACKFILL,
    "evaluation": BACKFILL,
    "nightly": NIGHTLY,
    "cli": FRONT,
    "cards": FRONT,
    "jobs": JOBS,
}
LAYERS_OF_FRIENDS = (FOUNDATION, RECORD)

HOMES = {
    "h5py": ("archives",),
    "wfdb": ("archives",),
    "sleepecg": ("archives", "signals"),
    "torch": ("models", "encoding", "training"),
    "safetensors": ("models",),
    "lance": ("tables",),
    "lancedb": ("tables",),
    "duckdb": ("tables",),
    "sklearn": ("detection", "evaluation"),
    "numba": ("encoding",),
    "deflate": ("archives",),
    "skops": ("detection",),
    "optuna": ("evaluation",),
    "obstore": ("storage",),
    "grpc": ("exposure",),
    "ray": ("backfill", "corpus", "encoding", "evaluation", "training", "job", "metrics"),
    "openlineage": ("lineage",),
    "tyro": ("job", "cli"),
    "rich": ("job", "backfill", "corpus", "nightly", "cli", "cards"),
}


def imports_of(path: Path, source: str) -> Iterator[tuple[int, str]]:
    """Every (line, dotted module) that a file imports, at any depth; relative names are made absolute."""
    package = list(path.with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def part_of(path: Path) -> str:
    """`rmsai_ray/tables/lake.py` → `tables`; `rmsai_ray/ids.py` → `ids`; `jobs/backfill.py` → `jobs`."""
    return "jobs" if path.parts[0] == "jobs" else Path(path.parts[1]).stem


def violations(path: Path, source: str) -> list[str]:
    """One sentence per import of a file that breaks a rule. ``path`` is relative to the repository."""
    part, found = part_of(path), []
    for line, module in imports_of(path, source):
        top, *rest = module.split(".")
        problem = _wrong_way(part, rest[0]) if top == "rmsai_ray" and rest else _not_at_home(part, top)
        if problem:
            found.append(f"{path}:{line} imports {module}: {problem}")
    return found


def _wrong_way(part: str, other: str) -> str | None:
    if other == part or not {part, other} <= LAYERS.keys():
        return None
    mine, theirs = LAYERS[part], LAYERS[other]
    if theirs == mine and mine not in LAYERS_OF_FRIENDS:
        return f"{part} and {other} are neighbours, and meet in tables or in a job"
    return f"{other} lies above {part}" if theirs > mine else None


def _not_at_home(part: str, library: str) -> str | None:
    homes = HOMES.get(library)
    return f"{library} belongs into {', '.join(homes)}" if homes and part not in homes else None


def source_files() -> list[Path]:
    """Every file of the package and of jobs/, relative to the repository."""
    files = [*ROOT.glob("rmsai_ray/**/*.py"), *ROOT.glob("jobs/*.py")]
    return sorted(file.relative_to(ROOT) for file in files)


def test_imports_go_one_way_and_libraries_stay_at_home() -> None:
    found = [problem for path in source_files() for problem in violations(path, (ROOT / path).read_text())]
    assert not found, "\n" + "\n".join(found)


def test_every_part_of_the_package_has_a_layer() -> None:
    parts = {part_of(path) for path in source_files()} - {"__init__", "__main__"}
    assert parts <= LAYERS.keys(), f"give these a layer: {sorted(parts - LAYERS.keys())}"


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("rmsai_ray/signals/windows.py", "from rmsai_ray.archives.format import LEADS", "above signals"),
        ("rmsai_ray/tables/lake.py", "def f():\n    import rmsai_ray.models.base", "neighbours"),
        ("rmsai_ray/detection/decisions.py", "from rmsai_ray import encoding", "neighbours"),
        ("rmsai_ray/detection/decisions.py", "from ..training import loop", "neighbours"),
        ("rmsai_ray/runs.py", "from rmsai_ray.job import run", "above runs"),
        ("rmsai_ray/tables/lake.py", "import torch.nn as nn", "torch belongs into"),
        ("rmsai_ray/signals/quality.py", "import ray", "ray belongs into"),
        ("jobs/backfill.py", "from lancedb import connect", "lancedb belongs into"),
    ],
)
def test_an_offending_import_is_named(path: str, source: str, expected: str) -> None:
    (problem,) = violations(Path(path), source)
    assert path in problem
    assert expected in problem


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("rmsai_ray/encoding/flow.py", "import ray.data\nfrom rmsai_ray.tables import units"),
        ("rmsai_ray/tables/lake.py", "from . import schemas\nfrom .units import Unit"),
        ("rmsai_ray/runs.py", "from rmsai_ray import __version__\nfrom rmsai_ray.compute import Cluster"),
        ("jobs/backfill.py", "from rmsai_ray.encoding.flow import backfill\nfrom rmsai_ray.job import main"),
    ],
)
def test_allowed_imports_pass(path: str, source: str) -> None:
    assert violations(Path(path), source) == []
