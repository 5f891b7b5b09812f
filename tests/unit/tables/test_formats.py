from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rmsai_ray.tables.formats import embedding_formats, nearest, shared
from rmsai_ray.tables.lake import Lake as View
from tests.small_tables import EMBEDDING_DIM, MODEL
from tests.unit.tables.test_units import Lake, archive, tables


def filled(folder: Path, x_NE: np.ndarray) -> View:
    """A lake with these embeddings in one unit."""
    lake = Lake(folder)
    unit = tables("u1", "backfill-1", archive("a", "x"))
    rows = pa.concat_tables([unit.windows.slice(0, 1)] * len(x_NE))
    column = pa.FixedSizeListArray.from_arrays(pa.array(x_NE.ravel()), EMBEDDING_DIM)
    place = rows.schema.get_field_index("embedding")
    lake.write_tables(replace(unit, windows=rows.set_column(place, rows.schema.field(place), column)))
    lake.settle()
    return View(lake.store.uri, MODEL)


def test_fewer_bits_are_fewer_bytes_and_find_less(tmp_path: Path) -> None:
    angle_N = np.random.default_rng(0).uniform(0, 2 * np.pi, 3000).astype(np.float32)
    x_NE = np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1)
    found = embedding_formats(filled(tmp_path, x_NE)).set_index("format")
    assert list(found.index) == ["float32", "float16", "int8"]
    assert found["value_bytes_per_row"].to_list() == [8, 4, 2]
    assert found["recall_at_10"].is_monotonic_decreasing
    assert found["recall_at_10"]["float32"] == 1
    assert found["recall_at_10"]["int8"] < 0.9
    assert found["parquet_bytes_per_row"].is_monotonic_decreasing


def test_a_lake_with_hardly_a_window_tells_nothing(tmp_path: Path) -> None:
    assert embedding_formats(filled(tmp_path, np.ones((3, 2), np.float32))).empty


def test_the_nearest_are_those_of_the_same_direction() -> None:
    angle_N = np.linspace(0, 1, 40, dtype=np.float32)
    found_QK = nearest(np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1) * 7)
    assert sorted(found_QK[0]) == list(range(1, 11))
    assert set(found_QK[20]) == {*range(15, 20), *range(21, 26)}
    assert shared(found_QK, found_QK) == pytest.approx(1)
    assert shared(found_QK, found_QK + 100) == 0
