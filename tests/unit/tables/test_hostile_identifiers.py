"""Identifiers are data: whatever is in them, a query finds the rows that have it, and does nothing else."""

from __future__ import annotations

from pathlib import Path

import lance
import pyarrow as pa
import pytest

from rmsai_ray.archives.hostile_hdf5 import FORMAT, MARKUP, SHELL, SQL, TRAVERSAL
from rmsai_ray.errors import ConfigError
from rmsai_ray.tables.filters import WindowFilter
from rmsai_ray.tables.lake import open_lake
from rmsai_ray.tables.queries import anomalies, find_event, find_window, verdicts
from rmsai_ray.tables.search import similar
from tests.lake_builder import MODEL_A, BuiltLake, build_lake

HOSTILE = (
    SQL, SHELL, MARKUP, FORMAT, TRAVERSAL, "x' OR '1'='1", "x\\' OR 1=1 --", "''", '"', "`", "%", "_",
    "é'\n;", "$patient",
    "x\\", "/* */", "x' UNION SELECT getenv('HOME') --",
)  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltLake:
    return build_lake(tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> lance.LanceDataset:
    """A table whose patients have such names."""
    table = pa.table({"patient_id": [*HOSTILE, "PT1"], "condition": [*HOSTILE, "PT1"]})
    return lance.write_dataset(table, str(tmp_path_factory.mktemp("lance") / "table.lance"))


@pytest.mark.parametrize("name", HOSTILE)
def test_lance_finds_exactly_the_name(planted: lance.LanceDataset, name: str) -> None:
    condition = WindowFilter(patient=name).lance()
    assert condition is not None
    assert planted.to_table(filter=condition)["patient_id"].to_pylist() == [name]
    others = WindowFilter(not_patient=name).lance()
    assert others is not None
    assert planted.to_table(filter=others).num_rows == len(HOSTILE)
    part = WindowFilter(condition=name).lance()
    assert part is not None
    found = planted.to_table(filter=part)["condition"].to_pylist()
    assert found == [each for each in HOSTILE if name.lower() in each.lower()]


@pytest.mark.parametrize("name", HOSTILE)
def test_questions_about_such_names_change_nothing(built: BuiltLake, name: str, tmp_path: Path) -> None:
    lake = open_lake(built.uri, MODEL_A)
    before = lake.rows("SELECT count(*) AS n FROM windows")
    for where in (WindowFilter(patient=name), WindowFilter(condition=name)):
        assert anomalies(lake, where).empty
        vector = lake.rows("SELECT window_id FROM windows ORDER BY window_id LIMIT 1")[0]["window_id"]
        assert similar(lake, vector, where=where).empty
    assert verdicts(lake, patient=name).empty
    assert verdicts(lake, condition=name, verdict=name).empty
    for find in (find_event, find_window):
        with pytest.raises(ConfigError, match="is not in this lake"):
            find(lake, name)
    assert lake.rows("SELECT count(*) AS n FROM windows") == before
    assert not Path("/tmp/owned").exists()
