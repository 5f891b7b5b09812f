"""Hostile files among good ones: the run completes, and the good ones' rows are what they would be alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa

from benchmarks.lake_check import read_tables
from rmsai_ray.archives import packs
from rmsai_ray.archives.hostile import hostile_files
from rmsai_ray.archives.hostile_packs import PACKS
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.tables.lake import open_lake
from tests.cluster.corpus import only_model, run

SECRET = "PLANTED-OUTSIDE"
SECRET_SAMPLE = 77.25
OF_THE_RUN = ("run_id", "unit_id", "committed_time", "uri", "modified_time", "etag")


def test_hostile_files_cost_nobody_else_anything(uninterrupted: BackfillConfig, tmp_path: Path) -> None:
    files = hostile_files(str(plant(tmp_path / "outside.h5")))
    archives, lake = tmp_path / "archives", str(tmp_path / "lake")
    shutil.copytree(uninterrupted.archives, archives)
    for file in files.values():
        (archives / file.file_name).write_bytes(file.content)

    run(uninterrupted, archives=str(archives), lake=lake, unit_bytes=3_000_000)

    tables = read_tables(lake, only_model(lake))
    expected = read_tables(uninterrupted.lake, only_model(uninterrupted.lake))
    good = set(expected.archives["archive_id"].to_pylist())
    for name in ("archives", "events", "windows"):
        alone, among = getattr(expected, name), getattr(tables, name)
        among = among.filter(pa.array([each in good for each in among["archive_id"].to_pylist()]))
        assert rows_of(among) == rows_of(alone), name

    rows = {row["uri"].rpartition("/archives/")[2]: row for row in tables.archives.to_pylist()}
    for kind, file in files.items():
        found = [row for name, row in rows.items() if packs.object_uri(name) == file.file_name]
        assert found, kind
        for row in found:
            if kind in PACKS and file.reason:  # then it is listed as one archive, which it is not
                assert row["status"] == "quarantined", kind
            elif file.reason:
                assert row["status"] == "quarantined", kind
                assert row["error"].startswith(f"{file.reason}: "), kind
            else:
                assert row["status"] in ("committed", "skipped", "quarantined"), kind
                assert row["error"] is None or row["error"].startswith("no_leads: "), kind

    texts = [open_lake(lake).frame(f"FROM {name}").to_csv() for name in ("events", "archives", "rejects")]
    assert SECRET not in "".join(texts)
    signals = open_lake(lake).rows("SELECT norm_offset FROM windows WHERE abs(norm_offset - 77.25) < 0.01")
    assert signals == []


def plant(path: Path) -> Path:
    """An HDF5 file outside, which hostile files lead to."""
    with h5py.File(path, "w") as file:
        file["event_1001/ecg/ECG1"] = np.full(2400, SECRET_SAMPLE)
        file["metadata/patient_id"] = SECRET
    return path


def rows_of(table: pa.Table) -> list[str]:
    """Every row as text, but for what tells one run from another."""
    kept = table.select([name for name in table.column_names if name not in OF_THE_RUN])
    return sorted(map(repr, kept.to_pylist()))
