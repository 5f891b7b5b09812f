"""Re-identification as an operator types it: the demo, and its card asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rmsai_ray.cli import main as rmsai

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(300)
def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "jobs/reidentify.py"],
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "An ECG identifies its owner" in done.stdout
    assert rmsai(["card", "--json", "--lake", str(tmp_path / "demo/reidentify/lake")]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["pseudonyms"] is None
    assert card["counts"]["patients"] == "fewer than 10"
    assert card["counts"]["windows"] == 8 * 2 * 2 * 7
    of_leads = card["reidentification"]["leads"]
    assert len(of_leads) == 7
    for found in of_leads.values():
        assert (found["halves"]["num_probed"], found["sessions"]["num_probed"]) == (8, 8)
        assert found["sessions"]["rank_1"]["value"] > found["sessions"]["chance"]
        assert found["sessions"]["true_accepts"] is None, "too few patients to tell 1 in 1,000"
