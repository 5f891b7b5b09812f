"""The jobs that make archives: their demos run end to end, and a second run finds nothing to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wfdb

from rmsai_ray.archives.reader import read_archive
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.archives.sources import open_source
from rmsai_ray.archives.validate import validate

ROOT = Path(__file__).parents[2]


def job(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "jobs" / f"{name}.py", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=180,
    )


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_simulate_demo_twice(tmp_path: Path) -> None:
    first = job("simulate", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "demo" / "simulated"
    archives = sorted(folder.glob("*.h5"))
    assert len(archives) == 10
    for patient, path in enumerate(archives):
        name, content = simulate_archive(patient, 10, seed=0)
        assert (path.name, path.read_bytes() == content) == (name, True), (
            "made by a worker as by this process"
        )
    (record,) = (json.loads(path.read_text()) for path in folder.glob("runs/*/run.json"))
    assert record["status"] == "done"
    assert record["counts"]["written"] == 10

    before = snapshot(folder)
    second = job("simulate", cwd=tmp_path)
    assert second.returncode == 0
    assert "Nothing to do: 10 archives" in second.stdout
    assert snapshot(folder) == before


def test_simulate_goes_on_after_a_stop_and_refuses_other_options(tmp_path: Path) -> None:
    options = ("--events", "30", "--seed", "5", "--output", "out")
    assert job("simulate", *options, cwd=tmp_path).returncode == 0
    lost = tmp_path / "out" / "PT0001_2026-10.h5"
    content = lost.read_bytes()
    lost.unlink()
    again = job("simulate", *options, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "1 archives" in again.stdout
    assert lost.read_bytes() == content

    other = job("simulate", "--events", "30", "--seed", "6", "--output", "out", cwd=tmp_path)
    assert other.returncode == 2
    assert "Choose another output" in other.stderr
    bad = job(
        "simulate",
        "--events",
        "5",
        "--output",
        "out2",
        "--proportions",
        "1",
        "1",
        "1",
        "1",
        "-1",
        cwd=tmp_path,
    )
    assert bad.returncode == 2
    assert "proportions" in bad.stderr


def test_import_demo_twice(tmp_path: Path) -> None:
    first = job("import_wfdb", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    (path,) = (tmp_path / "demo" / "imported").glob("*.h5")
    assert len(read_archive(path.read_bytes(), path.name).events) == 25
    before = snapshot(tmp_path / "demo")
    second = job("import_wfdb", cwd=tmp_path)
    assert "Nothing to do: 1 archives" in second.stdout
    assert snapshot(tmp_path / "demo") == before


def test_import_reports_what_it_cannot_read(tmp_path: Path) -> None:
    toy = tmp_path / "db"
    toy.mkdir()
    wave = np.sin(np.arange(5000) / 50)[:, None]
    wfdb.wrsamp("good", 250, ["mV"], ["II"], wave, fmt=["16"], write_dir=str(toy))
    (toy / "bad.hea").write_text("nonsense")
    strict = job("import_wfdb", "--source", "db", "--output", "out", cwd=tmp_path)
    assert strict.returncode == 3
    assert "rejected bad: unreadable_record" in strict.stdout
    (path,) = (tmp_path / "out").rglob("*.h5")
    assert validate(path.read_bytes(), path.name).status == "degraded"
    loose = job(
        "import_wfdb", "--source", "db", "--output", "out", "--max-reject-fraction", "0.5", cwd=tmp_path
    )
    assert loose.returncode == 0


def test_repack_demo_twice(tmp_path: Path) -> None:
    first = job("repack", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "1 packs" in first.stdout
    loose, packed = tmp_path / "demo" / "loose", tmp_path / "demo" / "packed"
    found = {ref.key.partition("#")[2]: ref for ref in open_source(str(packed)).list_archives()}
    assert found.keys() == {path.name for path in loose.glob("*.h5")}
    before = snapshot(packed)
    second = job("repack", cwd=tmp_path)
    assert second.returncode == 0
    assert "Nothing to do: 1 packs" in second.stdout
    assert snapshot(packed) == before


@pytest.mark.parametrize("name", ["simulate", "import_wfdb", "repack"])
def test_help_names_every_option(name: str, tmp_path: Path) -> None:
    shown = job(name, "--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert "--output" in shown.stdout
