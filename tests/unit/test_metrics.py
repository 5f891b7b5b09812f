from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from ray.util import metrics as ray_metrics

from rmsai_ray.backfill.report import BY_LIBRARY
from rmsai_ray.metrics import BYTE_KINDS, METRICS, Metric, Metrics

IDENTIFIERS = {"uri", "archive_id", "patient_id", "event_id", "unit_id", "job"}
"""Labels that would never end, and one that Prometheus takes for itself."""


class Recorder:
    """Instruments that keep what they are given."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], list[float]] = {}

    def make(self, metric: Metric) -> Any:
        values = self.values

        class Kept:
            def record(self, value: float, labels: Mapping[str, str]) -> None:
                values.setdefault((metric.name, *labels.values()), []).append(value)

        return Kept()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def meter(recorder: Recorder) -> Metrics:
    return Metrics(make=recorder.make)


REPORT = {
    "archives": {"committed": 3, "quarantined": 1},
    "counts": {"events": 5, "windows": 35, "anomalies": 0},
    "rejects": {"corrupt": 1},
    "seconds": {"read": 0.5, "encode": 2.0, "write": 0.25},
    "num_bytes": {"read": 1000, BY_LIBRARY: 10, "parquet": 7, "lance": 8},
    "retries": 2,
}


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_names_are_as_prometheus_wants_them(metric: Metric) -> None:
    assert re.fullmatch(r"rmsai_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.kind != "histogram" or metric.name.endswith("_duration_seconds")
    assert not set(metric.labels) & IDENTIFIERS
    assert metric.what.endswith(".")


def test_a_unit_is_counted(meter: Metrics, recorder: Recorder) -> None:
    meter.unit(REPORT)
    meter.unit(REPORT)
    sums = {key: sum(values) for key, values in recorder.values.items() if "duration" not in key[0]}
    assert sums == {
        ("rmsai_archives_total", "committed"): 6,
        ("rmsai_archives_total", "quarantined"): 2,
        ("rmsai_rejects_total", "corrupt"): 2,
        ("rmsai_events_total",): 10,
        ("rmsai_windows_total",): 70,
        ("rmsai_stage_seconds_total", "read"): 1.0,
        ("rmsai_stage_seconds_total", "encode"): 4.0,
        ("rmsai_stage_seconds_total", "write"): 0.5,
        ("rmsai_bytes_total", "read"): 2000,
        ("rmsai_bytes_total", "detour"): 20,
        ("rmsai_bytes_total", "parquet"): 14,
        ("rmsai_bytes_total", "lance"): 16,
        ("rmsai_read_retries_total",): 4,
        ("rmsai_units_total",): 2,
    }
    assert recorder.values["rmsai_stage_duration_seconds", "encode"] == [2.0, 2.0]
    assert set(BYTE_KINDS) == set(REPORT["num_bytes"])  # type: ignore[call-overload]


@pytest.mark.parametrize(("written", "expected"), [(0, [8, 2, 0]), (9, [0, 1, 9]), (10, [0, 0, 10])])
def test_the_queue_adds_up(meter: Metrics, recorder: Recorder, written: int, expected: list[int]) -> None:
    meter.queue(planned=10, written=written, workers=2)
    found = [recorder.values["rmsai_units", state] for state in ("waiting", "under_way", "written")]
    assert found == [[count] for count in expected]


def test_only_a_success_is_one(meter: Metrics, recorder: Recorder) -> None:
    meter.run_ended("backfill", "failed")
    assert set(recorder.values) == {("rmsai_runs_total", "backfill", "failed")}
    meter.run_ended("backfill", "done")
    assert ("rmsai_run_last_success_timestamp_seconds", "backfill") in recorder.values
    with meter.commit():
        pass
    assert recorder.values["rmsai_commit_duration_seconds",][0] >= 0


def test_a_label_that_nobody_declared_is_refused(meter: Metrics) -> None:
    with pytest.raises(ValueError, match="status"):
        meter.record("rmsai_archives_total", 1, uri="s3://icu/PT1.h5")


def test_without_ray_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(ray_metrics, kind, lambda name, **_: opened.append(name))
    Metrics().unit(REPORT)
    assert not opened
