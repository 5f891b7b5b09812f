"""The jobs that judge and tune models, as an operator types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rmsai_ray.evaluation.demo import make_demo_archives

ROOT = Path(__file__).resolve().parents[2]


def run(script: str, *options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "jobs" / script, *options],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.timeout(600)
def test_the_demo_of_the_evaluation_twice_with_a_look_into_a_lake(tmp_path: Path) -> None:
    archives = "demo/evaluation/archives"
    make_demo_archives(str(tmp_path / archives))
    filled = run("backfill.py", "--archives", archives, "--lake", "lake", "--leads", "ECG2", cwd=tmp_path)
    assert filled.returncode == 0, filled.stderr
    first = run("evaluate.py", "demo", "--lake", "lake", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    [report] = (tmp_path / "demo/evaluation/reports").glob("evaluate-simulated-*/report.json")
    found = json.loads(report.read_text())
    assert len(found["conditions"]) == 4
    for table in found["conditions"].values():
        scores = {row["score"]: row for row in table}
        assert {"ensemble", "random", "rr_irregularity", "sub_pca", "k_shape"} <= scores.keys()
        assert scores["condition_error"]["circular"]
    assert (report.parent / "curves.png").stat().st_size > 10_000
    assert "circular" in (report.parent / "report.md").read_text()
    assert len(found["lake"]["top"]) == 20
    assert all(query["found"] for query in found["lake"]["look_alikes"])
    assert (report.parent / "look_alikes.png").is_file()

    second = run("evaluate.py", "demo", "--lake", "lake", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "Nothing to do" in second.stderr


def test_an_unknown_protocol_is_exit_code_2_and_writes_nothing(tmp_path: Path) -> None:
    done = run("evaluate.py", "--protocol", "no", "--archives", "a", "--output", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert "mitdb-windows" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(600)
def test_four_trials_make_a_leaderboard(tmp_path: Path) -> None:
    done = run("tune.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "demo/tuning/result/leaderboard.json").read_text())
    assert len(rows) == 4
    assert [row["error"] for row in rows] == [None] * 4
    assert all(len(row["by_fold"]) == 3 for row in rows)
    assert rows[0]["auroc"] == max(row["auroc"] for row in rows)
    assert json.loads((tmp_path / "demo/tuning/result/best.json").read_text()) == rows[0]
