from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from rmsai_ray.backfill.estimate import Line, scratch_lake
from tests.local_backfill import LocalBackfill


def test_what_a_unit_costs_at_least_is_told_from_what_a_byte_costs() -> None:
    line = Line.through([(100, 250), (100, 250), (10, 70)])
    assert (line.start, line.slope) == (pytest.approx(50), pytest.approx(2))


def test_units_of_one_size_cost_in_proportion() -> None:
    assert Line.through([(100, 250)]) == Line(0.0, 2.5)
    assert Line.through([(0, 0)]) == Line(0.0, 0.0)


def test_nothing_costs_less_than_nothing() -> None:
    assert Line.through([(10, 5), (100, 200)]).start == 0.0
    assert Line.through([(10, 50), (100, 20)]).slope == 0.0


def test_a_dry_run_leaves_nothing_and_clears_away_what_a_killed_one_left(tmp_path: Path) -> None:
    run = LocalBackfill(tmp_path).resolve()
    old, young = "dry-run/old/windows/part.parquet", "dry-run/young/windows/part.parquet"
    for key in (old, young, "windows/part.parquet"):
        run.lake.put(key, b"rows")
        os.utime(Path(run.lake.uri) / key, (time.time() - 2 * 86_400,) * 2)
    run.lake.put(young, b"somebody is at work on it")
    with scratch_lake(run) as trial:
        trial.lake.put("windows/part.parquet", b"rows of the trial")
        assert trial.lake.uri.startswith(run.lake.child_uri("dry-run/"))
    assert {info.key for info in run.lake.list()} == {young, "windows/part.parquet"}
    assert not Path(trial.lake.uri).exists()
