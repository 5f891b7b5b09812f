"""Maintenance as an operator types it: the demo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rmsai_ray.tables.lake import open_lake

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(300)
def test_demo(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "jobs/maintain.py"],
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "files before" in done.stdout
    lake = open_lake(str(tmp_path / "demo/maintain/lake"))
    assert [len(lake.parquet_files(table)) for table in ("windows", "events")] == [1, 1]
    [found] = lake.rows("SELECT count(*) AS num, count(DISTINCT unit_id) AS units FROM windows")
    assert found == {"num": 42, "units": 6}
    assert lake.vectors().count_rows() == 42
