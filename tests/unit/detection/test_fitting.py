"""Which windows of a lake detectors may learn from, recounted from what was written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rmsai_ray.detection.fitting import (
    NormalWindows,
    data_hash,
    divide_patients,
    facts_of,
    read_normal_windows,
)
from rmsai_ray.detection.rows import measured_of, rhythm_columns, scores_column
from rmsai_ray.errors import ConfigError
from rmsai_ray.tables import schemas
from rmsai_ray.tables.lake import open_lake
from tests.lake_builder import MODEL_A, BuiltLake, build_lake
from tests.measured_windows import odd_windows


@pytest.fixture
def lake(tmp_path: Path) -> BuiltLake:
    """Events of four conditions; patient PT1000 has two archives."""
    return build_lake(tmp_path, (MODEL_A,))


def read(lake: BuiltLake, **options: Any) -> dict[str, NormalWindows]:
    splits = {"train": ["PT1000"], "validation": ["PT3000"]}
    given = {"max_windows": 1000, "seed": 0, "splits": splits, "sampling_rate_hz": 200.0} | options
    return read_normal_windows(open_lake(lake.uri), **given)


def edit(lake: BuiltLake, table: str, **values: Any) -> None:
    """Writes values into all rows of a table's parts."""
    for part in Path(lake.uri, table).rglob("unit-?.parquet"):
        rows = pq.read_table(part, partitioning=None)
        for name, value in values.items():
            place = rows.schema.get_field_index(name)
            field = rows.schema.field(place)
            rows = rows.set_column(place, field, pa.array([value] * rows.num_rows, field.type))
        pq.write_table(rows, part)


def test_only_normal_windows_of_the_parts_are_read(lake: BuiltLake) -> None:
    expected = lake.windows[MODEL_A]
    expected = expected[expected["condition"] == "Normal"]
    parts = read(lake, splits={"train": ["PT1000"], "validation": ["PT2000", "PT3000"]})
    assert set(parts) == {"train", "validation"}
    for name, patients in (("train", ["PT1000"]), ("validation", ["PT2000", "PT3000"])):
        rows = expected[expected["patient_id"].isin(patients)].sort_values("window_id")
        assert len(rows) > 0
        assert parts[name].patients_N.tolist() == rows["patient_id"].tolist()
        measured = parts[name].measured
        np.testing.assert_array_equal(measured.embedding_NE, np.stack(rows["embedding"].tolist()))
        np.testing.assert_array_equal(measured.worst_mse_N, rows["worst_error"])
        np.testing.assert_array_equal(measured.rhythm.heart_rate_bpm_N, rows["ecg_rate"].astype(np.float32))
        assert measured.leads_N.tolist() == rows["lead"].tolist()
        assert parts[name].archive_ids == set(rows["archive_id"])
        assert sum(parts[name].windows_by_lead.values()) == len(rows)


def test_test_patients_are_not_touched(lake: BuiltLake) -> None:
    edit(lake, "windows", condition="Normal")
    edit(lake, "events", condition="Normal")
    parts = read(lake, splits={"train": ["PT1000"], "validation": ["PT2000"], "test": ["PT3000"]})
    assert {name: part.patients for name, part in parts.items()} == {
        "train": ["PT1000"],
        "validation": ["PT2000"],
    }


def test_flat_windows_and_those_with_gaps_teach_nothing(lake: BuiltLake) -> None:
    edit(lake, "windows", condition="Normal", quality_flags=["noise"])
    assert len(read(lake)["train"].measured) == 36  # with the patient that the model does not know
    for flag in ("flat", "nan"):
        edit(lake, "windows", condition="Normal", quality_flags=["noise", flag])
        with pytest.raises(ConfigError, match="no normal window"):
            read(lake)


def test_an_annotated_abnormal_beat_costs_its_window(lake: BuiltLake) -> None:
    extras = {"annotations": {"samples": [2, 30], "symbols": ["V", "N"], "rhythms": []}}
    edit(lake, "windows", condition="Normal")
    edit(lake, "events", condition="Normal", ecg_extras=json.dumps(extras))
    assert len(read(lake)["train"].measured) == 18  # those that start at 70
    assert len(read(lake, sampling_rate_hz=100.0)["train"].measured) == 18
    edit(lake, "events", problems=["odd_rate"])
    with pytest.raises(ConfigError, match="no normal window"):
        read(lake)


def test_a_large_part_is_a_random_sample(lake: BuiltLake) -> None:
    edit(lake, "windows", condition="Normal")
    edit(lake, "events", condition="Normal")
    samples = [read(lake, max_windows=10, seed=seed)["train"].measured.embedding_NE for seed in (0, 0, 1)]
    assert [len(sample) for sample in samples] == [10, 10, 10]
    np.testing.assert_array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])


def test_unknown_patients_are_divided_by_hash() -> None:
    patients = [f"P{number}" for number in range(20)]
    splits = {"train": ["P0"], "validation": ["P1"], "test": ["P2", "elsewhere"]}
    found = divide_patients(patients, splits, seed=0)
    assert list(found) == patients
    assert (found["P0"], found["P1"], found["P2"]) == ("train", "validation", "test")
    assert sum(found[name] == "validation" for name in patients[3:]) == 3
    assert found == divide_patients(patients, splits, seed=0)
    assert found != divide_patients(patients, splits, seed=1)
    assert set(divide_patients(["A", "B"], {}, 0).values()) == {"train", "validation"}
    assert divide_patients(["A"], {}, 0) == {"A": "train"}


def test_the_facts_say_what_was_learned_from(lake: BuiltLake) -> None:
    parts = read(lake)
    facts = facts_of(parts, run_id="fit-1")
    assert facts["patients"] == {"train": ["PT1000"], "validation": ["PT3000"]}
    assert facts["run_id"] == "fit-1"
    assert json.loads(json.dumps(facts)) == facts
    other = replace(parts["train"], archive_ids=frozenset({"another"}))
    assert data_hash({**parts, "train": other}) != facts["data_hash"]


def test_rows_of_the_table_are_what_was_measured_to_the_bit() -> None:
    windows = odd_windows()
    table = pa.table(
        {
            "embedding": pa.FixedSizeListArray.from_arrays(windows.embedding_NE.ravel(), 8),
            "reconstruction_error": windows.mse_N,
            "worst_error": windows.worst_mse_N,
            "mae": windows.mae_N,
            "lead": windows.leads_N.tolist(),
            **rhythm_columns(windows.rhythm),
        }
    )
    found = measured_of(table)
    assert table["ecg_rate"].null_count == 4
    for name in ("embedding_NE", "mse_N", "worst_mse_N", "mae_N", "leads_N"):
        np.testing.assert_array_equal(getattr(found, name), getattr(windows, name))
    for name, values in vars(windows.rhythm).items():
        np.testing.assert_array_equal(getattr(found.rhythm, name), values)


def test_scores_become_one_list_a_window() -> None:
    scores = {"knn": np.float32([1, 2]), "ensemble": np.float32([3, 4])}
    column = scores_column(scores, 2)
    assert column.type == pa.list_(schemas.SCORE)
    assert column.to_pylist() == [
        [{"detector": "knn", "score": 1}, {"detector": "ensemble", "score": 3}],
        [{"detector": "knn", "score": 2}, {"detector": "ensemble", "score": 4}],
    ]
