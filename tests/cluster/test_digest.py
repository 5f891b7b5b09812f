"""Order, sharding, batch size and number of workers change no row."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.lake_check import KEYS, MAY_DIFFER, compare, compare_rows, read_tables
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.pipeline import run_units
from rmsai_ray.backfill.plan import list_archives
from rmsai_ray.backfill.resolve import find_todo, plan_units, resolve, shelve, tasks_of
from rmsai_ray.compute import Cluster, plan_stages
from rmsai_ray.storage import Store
from rmsai_ray.tables.manifest import load_manifest
from rmsai_ray.tables.units import settle
from tests.cluster.corpus import only_model, run

FOUR_CORES = """
import sys
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.flow import backfill
from rmsai_ray.job import ray_session
archives, lake = sys.argv[1:]
with ray_session(num_cpus=4):
    backfill(BackfillConfig(archives=archives, lake=lake, num_encoders=4, unit_bytes=1, batch_windows=64))
"""


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"batch_windows": 1}, id="single windows"),
        pytest.param({"batch_windows": 64, "num_encoders": 1}, id="one encoder"),
        pytest.param({"unit_bytes": 700_000, "batch_windows": 5, "num_encoders": 2}, id="other units"),
    ],
)
def test_same_rows(uninterrupted: BackfillConfig, tmp_path: Path, options: dict[str, Any]) -> None:
    lake = str(tmp_path / "lake")
    run(uninterrupted, lake=lake, **options)
    assert not compare(lake, uninterrupted.lake)


def test_same_rows_from_four_encoders(uninterrupted: BackfillConfig, tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    command = [sys.executable, "-W", "ignore", "-c", FOUR_CORES, uninterrupted.archives, lake]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not compare(lake, uninterrupted.lake)


def test_same_rows_from_the_stages_around_a_gpu(uninterrupted: BackfillConfig, tmp_path: Path) -> None:
    """With a GPU that only Ray believes in: its encoder computes on the CPU."""
    backfill = resolve(replace(uninterrupted, lake=str(tmp_path / "lake"), unit_bytes=1))
    shelve(backfill)
    backfill.vectors.ensure_exists()
    model_id = backfill.bundle.model_id
    todo = find_todo(backfill, list_archives(backfill.config), load_manifest(backfill.lake, model_id))
    stages = plan_stages(Cluster(num_cpus=2, num_gpus=1), num_encoders=None, num_gpus=1)
    units = plan_units(backfill, todo, num_workers=1)
    reports = list(run_units(units, tasks_of(backfill, on_gpu=False), stages))
    assert len(reports) == len(units)
    settle(backfill.lake, backfill.vectors, model_id)
    assert not compare(backfill.lake.uri, uninterrupted.lake)


def test_same_rows_in_another_order(uninterrupted: BackfillConfig, tmp_path: Path) -> None:
    source, shuffled = Store(uninterrupted.archives), Store(str(tmp_path / "archives"))
    names = sorted(info.key for info in source.list())
    for place, name in enumerate(reversed(names)):
        shuffled.put(f"{place:02}/{name}", source.get(name))
    lake = str(tmp_path / "lake")
    run(uninterrupted, archives=shuffled.uri, lake=lake, unit_bytes=1_000_000)
    model = only_model(lake)
    rows, expected = read_tables(lake, model), read_tables(uninterrupted.lake, model)
    for name in ("windows", "events"):
        assert not compare_rows(getattr(rows, name), getattr(expected, name), KEYS[name], MAY_DIFFER)
    assert not compare_rows(rows.vectors, rows.windows, KEYS["windows"])
