"""The job that trains a model further: its demo runs end to end, from the packaged model."""

import os
import subprocess
import sys
from pathlib import Path

from rmsai_ray.models.checkpoint import load_model

ROOT = Path(__file__).parents[2]


def test_the_demo(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, ROOT / "jobs" / "finetune.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr
    child = load_model(tmp_path / "demo" / "finetuning" / "model")
    parent = load_model("framed-2400x64")
    assert child.facts["lineage"][-1]["model_id"] == parent.model_id
    assert child.model_id != parent.model_id
    assert (
        f"Fine-tuned from `{parent.model_id}`"
        in (tmp_path / "demo" / "finetuning" / "model" / "CARD.md").read_text()
    )
