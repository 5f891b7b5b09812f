"""From archives to rows of windows, events and rejects, before a model has seen them."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest

from rmsai_ray.archives.reader import read_archive
from rmsai_ray.archives.records import Archive, Event, Signal
from rmsai_ray.backfill.rows import UnitRows
from rmsai_ray.ids import archive_id
from rmsai_ray.models.bundle import ModelSpec
from rmsai_ray.models.profiles import PROFILES
from rmsai_ray.signals.leads import LEADS
from tests.upstream_files import CONDITIONS, FIRST_EVENT_S, archive_bytes, edited, replace

LONG, SHORT = PROFILES["framed-2400x64"], PROFILES["rmsai-140x128"]
URI = "/ward/PT1234_2025-09.h5"


@cache
def ten_events() -> bytes:
    return archive_bytes("v3", num_events=10)


@cache
def one_event(seed: int = 0) -> bytes:
    return archive_bytes("v3", num_events=1, seed=seed)


def rows_of(*raws: bytes, spec: ModelSpec = LONG, leads: tuple[str, ...] = LEADS, tail: bool = True) -> Any:
    """(windows, events, rejects) of archives under one name."""
    rows = UnitRows("run", "model", "unit", spec, "code")
    for raw in raws:
        rows.add_archive(read_archive(raw, URI), URI, leads, tail=tail)
    return rows.tables()


def with_lead(raw: bytes, change: Any, lead: str = "ECG1") -> bytes:
    """``raw`` with the samples of one lead of its first event changed."""

    def do(file: h5py.File) -> None:
        ecg = file["event_1001/ecg"]
        replace(ecg, lead, change(ecg[lead][()]))

    return edited(raw, do)


def signals(windows: pa.Table) -> np.ndarray:
    return np.array(windows["signal"].to_pylist(), np.float32)


@pytest.mark.parametrize(
    ("profile", "num_windows"), [("framed-2400x64", 70), ("seed-2400x64", 70), ("rmsai-140x128", 2380)]
)
def test_ten_events_become_the_documented_number_of_windows(profile: str, num_windows: int) -> None:
    windows, events, rejects = rows_of(ten_events(), spec=PROFILES[profile])
    assert (windows.num_rows, events.num_rows, rejects.num_rows) == (num_windows, 10, 0)
    assert len(set(windows["window_id"].to_pylist())) == num_windows
    assert len(set(windows["chunk_id"].to_pylist())) == num_windows
    assert set(events["num_windows"].to_pylist()) == {num_windows // 10}


def test_without_the_tail_there_are_33_strides() -> None:
    windows, _, _ = rows_of(one_event(), spec=SHORT, leads=("ECG1",), tail=False)
    assert windows["start_sample"].to_pylist() == list(range(0, 2241, 70))
    with_tail, _, _ = rows_of(one_event(), spec=SHORT, leads=("ECG1",))
    assert with_tail["start_sample"].to_pylist() == [*range(0, 2241, 70), 2260]
    assert with_tail["is_tail"].to_pylist() == [False] * 33 + [True]


def test_window_ids_are_unique_where_patient_month_and_events_are_the_same() -> None:
    windows, events, _ = rows_of(one_event(0), one_event(1))
    assert windows.num_rows == len(set(windows["window_id"].to_pylist())) == 14
    assert len(set(events["event_uid"].to_pylist())) == 2


def test_a_window_carries_its_identity_and_its_samples() -> None:
    windows, _, _ = rows_of(one_event(), spec=SHORT, leads=("aVR",))
    row, content = windows.to_pylist()[1], archive_id(one_event())
    with h5py.File(io.BytesIO(one_event())) as file:
        samples = file["event_1001/ecg/aVR"][()].astype(np.float32)
        condition, heart_rate = (file["event_1001"].attrs[name] for name in ("condition", "heart_rate"))
    assert np.array_equal(signals(windows)[1], samples[70:210])
    expected = {
        "window_id": f"PT1234_2025-09/event_1001/aVR/70@{content[:12]}",
        "chunk_id": "chunk_PT1234_2025-09_10014_70",
        "seed_chunk_id": "chunk_10014",
        "vector_id": "vec_chunk_PT1234_2025-09_10014_70",
        "archive_id": content,
        "patient_id": "PT1234",
        "event_id": "event_1001",
        "lead": "aVR",
        "lead_number": 4,
        "start_sample": 70,
        "num_samples": 140,
        "unit": "mV",
        "condition": condition,
        "heart_rate": heart_rate,
        "model_id": "model",
        "run_id": "run",
        "unit_id": "unit",
        "code_version": "code",
    }
    assert {name: row[name] for name in expected} == expected
    assert row["event_time"].timestamp() == FIRST_EVENT_S


def test_fewer_leads_are_a_subset_with_the_same_ids() -> None:
    every, _, _ = rows_of(ten_events())
    some, events, _ = rows_of(ten_events(), leads=("ECG2", "vVX"))
    chosen = every.filter(pa.compute.is_in(every["lead"], pa.array(["ECG2", "vVX"])))
    assert some.equals(chosen)
    assert events["leads"].to_pylist()[0] == list(LEADS)


def test_conditions_are_those_of_the_monitor() -> None:
    _, events, _ = rows_of(ten_events())
    assert events["condition"].to_pylist() == [*CONDITIONS, *CONDITIONS]
    assert [len(vitals) for vitals in events["vitals"].to_pylist()] == [8] * 10


def test_the_pacer_word_comes_apart() -> None:
    word = 2 | 75 << 8 | 9 << 16 | 200 << 24
    raw = edited(one_event(), lambda file: file["event_1001/ecg"].pop("extras"))
    raw = edited(raw, lambda file: file["event_1001/ecg"].create_dataset("pacer_info", data=np.int64(word)))
    event = rows_of(raw)[1].to_pylist()[0]
    names = ("pacer_type", "pacer_rate", "pacer_amplitude", "pacer_flags", "pacer_offset")
    assert [event[name] for name in names] == [2, 75, 9, 200, None]


def gap(first: int, last: int) -> Any:
    def change(samples: np.ndarray) -> np.ndarray:
        samples[first:last] = np.nan
        return samples

    return change


@pytest.mark.parametrize(("last", "kept"), [(1200, True), (1201, False)])
def test_a_window_of_which_more_than_half_is_missing_is_rejected_with_a_row(last: int, kept: bool) -> None:
    windows, events, rejects = rows_of(with_lead(one_event(), gap(0, last)))
    assert windows.num_rows == events["num_windows"][0].as_py() == 6 + kept
    if kept:
        assert "nan" in windows["quality_flags"].to_pylist()[0]
        assert np.isfinite(signals(windows)).all()
        assert rejects.num_rows == 0
        return
    (reject,) = rejects.to_pylist()
    expected = {
        "uri": URI, "archive_id": windows["archive_id"][0].as_py(), "level": "window",
        "reason": "nan_samples", "place": "event_1001/ecg/ECG1[0:2400]", "model_id": "model",
        "detail": "1201 samples are not finite", "run_id": "run", "unit_id": "unit",
    }  # fmt: skip
    assert reject == expected


def test_kept_and_rejected_windows_of_a_gap_add_up() -> None:
    windows, _, rejects = rows_of(with_lead(one_event(), gap(500, 1000)), spec=SHORT, leads=("ECG1",))
    starts = [*range(0, 2241, 70), 2260]
    missing = {start: len(range(max(start, 500), min(start + 140, 1000))) for start in starts}
    assert windows["start_sample"].to_pylist() == [start for start in starts if missing[start] <= 70]
    places = [f"event_1001/ecg/ECG1[{start}:{start + 140}]" for start in starts if missing[start] > 70]
    assert rejects["place"].to_pylist() == places
    flagged = [
        start
        for start, flags in zip(
            windows["start_sample"].to_pylist(), windows["quality_flags"].to_pylist(), strict=True
        )
        if "nan" in flags
    ]
    assert flagged == [start for start in starts if 0 < missing[start] <= 70]


def test_a_short_signal_is_padded_with_zeros_and_says_how_much_is_real() -> None:
    windows, _, rejects = rows_of(with_lead(one_event(), lambda samples: samples[:900]))
    assert rejects.num_rows == 0
    row = windows.to_pylist()[0]
    assert (row["start_sample"], row["num_samples"], row["is_tail"]) == (0, 900, False)
    assert np.any(signals(windows)[0, 800:900])
    assert not np.any(signals(windows)[0, 900:])
    assert windows["num_samples"].to_pylist()[1:] == [2400] * 6


def test_a_signal_of_another_rate_is_brought_to_the_models() -> None:
    raw = edited(one_event(), lambda file: file["metadata/sampling_rate_ecg"].write_direct(np.array(400.0)))
    windows, _, _ = rows_of(raw, spec=LONG)
    assert windows["num_samples"].to_pylist() == [1200] * 7


def test_counts_are_not_called_millivolts() -> None:
    raw = with_lead(one_event(), lambda samples: np.round(samples * 400).astype(np.int64))
    windows, events, _ = rows_of(raw)
    assert windows["unit"].to_pylist() == ["raw"] + ["mV"] * 6
    assert "unit_raw" in events["problems"].to_pylist()[0]


def test_events_and_archive_share_their_problems() -> None:
    raw = edited(ten_events(), lambda file: file["event_1003/ecg"].pop("aVL"))
    raw = edited(raw, lambda file: file["metadata"].pop("alarm_time_epoch"))
    _, events, _ = rows_of(raw)
    problems = events["problems"].to_pylist()
    assert problems[2] == ["missing_lead", "missing_metadata"]
    assert problems[0] == ["missing_metadata"]
    assert events["num_windows"].to_pylist()[2] == 6


def test_no_archive_no_rows() -> None:
    windows, events, rejects = rows_of()
    assert (windows.num_rows, events.num_rows, rejects.num_rows) == (0, 0, 0)
    assert windows.schema.equals(rows_of(one_event())[0].schema)


def test_an_empty_signal_has_a_row() -> None:
    """No file has one, but a source of another format may."""
    signal = Signal(samples=np.zeros(0), fs=200.0)
    event = Event(
        event_id="event_1",
        uuid="u",
        time_s=None,
        condition="Normal",
        heart_rate_bpm=None,
        leads={"ECG1": signal},
    )
    archive = Archive(
        archive_id="x", stem="s", patient_id="p", period="unknown", variant="v3", metadata={}, events=(event,)
    )
    rows = UnitRows("run", "model", "unit", LONG, "code")
    assert rows.add_archive(archive, URI, LEADS, tail=True)["num_rejects"] == 1
    windows, events, rejects = rows.tables()
    assert (windows.num_rows, events.num_rows) == (0, 1)
    assert rejects["reason"].to_pylist() == ["empty_signal"]


def test_a_window_does_not_depend_on_the_unit_that_it_is_in() -> None:
    """Short, holed and raw signals, at another rate and in other company."""
    raws = (
        with_lead(one_event(0), lambda samples: samples[:900]),
        with_lead(one_event(1), gap(500, 1000)),
        with_lead(one_event(2), lambda samples: np.round(samples * 400).astype(np.int64)),
        edited(one_event(3), lambda file: file["metadata/sampling_rate_ecg"].write_direct(np.array(400.0))),
    )
    for spec in (LONG, SHORT):
        together, events, _ = rows_of(*raws, spec=spec)
        expected = {row["window_id"]: row for row in together.to_pylist()}
        assert len(expected) == len(together) == sum(events["num_windows"].to_pylist())
        for raw in raws:
            alone, _, _ = rows_of(raw, spec=spec)
            assert alone.to_pylist() == [expected[name] for name in alone["window_id"].to_pylist()]
