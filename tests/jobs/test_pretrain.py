"""The job that trains a model: its demo runs end to end, on two workers."""

import os
import subprocess
import sys
from pathlib import Path

from rmsai_ray.models.checkpoint import load_model

ROOT = Path(__file__).parents[2]


def pretrain(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "jobs" / "pretrain.py", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_the_demo(tmp_path: Path) -> None:
    folder = tmp_path / "demo" / "training" / "framed-2400x64"
    finished = pretrain(cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "epoch 2:" in finished.stderr
    assert load_model(folder).model_id in finished.stderr
    assert len(list((tmp_path / "demo" / "training" / "archives").glob("*.h5"))) == 8
    assert "## Figures" in (folder / "CARD.md").read_text()


def test_a_bad_option_is_exit_code_2_and_writes_nothing(tmp_path: Path) -> None:
    finished = pretrain("--archives", "nowhere", "--output", "out", "--epochs", "0", cwd=tmp_path)
    assert finished.returncode == 2
    assert "epochs" in finished.stderr
    assert not list(tmp_path.iterdir())
