"""The night as an operator types it: three days, a new amplifier on the third, and then nothing to do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from rmsai_ray.errors import AlertsRaisedError
from rmsai_ray.models.checkpoint import load_model
from rmsai_ray.nightly.drift import DriftConfig, check
from rmsai_ray.registry import ModelRegistry
from rmsai_ray.storage import Store
from rmsai_ray.tables.alerts import read_alerts
from rmsai_ray.tables.lake import open_lake

ROOT = Path(__file__).resolve().parents[2]
DAYS = ("2026-10-01", "2026-10-02", "2026-10-03")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "jobs/nightly.py", *arguments],
        cwd=folder,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def said(lake: Path, day: str, step: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((lake / f"nights/{day}/{step}.json").read_text())
    result: dict[str, Any] = found.get("result", found)
    return result


def times(folder: Path) -> dict[Path, int]:
    """When each file was written, but for the lease, which every invocation takes."""
    files = (path for path in folder.rglob("*") if path.is_file() and "lease" not in str(path))
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.timeout(400)
def test_demo(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 6, done.stderr  # a critical alert
    home = tmp_path / "demo/nightly"
    lake = home / "lake"

    # Two quiet days, and one alert on the third, told once.
    assert [said(lake, day, "report")["exit"] for day in DAYS] == [0, 0, 6]
    assert [said(lake, day, "drift")["report"]["status"] for day in DAYS] == [
        "no_reference",
        "quiet",
        "drift",
    ]
    [alert] = read_alerts(Store(str(lake)))
    assert (alert["kind"], alert["opened_night"], alert["count"], alert["sent_file"]) == (
        "drift",
        DAYS[2],
        1,
        1,
    )
    assert len((home / "alerts.jsonl").read_text().splitlines()) == 1
    [row] = open_lake(str(lake)).rows("SELECT kind, state FROM alerts")
    assert row == {"kind": "drift", "state": "open"}

    # A challenger, compared on patients who trained neither, and promoted.
    trained = said(lake, DAYS[2], "retraining")
    comparison = trained["comparison"]
    assert trained["status"] == "promoted"
    assert comparison["gain"]["low"] > 0
    assert comparison["patients"] >= 3
    assert comparison["mse_normal"]["challenger"]["value"] < comparison["mse_normal"]["trivial"]
    registry = ModelRegistry(str(home / "registry"))
    entry = registry.entry("ward")
    assert entry.aliases["champion"] == (1, 2)
    child = load_model(lake / f"nights/{DAYS[2]}/challenger")
    assert child.model_id == trained["challenger"] == entry.versions[1].content_id
    learned = {name for names in child.facts["splits"].values() for name in names}
    new = {f"PT{number:04}" for number in range(9024, 9036)}
    assert learned < new
    assert len(new - learned) == comparison["patients"]

    # The report says it all, in one file.
    page = (lake / f"nights/{DAYS[2]}/report.html").read_text()
    for text in ("1 new alert: drift", "have drifted", "was promoted", "Nothing was quarantined", "AUROC"):
        assert text in page
    assert page.count("data:image/png;base64,") == 3
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    [record] = [
        found
        for path in lake.glob("runs/nightly-*/run.json")
        if (found := json.loads(path.read_text()))["facts"]["night"] == DAYS[2]
    ]
    assert [step["status"] for step in record["facts"]["steps"]] == ["done"] * 7
    linked = [key for step in record["facts"]["steps"] for key in step["runs"]]
    assert len(linked) == 2
    assert all((lake / key).is_file() for key in linked)

    # The second time there is nothing to do.
    before = times(home)
    again = run(tmp_path, "demo")
    assert again.returncode == 0, again.stderr
    assert "Nothing to do" in again.stdout
    assert times(home) == before

    # The drift check alone says the same of the third day's rows.
    border = said(lake, DAYS[1], "backfill")["until"]
    with pytest.raises(AlertsRaisedError, match="have drifted") as raised:
        check(DriftConfig(lake=str(lake), since=datetime.fromisoformat(border)))
    assert raised.value.is_critical
    [found] = [json.loads(path.read_text()) for path in lake.glob("runs/drift-*/drift.json")]
    assert found["drifted"] == said(lake, DAYS[2], "drift")["report"]["drifted"]
