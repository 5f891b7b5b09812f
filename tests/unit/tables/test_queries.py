"""Every number is counted again with pandas from what the builder wrote."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from rmsai_ray.errors import ConfigError
from rmsai_ray.tables.filters import WindowFilter
from rmsai_ray.tables.lake import Lake, open_lake
from rmsai_ray.tables.queries import anomalies, event, find_window, sql, stats, verdicts
from tests.lake_builder import COMMITTED, MODEL_A, MODEL_B, BuiltLake, archive_id, build_lake


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltLake:
    return build_lake(tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="module")
def lake(built: BuiltLake) -> Lake:
    return open_lake(built.uri, MODEL_A)


def test_stats_equal_a_recount(built: BuiltLake) -> None:
    for model in (MODEL_A, MODEL_B):
        found, rows = stats(open_lake(built.uri, model)), built.windows[model]
        anomalous = rows["anomaly_status"] == "anomaly"
        assert 0 < anomalous.sum() < len(rows)
        assert found.total_chunks == len(rows) == 48
        assert found.total_anomalies == anomalous.sum()
        assert found.anomaly_rate == pytest.approx(100 * anomalous.mean())
        assert found.anomaly_counts == rows["anomaly_status"].value_counts().to_dict()
        assert found.anomaly_types == rows["anomaly_type"].value_counts().to_dict()
        assert found.avg_error_score == pytest.approx(rows["reconstruction_error"].astype(float).mean())
        assert found.chunks_per_lead == rows["lead"].value_counts().to_dict()
        assert found.conditions_detected == tuple(sorted(rows["condition"].unique()))


def test_stats_by_lead_and_condition_equal_a_recount(built: BuiltLake, lake: Lake) -> None:
    found, rows = stats(lake), built.windows[MODEL_A]
    for name, statistics in (("lead", found.lead_statistics), ("condition", found.condition_statistics)):
        expected = rows.groupby(name).agg(
            num_chunks=("window_id", "size"),
            num_anomalies=("is_anomaly", "sum"),
            avg_error_score=("reconstruction_error", lambda errors: errors.astype(float).mean()),
        )
        expected["anomaly_rate"] = 100 * expected["num_anomalies"] / expected["num_chunks"]
        frame = pd.DataFrame(statistics).set_index(name)[expected.columns].sort_index()
        pd.testing.assert_frame_equal(frame, expected, check_dtype=False)
    assert [row["lead"] for row in found.lead_statistics] == ["ECG1", "ECG2", "vVX"]


def test_stats_count_files_by_what_became_of_them(lake: Lake) -> None:
    found = stats(lake)
    assert found.files_by_status == {"committed": 4, "quarantined": 1, "skipped": 1}
    assert found.files_processed == 4
    assert found.rejects_by_reason == {"missing_lead": 2, "not_hdf5": 1}
    assert (found.total_events, found.total_patients) == (8, 3)
    assert found.last_updated == COMMITTED.replace(minute=3)
    assert found.models == (MODEL_A, MODEL_B)


def test_anomalies_come_by_score_and_end_at_the_limit(built: BuiltLake, lake: Lake) -> None:
    rows = built.windows[MODEL_A]
    expected = rows[rows["is_anomaly"]].sort_values("anomaly_score", ascending=False)
    found = anomalies(lake)
    assert list(found["anomaly_score"]) == list(expected["anomaly_score"])
    assert set(found["window_id"]) == set(expected["window_id"])
    assert "embedding" not in found
    assert list(anomalies(lake, limit=3)["window_id"]) == list(found["window_id"])[:3]


FILTERS = {
    "patient": (WindowFilter(patient="PT1000"), lambda w: w["patient_id"] == "PT1000"),
    "not_patient": (WindowFilter(not_patient="PT1000"), lambda w: w["patient_id"] != "PT1000"),
    "lead": (WindowFilter(lead="vVX"), lambda w: w["lead"] == "vVX"),
    "condition": (WindowFilter(condition="fibril"), lambda w: w["condition"].str.contains("Fibril")),
    "score": (WindowFilter(min_score=1.8, max_score=2.5), lambda w: w["anomaly_score"].between(1.8, 2.5)),
    "error": (WindowFilter(min_error=0.2), lambda w: w["reconstruction_error"] >= 0.2),
    "max_error": (WindowFilter(max_error=0.2), lambda w: w["reconstruction_error"] <= 0.2),
    "time": (
        WindowFilter(
            since=datetime(2025, 9, 10, 8, 2, tzinfo=UTC), until=datetime(2025, 9, 10, 9, 2, tzinfo=UTC)
        ),
        lambda w: (w["event_time"] >= "2025-09-10T08:02Z") & (w["event_time"] < "2025-09-10T09:02Z"),
    ),
    "quote": (WindowFilter(condition="' OR '1'='1"), lambda w: w["lead"] == "none"),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_let_the_same_windows_through_in_both_stores(name: str, built: BuiltLake, lake: Lake) -> None:
    where, expected_of = FILTERS[name]
    rows = built.windows[MODEL_A]
    expected = set(rows[expected_of(rows)]["window_id"])
    assert len(expected) < len(rows)
    assert bool(expected) == (name != "quote")

    condition, parameters = where.sql()
    by_sql = set(lake.frame(f"SELECT window_id FROM windows WHERE {condition}", parameters)["window_id"])
    by_lance = lake.vectors().search().where(where.lance()).limit(1000).to_arrow()["window_id"].to_pylist()
    assert by_sql == set(by_lance) == expected
    assert set(anomalies(lake, where)["window_id"]) == set(
        rows[expected_of(rows) & rows["is_anomaly"]]["window_id"]
    )


def test_unknown_lead_is_refused() -> None:
    with pytest.raises(ConfigError, match="ECG1, ECG2"):
        WindowFilter(lead="II")


def test_event_id_of_several_archives_lists_them_and_merges_nothing(lake: Lake) -> None:
    with pytest.raises(ConfigError, match="names 4 events") as caught:
        event(lake, "event_1001")
    for name in ("PT1000_2025-08/event_1001@", "PT1000_2025-09/event_1001@", "PT3000_2025-09/event_1001@"):
        assert name in str(caught.value)
    with pytest.raises(ConfigError, match="names 2 events"):
        event(lake, "PT1000/event_1001")


@pytest.mark.parametrize(
    "reference",
    [
        "PT2000/event_1002",
        "PT2000_2025-09/event_1002",
        f"PT2000_2025-09/event_1002@{archive_id(2)[:12]}",
        f"{archive_id(2)}/event_1002",
        "uuid-2-1",
    ],
)
def test_event_has_its_own_windows_alone(reference: str, built: BuiltLake, lake: Lake) -> None:
    view, rows = event(lake, reference), built.windows[MODEL_A]
    own = rows[(rows["patient_id"] == "PT2000") & (rows["event_id"] == "event_1002")]
    assert list(view.windows["window_id"]) == list(own["window_id"])
    assert view.event["num_windows"] == len(own) == 6
    assert view.event["uris"] == ["/archives/PT2000_2025-09.h5"]
    assert view.event["heart_rate"] is None
    assert view.event["vitals"][0]["history"][0]["value"] == 79.0


def test_unknown_event_is_an_error(lake: Lake) -> None:
    with pytest.raises(ConfigError, match="not in this lake"):
        event(lake, "PT1000/event_9999")


def test_every_name_of_a_window_finds_it(built: BuiltLake, lake: Lake) -> None:
    row = built.windows[MODEL_A].iloc[7]
    for name in ("window_id", "chunk_id", "vector_id"):
        assert find_window(lake, row[name])["window_id"] == row["window_id"]
    assert find_window(lake, row["window_id"].partition("@")[0])["window_id"] == row["window_id"]
    with pytest.raises(ConfigError, match="names 8 windows"):
        find_window(lake, row["seed_chunk_id"])


def test_verdicts_count_windows_by_type(built: BuiltLake, lake: Lake) -> None:
    found = verdicts(lake).set_index("event_uid")
    assert len(found) == 8
    windows = built.windows[MODEL_A]
    keys = windows["archive_id"] + "/" + windows["event_id"]
    expected = windows["anomaly_type"].fillna("Normal").groupby(keys).value_counts()
    for uid, row in found.iterrows():
        assert row["windows_by_type"] == expected[uid].to_dict()
    assert found["num_anomalous"].is_monotonic_decreasing
    assert found["num_anomalous"].sum() == windows["is_anomaly"].sum()


def test_verdicts_filter(lake: Lake) -> None:
    assert set(verdicts(lake, verdict="tachycardia")["event_id"]) == {"event_1002"}
    assert set(verdicts(lake, patient="PT1000")["patient_id"]) == {"PT1000"}
    assert set(verdicts(lake, condition="brady")["condition"]) == {"Bradycardia"}
    assert len(verdicts(lake, limit=3)) == 3
    with pytest.raises(ConfigError, match="limit"):
        verdicts(lake, limit=0)


def test_sql_sees_one_model_and_committed_rows(lake: Lake) -> None:
    found = sql(lake, "SELECT DISTINCT model_id, unit_id FROM windows ORDER BY unit_id")
    assert list(found["model_id"].unique()) == [MODEL_A]
    assert list(found["unit_id"]) == ["unit-0", "unit-1", "unit-2", "unit-3"]


def test_sql_joins_the_tables(built: BuiltLake, lake: Lake) -> None:
    found = sql(
        lake,
        "SELECT e.period, count(*) AS n FROM windows w JOIN events e USING (archive_id, event_id) "
        "GROUP BY ALL ORDER BY ALL",
    )
    assert found.to_dict("list") == {"period": ["2025-08", "2025-09"], "n": [12, 36]}


@pytest.mark.parametrize("query", ["SELEC 1", "SELECT nothing FROM windows", "SELECT * FROM built"])
def test_bad_sql_is_bad_input(query: str, lake: Lake) -> None:
    built = pd.DataFrame({"a": [1]})
    assert len(built) == 1
    with pytest.raises(ConfigError, match="DuckDB"):
        sql(lake, query)


def test_sql_without_a_statement_answers_with_nothing(lake: Lake) -> None:
    assert sql(lake, "-- nothing").empty


def test_lake_without_windows_answers_with_none(tmp_path: Path) -> None:
    built = build_lake(tmp_path, (MODEL_A,))
    for part in tmp_path.glob("windows/**/*.parquet"):
        part.unlink()
    found = stats(open_lake(built.uri))
    assert (found.total_chunks, found.anomaly_rate, found.avg_error_score) == (0, None, None)
