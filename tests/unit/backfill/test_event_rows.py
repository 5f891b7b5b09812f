"""Events as columns are what they are as rows."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmsai_ray.archives.records import Archive, Event, Signal, Vital
from rmsai_ray.backfill.event_rows import EventRows, read_events_schema, times

ARCHIVE = Archive(
    archive_id="a", stem="s", patient_id="p", period="unknown", variant="v3", metadata={}, events=()
)
COMMON = {"model_id": "m", "run_id": "r", "unit_id": "u"}


def event(number: int, vitals: dict[str, Vital], heart_rate_bpm: float | None = None) -> Event:
    return Event(
        event_id=f"event_{number}",
        uuid=f"uuid-{number}",
        time_s=None,
        condition="Normal",
        heart_rate_bpm=heart_rate_bpm,
        leads={"ECG2": Signal(samples=np.zeros(3), fs=200.0)},
        vitals=vitals,
    )


def at(epoch_s: float) -> datetime:
    return datetime.fromtimestamp(epoch_s, UTC)


def test_vital_signs_stay_with_their_event_and_histories_with_their_vital_sign() -> None:
    rows = EventRows()
    heart_rate = Vital(value=71.0, units="bpm", time_s=1.5, history=((0.25, 70.0), (1.0, float("inf"))))
    unknown = Vital(
        value=None, units="", time_s=float("inf"), lower_threshold=0.0, extras={"b": 1, "a": [None]}
    )
    rows.add(ARCHIVE, event(1, {}), ["bad_json"], 0)
    rows.add(ARCHIVE, event(2, {"HR": heart_rate, "odd": unknown}, 80.0), [], 7)
    rows.add(ARCHIVE, event(3, {"HR": unknown}), [], 1)
    table = rows.table(COMMON)
    assert table.schema.equals(read_events_schema())
    table.validate(full=True)
    none = {
        "value": None, "units": "", "time": None, "lower_threshold": 0.0, "upper_threshold": None,
        "history": [], "extras": '{"b": 1, "a": [null]}',
    }  # fmt: skip
    known = {
        "name": "HR", "value": 71.0, "units": "bpm", "time": at(1.5), "lower_threshold": None,
        "upper_threshold": None, "extras": None,
        "history": [{"time": at(0.25), "value": 70.0}, {"time": at(1.0), "value": float("inf")}],
    }  # fmt: skip
    vitals = table["vitals"].to_pylist()
    assert vitals == [[], [known, {"name": "odd"} | none], [{"name": "HR"} | none]]
    assert table["heart_rate"].to_pylist() == [None, 80.0, None]
    assert table["num_windows"].to_pylist() == [0, 7, 1]
    assert table["problems"].to_pylist() == [["bad_json"], [], []]
    assert table["unit_id"].to_pylist() == ["u"] * 3


def test_no_events_no_rows() -> None:
    assert EventRows().table(COMMON).equals(read_events_schema().empty_table())


@pytest.mark.parametrize(
    ("seconds", "microseconds"),
    [(None, None), (1.5, 1_500_000), (float("inf"), None), (float("nan"), None), (3e11, None), (-3e11, None)],
)
def test_times_that_are_no_dates_are_null(seconds: float | None, microseconds: int | None) -> None:
    assert times([seconds, 2.0]).cast("int64").to_pylist() == [microseconds, 2_000_000]


@given(st.lists(st.floats(-2e9, 5e9)))
def test_times_are_rounded_as_python_rounds(seconds: list[float]) -> None:
    assert times(seconds).cast("int64").to_pylist() == [round(each * 1e6) for each in seconds]
