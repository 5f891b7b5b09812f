"""The command line on a small lake: exit codes, and the JSON that programs rely on."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmsai_ray.cli import main
from rmsai_ray.cli.output import jsonable
from rmsai_ray.cli.waveforms import read_samples
from rmsai_ray.errors import ConfigError
from tests.lake_builder import MODEL_A, MODEL_B, PLANTED, BuiltLake, build_lake

Rmsai = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltLake:
    return build_lake(tmp_path_factory.mktemp("lake"))


@pytest.fixture
def rmsai(built: BuiltLake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Rmsai:
    """Runs the command on MODEL_A of the lake; returns exit code, standard output and standard error."""
    monkeypatch.setenv("RMSAI_LAKE", built.uri)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main([*arguments, "--model", MODEL_A] if "--model" not in arguments else arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def answer(rmsai: Rmsai, *arguments: str) -> dict[str, Any]:
    code, out, _ = rmsai(*arguments, "--json")
    assert code == 0
    found: dict[str, Any] = json.loads(out)
    assert found["model_id"] == MODEL_A
    return found


def test_stats(rmsai: Rmsai, built: BuiltLake) -> None:
    found = answer(rmsai, "stats")
    assert found["total_chunks"] == 48
    assert found["models"] == [MODEL_A, MODEL_B]
    assert found["last_updated"] == "2025-10-01T12:03:00+00:00"
    assert found["total_anomalies"] == built.windows[MODEL_A]["is_anomaly"].sum()


def test_anomalies_filter(rmsai: Rmsai, built: BuiltLake) -> None:
    rows = built.windows[MODEL_A]
    rows = rows[(rows["lead"] == "vVX") & rows["is_anomaly"] & (rows["event_time"] >= "2025-09-01T00:00Z")]
    found = answer(rmsai, "anomalies", "--lead", "vVX", "--since", "2025-09-01", "--limit", "4")["anomalies"]
    expected = rows.sort_values("anomaly_score", ascending=False)["window_id"].head(4)
    assert [row["window_id"] for row in found] == list(expected)


def test_event(rmsai: Rmsai) -> None:
    found = answer(rmsai, "event", "PT2000/event_1001")
    assert found["event"]["patient_id"] == "PT2000"
    assert found["event"]["heart_rate"] is None
    assert len(found["windows"]) == 6
    for row in found["windows"]:
        assert [pair["detector"] for pair in row["scores"]] == ["worst_error", "ensemble"]
        assert row["scores"][-1]["score"] == row["anomaly_score"]


@pytest.mark.parametrize("command", [("event", "PT2000/event_1001"), ("anomalies",)])
def test_people_see_what_every_detector_says(rmsai: Rmsai, command: tuple[str, ...]) -> None:
    code, out, _ = rmsai(*command)
    assert code == 0
    plain = " ".join(out.replace("│", " ").split())
    assert re.search(r"worst_error \d\.\d+, ensemble \d", plain)
    assert "ecg_rate" in plain


def test_ambiguous_event_lists_the_candidates(rmsai: Rmsai) -> None:
    code, out, error = rmsai("event", "event_1001")
    assert (code, out) == (2, "")
    assert "PT2000_2025-09/event_1001@" in error


def test_verdicts(rmsai: Rmsai) -> None:
    found = answer(rmsai, "verdicts", "--patient", "PT3000")["verdicts"]
    assert [sum(row["windows_by_type"].values()) for row in found] == [6, 6]


def test_search(rmsai: Rmsai) -> None:
    found = answer(rmsai, "search", PLANTED[0], "--k", "2", "--not-patient", "PT1000")["similar"]
    assert found[0]["window_id"].startswith(PLANTED[1])
    assert [row["rank"] for row in found] == [1, 2]


@pytest.mark.parametrize(
    "arguments",
    [
        ("search",),
        ("search", PLANTED[0], "--signal", "x.npy"),
        ("search", "--signal", "x.npy"),
        ("search", "nothing"),
        ("search", PLANTED[0], "--lead", "II"),
        ("anomalies", "--limit", "0"),
        ("anomalies", "--since", "yesterday"),
        ("sql", "SELEC"),
        ("stats", "--lake", "/nowhere"),
        ("stats", "--model", "tiny"),
        ("nonsense",),
    ],
)
def test_bad_input_is_exit_code_2(rmsai: Rmsai, arguments: tuple[str, ...]) -> None:
    code, out, error = rmsai(*arguments)
    assert (code, out) == (2, "")
    assert error
    assert "Traceback" not in error


def test_lake_with_several_models_lists_them(built: BuiltLake, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", "--lake", built.uri]) == 2
    assert f"{MODEL_A}, {MODEL_B}" in capsys.readouterr().err


def test_storage(rmsai: Rmsai) -> None:
    whole = answer(rmsai, "storage")
    assert whole["vector_index"] == {
        "num_rows": 48, "num_unindexed": 48, "probes": None, "recall": 1.0, "measured_rows": None
    }  # fmt: skip
    found = whole["storage"]
    assert {(row["store"], row["table"]) for row in found} >= {("parquet", "windows"), ("parquet", "events")}
    assert all(row["num_bytes"] > 0 for row in found)


def test_sql_as_json_and_csv(rmsai: Rmsai, tmp_path: Path) -> None:
    query = "SELECT lead, count(*) AS n, NULL AS nothing FROM windows GROUP BY ALL ORDER BY ALL LIMIT 1"
    assert answer(rmsai, "sql", query)["rows"] == [{"lead": "ECG1", "n": 16, "nothing": None}]
    _, out, _ = rmsai("sql", query, "--csv", "-")
    assert list(csv.DictReader(io.StringIO(out))) == [{"lead": "ECG1", "n": "16", "nothing": ""}]
    file = tmp_path / "rows.csv"
    assert rmsai("sql", query, "--csv", str(file)) == (0, "", "")
    assert pd.read_csv(file)["n"].to_list() == [16]


@pytest.mark.parametrize(
    "arguments",
    [
        ("stats",),
        ("anomalies",),
        ("event", "PT2000/event_1001"),
        ("verdicts",),
        ("search", PLANTED[0]),
        ("storage",),
    ],
)
def test_terminal_shows_whole_identities(rmsai: Rmsai, built: BuiltLake, arguments: tuple[str, ...]) -> None:
    code, out, _ = rmsai(*arguments)
    assert code == 0
    assert "…" not in out
    if arguments[0] in ("anomalies", "search"):
        shown = [i for i in built.windows[MODEL_A]["window_id"] if i in out]
        assert len(shown) == out.count("@")


def test_terminal_does_not_take_values_for_markup(rmsai: Rmsai) -> None:
    _, out, _ = rmsai("sql", "SELECT '[bold]x[/bold]' AS \"[red]\"")
    assert "[bold]x[/bold]" in out
    assert "[red]" in out


def test_long_answers_end_with_a_hint_on_a_terminal(rmsai: Rmsai) -> None:
    _, out, _ = rmsai("sql", "SELECT range AS i FROM range(300)")
    assert "100 more rows" in out


def test_reader_that_has_enough_is_no_error(built: BuiltLake) -> None:
    program = (
        f"{sys.executable} -m rmsai_ray.cli sql 'FROM range(100000)' --model {MODEL_A} --csv - | head -1"
    )
    done = subprocess.run(
        ["bash", "-c", f"{program}; echo ${{PIPESTATUS[0]}}"],
        env={"RMSAI_LAKE": built.uri, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("range\n0\n", "")


def test_values_without_json_form_are_an_error() -> None:
    assert jsonable({"a": float("nan"), "b": np.float32(0.5), "c": pd.NaT, "d": np.arange(2)}) == {
        "a": None,
        "b": 0.5,
        "c": None,
        "d": [0, 1],
    }
    with pytest.raises(TypeError, match="JSON"):
        jsonable(object())


def test_signal_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[0.5], [1.5]]))
    (tmp_path / "b.csv").write_text("ECG2\n0.5\nnan\n")
    (tmp_path / "c.txt").write_text("0.5\n1.5\n")
    assert read_samples(tmp_path / "a.npy").tolist() == [0.5, 1.5]
    assert np.isnan(read_samples(tmp_path / "b.csv")).tolist() == [False, True]
    assert read_samples(tmp_path / "c.txt").tolist() == [0.5, 1.5]


@pytest.mark.parametrize("text", ["a,b\n1,2\n3,4\n", "0.5\nx\n", ""])
def test_files_that_hold_no_signal(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ConfigError, match="signal"):
        read_samples(tmp_path / "a.csv")


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(ConfigError, match="signal"):
        read_samples(tmp_path / "a.npy")
