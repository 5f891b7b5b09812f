"""Fitting detectors as an operator types it: its demo twice, and what it cannot do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rmsai_ray.detection.detector_set import DEFAULT_DETECTORS, DEFAULT_MEMBERS, load_detector_set

ROOT = Path(__file__).resolve().parents[2]


def fit(*options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "jobs/fit_detectors.py", *options],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.timeout(600)
def test_demo_twice(tmp_path: Path) -> None:
    first = fit(cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    made = load_detector_set(tmp_path / "demo/detectors/set")
    assert tuple(made.detectors) == DEFAULT_DETECTORS
    assert made.members == DEFAULT_MEMBERS
    patients = made.facts["patients"]
    assert patients["train"]
    assert patients["validation"]
    assert not set(patients["train"]) & set(patients["validation"])
    assert made.set_id in first.stdout

    second = fit("demo", "--output", "again", cwd=tmp_path)

    assert second.returncode == 0, second.stderr
    assert load_detector_set(tmp_path / "again").set_id == made.set_id
    [record] = (tmp_path / "demo/detectors/lake/runs").glob("fit-detectors-*/run.json")
    content = json.loads(record.read_text())
    assert (content["status"], content["facts"]["set_id"]) == ("done", made.set_id)
    assert len(content["invocations"]) == 2


def test_bad_configuration_has_its_own_exit_code(tmp_path: Path) -> None:
    done = fit("--lake", "nowhere", "--output", "set", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "holds no archives manifest" in done.stderr
    assert not (tmp_path / "set").exists()
