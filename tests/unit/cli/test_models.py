"""``rmsai models``: exit codes, and the JSON that programs rely on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rmsai_ray.cli import main
from rmsai_ray.models.checkpoint import load_model, save_checkpoint
from tests.local_backfill import tiny_bundle


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two checkpoints, a and b, beside an empty registry."""
    monkeypatch.setenv("RMSAI_REGISTRY", str(tmp_path / "registry"))
    for name in ("a", "b"):
        bundle = replace(
            tiny_bundle(), trained=True, metrics={"held_out": {"auroc": 0.9}}, facts={"of": name}
        )
        save_checkpoint(bundle, tmp_path / name)
    return tmp_path


def rmsai(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["models", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, error = rmsai(capsys, *arguments, "--json")
    assert (code, error) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def test_from_registration_to_roll_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = answer(capsys, "register", "ecg", str(folder / "a"), "--alias", "champion", "--run-id", "r-1")
    assert (made["version"], made["aliases"], made["lineage"]["run_id"]) == (1, ["champion"], "r-1")
    answer(capsys, "register", "ecg", str(folder / "b"), "--alias", "challenger")
    assert answer(capsys, "promote", "ecg@challenger")["aliases"] == ["challenger", "champion"]
    assert answer(capsys, "show", "ecg")["version"] == 2
    assert answer(capsys, "rollback", "ecg")["version"] == 1
    shown = answer(capsys, "show", "ecg@champion")
    assert (shown["version"], shown["metrics"], shown["history"]["champion"]) == (
        1,
        {"held_out": {"auroc": 0.9}},
        [1],
    )
    assert [change["action"] for change in shown["changes"]][-2:] == ["promote", "rollback"]
    listed = answer(capsys, "list")["versions"]
    assert [(row["version"], row["aliases"]) for row in listed] == [(1, ["champion"]), (2, ["challenger"])]


@pytest.mark.parametrize("verb", [("list",), ("show", "ecg@1")])
def test_tables_for_people_and_rows_for_programs(
    folder: Path, capsys: pytest.CaptureFixture[str], verb: tuple[str, ...]
) -> None:
    rmsai(capsys, "register", "ecg", str(folder / "a"))
    code, out, _ = rmsai(capsys, *verb)
    assert code == 0
    assert "ecg" in out
    assert "…" not in out
    _, rows, _ = rmsai(capsys, *verb, "--csv", "-")
    assert len(rows.splitlines()) == (2 if verb == ("list",) else 3)


def test_an_empty_registry_is_no_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "list") == {"versions": []}


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("show", "ecg"), 2, "nothing yet"),
        (("promote", "ecg@1"), 2, "nothing yet"),
        (("rollback", "ecg"), 2, "nothing yet"),
        (("register", "ecg", "nowhere"), 1, "found nothing there"),
        (("register", "Not A Name", "a"), 2, "name="),
    ],
)
def test_what_cannot_be_done_is_one_line(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    complaint: str,
) -> None:
    found, out, error = rmsai(capsys, *arguments)
    assert (found, out) == (code, "")
    assert complaint in error
    assert len(error.splitlines()) == 1


def test_a_quantised_model_is_another_and_smaller(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "quantise", "framed-2400x64", str(folder / "small"))
    assert found["model_id"] != found["made_from"] == load_model("framed-2400x64").model_id
    assert load_model(folder / "small").model_id == found["model_id"]
    assert found["bytes"] < found["bytes_before"] / 3
