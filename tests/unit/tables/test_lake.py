from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rmsai_ray.errors import ConfigError, LakeError
from rmsai_ray.tables.lake import list_models, open_lake
from rmsai_ray.tables.usage import storage
from tests.lake_builder import MODEL_A, MODEL_B, build_lake


def test_only_model_is_the_default(tmp_path: Path) -> None:
    build_lake(tmp_path, (MODEL_A,))
    assert open_lake(str(tmp_path)).model_id == MODEL_A


def test_several_models_must_be_chosen_between(tmp_path: Path) -> None:
    build_lake(tmp_path)
    assert list_models(str(tmp_path)) == [MODEL_A, MODEL_B]
    with pytest.raises(ConfigError, match=f"{MODEL_A}, {MODEL_B}"):
        open_lake(str(tmp_path))
    with pytest.raises(ConfigError, match="not in this lake"):
        open_lake(str(tmp_path), "tiny")


def test_no_lake_is_bad_input_and_nothing_is_created(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="backfill"):
        open_lake(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_unpublished_model_has_no_vectors(tmp_path: Path) -> None:
    build_lake(tmp_path, (MODEL_A,))
    (tmp_path / "lance").rename(tmp_path / "elsewhere")
    with pytest.raises(LakeError, match="backfill"):
        open_lake(str(tmp_path)).vectors()
    assert list(storage(open_lake(str(tmp_path)))["store"].unique()) == ["parquet"]


def test_foreign_schema_is_refused(tmp_path: Path) -> None:
    build_lake(tmp_path, (MODEL_A,))
    for part in tmp_path.glob("windows/**/*.parquet"):
        table = pq.read_table(part, partitioning=None)
        pq.write_table(table.replace_schema_metadata({"rmsai_schema": "windows/0"}), part)
    with pytest.raises(LakeError, match=r"windows/0.*windows/2"):
        open_lake(str(tmp_path))


def test_objects_still_being_written_are_not_read(tmp_path: Path) -> None:
    build_lake(tmp_path, (MODEL_A,))
    (tmp_path / f"windows/model={MODEL_A}/period=2025-08/unit-5.parquet#1").write_bytes(b"half")
    assert open_lake(str(tmp_path)).rows("SELECT count(*) AS n FROM windows") == [{"n": 48}]


def test_times_are_utc(tmp_path: Path) -> None:
    build_lake(tmp_path, (MODEL_A,))
    table = open_lake(str(tmp_path)).table("SELECT event_time FROM events")
    assert table.schema.field("event_time").type == pa.timestamp("us", tz="UTC")


def test_storage_adds_up_to_the_files(tmp_path: Path) -> None:
    build_lake(tmp_path)
    found = storage(open_lake(str(tmp_path), MODEL_A)).set_index(["store", "table"])
    sizes = [file.stat().st_size for file in tmp_path.glob(f"windows/model={MODEL_A}/**/*.parquet")]
    windows = found.loc[("parquet", "windows")]
    assert (windows["num_files"], windows["num_bytes"], windows["num_rows"]) == (5, sum(sizes), 60)
    assert windows["bytes_per_row"] == pytest.approx(sum(sizes) / 60)
    assert 0 < windows["embedding_bytes_per_row"] < windows["bytes_per_row"]
    assert windows["embedding_bytes_per_row"] + windows["metadata_bytes_per_row"] == windows["bytes_per_row"]

    table = "windows_" + MODEL_A.replace("-", "_")
    lance = found.loc[("lancedb", table)]
    lance_sizes = [f.stat().st_size for f in (tmp_path / f"lance/{table}.lance").rglob("*") if f.is_file()]
    assert (lance["num_bytes"], lance["num_rows"]) == (sum(lance_sizes), 48)
    assert lance["embedding_bytes_per_row"] == 16
