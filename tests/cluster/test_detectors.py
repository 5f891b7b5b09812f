"""Detectors in the pass of a backfill on Ray: the scores are those of one process over the same windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.detection.detector_set import fit_detector_set
from rmsai_ray.detection.rows import measured_of
from rmsai_ray.tables.lake import open_lake
from tests.cluster.corpus import run

NAMES = ("worst_error", "two_sided_error", "mahalanobis", "knn", "rhythm")
PREFIX = "PT000"
"""Of ten archives."""


def test_workers_score_as_one_process_does(uninterrupted: BackfillConfig, tmp_path: Path) -> None:
    lake = open_lake(uninterrupted.lake)
    before = lake.table("FROM windows WHERE starts_with(patient_id, ?) ORDER BY window_id", [PREFIX])
    measured = measured_of(before)
    fitted = fit_detector_set(measured, measured, NAMES, model_id=lake.model_id, seed=0)
    folder = fitted.save(tmp_path / "set")

    run(
        uninterrupted,
        lake=str(tmp_path / "lake"),
        prefix=PREFIX,
        detectors=str(folder),
        num_encoders=2,
        batch_windows=5,
        unit_bytes=700_000,
    )

    scored = open_lake(str(tmp_path / "lake"))
    rows = scored.rows("FROM windows ORDER BY window_id")
    expected = fitted.scores(measured)
    assert [row["window_id"] for row in rows] == before["window_id"].to_pylist()
    for place, row in enumerate(rows):
        found = {pair["detector"]: pair["score"] for pair in row["scores"]}
        assert found == {name: float(score_N[place]) for name, score_N in expected.items()}
        assert (row["detector"], row["detector_set"]) == ("ensemble", fitted.set_id)
        assert row["anomaly_score"] == found["ensemble"]
        assert row["is_anomaly"] == (row["anomaly_score"] > row["threshold"])
    published = scored.vectors().to_arrow().sort_by("window_id")
    assert published["scores"].to_pylist() == [row["scores"] for row in rows]
    np.testing.assert_array_equal(published["anomaly_score"].to_numpy(), expected["ensemble"])
