"""The job that adapts thresholds: twice over one lake, and its exit code where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rmsai_ray.detection.adapt import AdaptConfig, adapt
from rmsai_ray.detection.profiles import NamedProfiles, profile_to_json, versioned
from rmsai_ray.detection.thresholds import ThresholdProfile
from rmsai_ray.job import EXIT_BAD_CONFIG, run
from rmsai_ray.tables.audit import read_audit
from tests import lake_builder
from tests.lake_builder import MODEL_A, build_lake

ROOT = Path(__file__).parents[2]
SCORER = f"{MODEL_A}+0a1b2c3d"


def job(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "jobs" / "adapt_thresholds.py", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_the_demo_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_builder, "STARTS", tuple(range(0, 2800, 70)))
    build_lake(tmp_path / "demo" / "lake", (MODEL_A,))
    start = versioned(ThresholdProfile("mine", "", "ensemble", {"*": 9.0}, {"Tachy": {"*": 9.0}}), "hand")
    (tmp_path / "start.json").write_text(json.dumps(profile_to_json(start)))
    for number in (1, 2):
        finished = job("demo", "--start", "start.json", cwd=tmp_path)
        assert finished.returncode == 0, finished.stderr
        audit = read_audit(str(tmp_path / "demo" / "lake"), SCORER)
        assert audit.num_rows == number * 3 * 2
    assert "windows (reported)" in finished.stderr
    history = NamedProfiles(str(tmp_path / "demo" / "lake"), SCORER).history("adaptive")
    assert [step.action for step in history][:2] == ["start", "adapt"]
    assert min(history[-1].profile.conditions["Tachy"].values()) >= 0.7 * 9.0


def test_no_lake_is_bad_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--lake", str(tmp_path / "lake")]
    assert run(AdaptConfig, adapt, presets={}, argv=argv) == EXIT_BAD_CONFIG
    assert "jobs/backfill.py" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
