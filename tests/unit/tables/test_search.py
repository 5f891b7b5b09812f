"""Compared with a brute-force search in numpy over what the builder wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rmsai_ray.errors import ConfigError
from rmsai_ray.tables.filters import WindowFilter
from rmsai_ray.tables.lake import Lake, open_lake
from rmsai_ray.tables.search import similar
from rmsai_ray.tables.vector_index import ensure_index
from rmsai_ray.tables.vectors import VectorTable
from tests.lake_builder import MODEL_A, MODEL_B, PLANTED, BuiltLake, build_lake


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltLake:
    return build_lake(tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="module")
def lake(built: BuiltLake) -> Lake:
    return open_lake(built.uri, MODEL_A)


@pytest.fixture
def planted(built: BuiltLake) -> tuple[str, str]:
    ids = built.windows[MODEL_A]["window_id"]
    first, second = ([i for i in ids if i.startswith(f"{prefix}@")] for prefix in PLANTED)
    return first[0], second[0]


def brute_force(built: BuiltLake, query: str, k: int) -> tuple[list[str], list[float]]:
    rows = built.windows[MODEL_A]
    vectors = np.stack(rows["embedding"].to_list()).astype(float)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = unit @ unit[rows["window_id"] == query][0]
    order = [i for i in np.argsort(-similarity) if rows["window_id"].iloc[i] != query][:k]
    return [rows["window_id"].iloc[i] for i in order], [similarity[i] for i in order]


def test_planted_duplicate_is_first_and_the_query_is_left_out(lake: Lake, planted: tuple[str, str]) -> None:
    for query, twin in (planted, planted[::-1]):
        found = similar(lake, query, k=5)
        assert found["window_id"].iloc[0] == twin
        assert query not in set(found["window_id"])
        assert found["similarity"].iloc[0] > 0.99999
        assert list(found["rank"]) == [1, 2, 3, 4, 5]


def test_equals_brute_force(built: BuiltLake, lake: Lake) -> None:
    for query in built.windows[MODEL_A]["window_id"][::11]:
        ids, similarities = brute_force(built, query, 10)
        found = similar(lake, query, k=10)
        assert list(found["window_id"]) == ids
        np.testing.assert_allclose(found["similarity"], similarities, atol=1e-5)


def test_filter_comes_before_the_search(built: BuiltLake, lake: Lake, planted: tuple[str, str]) -> None:
    ids, _ = brute_force(built, planted[0], 47)
    expected = [i for i in ids if i.startswith("PT2000") and "/ECG1/" in i]
    found = similar(lake, planted[0], k=10, where=WindowFilter(patient="PT2000", lead="ECG1"))
    assert list(found["window_id"]) == expected
    assert len(expected) == 4


def test_least_similarity(lake: Lake, planted: tuple[str, str]) -> None:
    assert list(similar(lake, planted[0], min_similarity=0.9999)["window_id"]) == [planted[1]]


def test_embedding_of_another_model_is_refused(lake: Lake) -> None:
    with pytest.raises(ConfigError, match="own model"):
        similar(lake, np.ones(8, np.float32))


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_embedding_without_direction_is_refused(value: float, lake: Lake) -> None:
    with pytest.raises(ConfigError, match="no direction"):
        similar(lake, np.full(4, value, np.float32))


def test_models_are_never_searched_together(built: BuiltLake) -> None:
    other = open_lake(built.uri, MODEL_B)
    found = similar(other, built.windows[MODEL_B]["window_id"].iloc[0], k=100)
    assert len(found) == 47
    assert set(found["model_id"]) == {MODEL_B}


def test_unknown_window_is_bad_input(lake: Lake) -> None:
    with pytest.raises(ConfigError, match="not in this lake"):
        similar(lake, "PT1000_2025-08/event_1001/ECG2/1")


def test_with_an_index_the_answer_stays(tmp_path: Path) -> None:
    built = build_lake(tmp_path, (MODEL_A,))
    table = VectorTable(built.uri, MODEL_A, 4)
    assert ensure_index(table, target_recall=0.9, min_rows=1).built
    lake = open_lake(built.uri)
    query = built.windows[MODEL_A]["window_id"].iloc[5]
    ids, _ = brute_force(built, query, 10)
    assert list(similar(lake, query, k=10, exact=True)["window_id"]) == ids
    found = list(similar(lake, query, k=10)["window_id"])
    assert query not in found
    assert len(set(found) & set(ids)) >= 8
