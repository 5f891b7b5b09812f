"""Analysts' tools on a lake that a real backfill made: the notebook, and what ``rmsai`` does with signals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import lancedb
import nbclient
import nbformat
import numpy as np
import pytest

from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.cli import main
from rmsai_ray.tables.lake import open_lake

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NUM_EVENTS = 3


@dataclass(frozen=True, kw_only=True)
class Backfilled:
    lake: str
    archive: Path
    """One of the archives in it."""


@pytest.fixture(scope="module")
def backfilled(tmp_path_factory: pytest.TempPathFactory) -> Backfilled:
    """Two simulated patients in a lake."""
    folder = tmp_path_factory.mktemp("backfilled")
    (folder / "archives").mkdir()
    for patient in range(2):
        name, content = simulate_archive(patient, NUM_EVENTS, seed=7)
        (folder / "archives" / name).write_bytes(content)
    subprocess.run(
        [sys.executable, "jobs/backfill.py", "--archives", folder / "archives", "--lake", folder / "lake"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=280,
        check=True,
    )
    return Backfilled(lake=str(folder / "lake"), archive=folder / "archives" / name)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs_from_top_to_bottom(
    path: Path, backfilled: Backfilled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMSAI_LAKE", backfilled.lake)
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": path.parent}}).execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert pictures


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_committed_without_outputs(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_both_stores_hold_the_same_windows(backfilled: Backfilled) -> None:
    lake = open_lake(backfilled.lake)
    in_parquet = lake.frame("SELECT window_id FROM windows")["window_id"]
    table = "windows_" + lake.model_id.replace("-", "_")
    in_lance = lancedb.connect(f"{backfilled.lake}/lance").open_table(table).to_arrow()["window_id"]
    assert len(in_parquet) == len(in_lance) == 2 * NUM_EVENTS * 7
    assert set(in_parquet) == set(in_lance.to_pylist())


def test_stored_errors_are_those_of_the_archives(
    backfilled: Backfilled, capsys: pytest.CaptureFixture[str]
) -> None:
    windows = open_lake(backfilled.lake).frame("FROM windows ORDER BY hash(window_id) LIMIT 3")
    for window_id in windows["window_id"]:
        found = rmsai(capsys, "reconstruct", window_id, "--verify", "--lake", backfilled.lake)
        assert found["agrees"]
        assert found["recomputed_error"] == pytest.approx(found["stored_error"], rel=1e-4)
        samples = {name: np.asarray(values) for name, values in found["samples"].items()}
        error_mv2 = np.mean((samples["signal"] - samples["reconstruction"]) ** 2)
        assert error_mv2 == pytest.approx(found["mse_raw"], rel=1e-3)


def test_reconstruction_is_drawn_and_listed(backfilled: Backfilled, tmp_path: Path) -> None:
    window = open_lake(backfilled.lake).rows("SELECT window_id FROM windows LIMIT 1")[0]["window_id"]
    picture, rows = tmp_path / "window.png", tmp_path / "window.csv"
    options = ["--plot", str(picture), "--csv", str(rows), "--lake", backfilled.lake]
    assert main(["reconstruct", window, *options]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert rows.read_text().splitlines()[0] == "time_s,reconstruction"
    assert main(["reconstruct", window, "--plot", str(tmp_path / "x.doc"), "--lake", backfilled.lake]) == 2


def test_a_signal_from_a_file_finds_its_own_window(
    backfilled: Backfilled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(backfilled.archive) as archive:
        np.savetxt(tmp_path / "signal.csv", archive["event_1002/ecg/aVF"][:])
    options = ["--signal", str(tmp_path / "signal.csv"), "--signal-hz", "200", "--signal-lead", "aVF"]
    found = rmsai(capsys, "search", *options, "--k", "3", "--lake", backfilled.lake)["similar"]
    assert found[0]["window_id"].startswith(f"{backfilled.archive.stem}/event_1002/aVF/0@")
    assert found[0]["similarity"] == pytest.approx(1.0, abs=1e-5)
    assert found[1]["similarity"] < found[0]["similarity"]


def rmsai(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found
