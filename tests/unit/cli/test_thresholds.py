"""``rmsai thresholds``: the history of a profile from a terminal."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rmsai_ray.cli import main
from rmsai_ray.detection.profiles import NamedProfiles, versioned
from rmsai_ray.detection.thresholds import ThresholdProfile
from rmsai_ray.storage import Store
from rmsai_ray.tables.audit import SCHEMA, write_audit

SCORER = "tiny-8x4-aaaaaaaaaaaa+0a1b2c3d"
FIRST = versioned(ThresholdProfile("adaptive", "", "ensemble", {"*": 1.0}, {"AF": {"*": 2.0}}), "start")
SECOND = versioned(replace(FIRST, base={"*": 1.0, "ECG1": 0.8}), "20251001")


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RMSAI_LAKE", str(tmp_path / "lake"))
    profiles = NamedProfiles(str(tmp_path / "lake"), SCORER)
    profiles.save(FIRST, "start")
    profiles.save(SECOND, "adapt")
    return tmp_path


def rmsai(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["thresholds", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, error = rmsai(capsys, *arguments, "--json")
    assert (code, error) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def test_list_show_and_roll_back(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "show", "adaptive")["base"] == {"*": 1.0, "ECG1": 0.8}
    assert answer(capsys, "show", "adaptive@1")["version"] == FIRST.version
    assert answer(capsys, "rollback", "adaptive")["version"] == FIRST.version
    assert answer(capsys, "rollback", "adaptive", "--to", "2")["version"] == SECOND.version
    listed = answer(capsys, "list")["profiles"]
    assert [(row["profile"], row["action"]) for row in listed] == [
        ("adaptive@1", "start"),
        ("adaptive@2", "adapt"),
        ("adaptive@3", "rollback"),
        ("adaptive@4", "rollback"),
    ]


def test_exported_changed_and_imported(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = lake / "mine.json"
    answer(capsys, "export", "adaptive", str(file))
    values = json.loads(file.read_text())
    assert values["made_for"] == SCORER
    values["base"]["vVX"] = 3.0
    file.write_text(json.dumps(values))
    code, _, error = rmsai(capsys, "import", str(file))
    assert code == 2
    assert "Remove its version" in error
    del values["version"]
    file.write_text(json.dumps(values))
    assert answer(capsys, "import", str(file))["base"]["vVX"] == 3.0
    assert answer(capsys, "show", "adaptive")["version"].startswith("file-")
    assert rmsai(capsys, "import", str(file), "--scorer", "another")[0] == 2


def test_the_audit_is_a_table(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    time = datetime(2025, 10, 1, tzinfo=UTC)
    row = {
        "time": time, "run_id": "r", "scorer": SCORER, "detector": "ensemble", "profile": "adaptive",
        "lead": "ECG1", "condition": "base", "samples": "reported", "num_samples": 40, "num_normal": 40,
        "num_abnormal": 0, "methods": {"percentile": 0.8, "gmm": 0.7}, "target": 0.75, "confidence": 0.9,
        "old_threshold": 1.0, "new_threshold": 0.8, "applied": True, "reason": "applied",
        "old_version": FIRST.version, "new_version": SECOND.version,
    }  # fmt: skip
    assert set(row) == set(SCHEMA.names)
    write_audit(Store(str(lake / "lake")), SCORER, "adaptive", time, [row])
    (found,) = answer(capsys, "audit")["audit"]
    assert (found["lead"], found["methods"]["youden"], found["time"]) == (
        "ECG1",
        None,
        "2025-10-01T00:00:00+00:00",
    )
    assert "applied" in rmsai(capsys, "audit")[1]


def test_profiles_of_several_scorers_need_a_choice(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    NamedProfiles(str(lake / "lake"), "other-000000000000").save(FIRST, "start")
    code, _, error = rmsai(capsys, "list")
    assert code == 2
    assert f"other-000000000000, {SCORER}" in error
    assert len(answer(capsys, "list", "--scorer", SCORER)["profiles"]) == 2


def test_a_lake_without_profiles_says_how_to_make_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = rmsai(capsys, "list", "--lake", str(tmp_path / "none"))
    assert code == 2
    assert "jobs/adapt_thresholds.py" in error
