"""Every deviation from the format is named by a code, and costs no more than it must."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

import h5py
import numpy as np
import pytest

from rmsai_ray.archives.problems import PROBLEMS
from rmsai_ray.archives.reader import ReadOptions
from rmsai_ray.archives.records import Archive, Event
from rmsai_ray.errors import ArchiveError
from tests.both_ways import read_archive
from tests.upstream_files import ASCII_VLEN, archive_bytes, edited, replace

NAME = "PT1234_2025-09.h5"
Change = Callable[[h5py.File], object]


@cache
def two_events() -> bytes:
    return archive_bytes("v3", num_events=2)


def read_changed(change: Change, name: str = NAME) -> Archive:
    raw = edited(two_events(), change)
    return read_archive(raw, name, options=ReadOptions(waveforms=True))


def only_event_problem(change: Change, code: str, where: str) -> Event:
    """The first event after ``change``, which must have this one problem; the second has none."""
    archive = read_changed(change)
    first, second = archive.events
    assert [(p.code, p.severity, p.where) for p in first.problems] == [
        (code, "degraded", f"event_1001/{where}")
    ]
    assert (archive.problems, second.problems, archive.status) == ((), (), "degraded")
    return first


def archive_codes(change: Change, name: str = NAME) -> set[str]:
    return {found.code for found in read_changed(change, name).problems}


def with_signal(path: str, make: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Puts ``make(samples)`` in the place of a signal of the first event."""

    def change(file: h5py.File) -> None:
        group, name = file[f"event_1001/{path}"].parent, path.rpartition("/")[2]
        replace(group, name, make(group[name][:]))

    return change


def without(*paths: str) -> Change:
    def change(file: h5py.File) -> None:
        for path in paths:
            node, _, attribute = path.partition("@")
            if attribute:
                del file[node].attrs[attribute]
            else:
                del file[path]

    return change


def both(*changes: Change) -> Change:
    return lambda file: [change(file) for change in changes]


def test_a_missing_lead_is_missing_and_nothing_else() -> None:
    event = only_event_problem(without("event_1001/ecg/aVL"), "missing_lead", "ecg/aVL")
    assert list(event.leads) == ["ECG1", "ECG2", "ECG3", "aVR", "aVF", "vVX"]


@pytest.mark.parametrize("num_samples", [2399, 700, 1])
def test_a_short_lead_is_kept_as_long_as_it_is(num_samples: int) -> None:
    event = only_event_problem(with_signal("ecg/ECG2", lambda x: x[:num_samples]), "short_signal", "ecg/ECG2")
    assert event.leads["ECG2"].samples.size == num_samples


@pytest.mark.parametrize(
    ("path", "num_samples"), [("ecg/ECG2", 2401), ("ecg/ECG2", 9000), ("resp/RESP", 400)]
)
def test_a_longer_signal_is_no_problem(path: str, num_samples: int) -> None:
    archive = read_changed(with_signal(path, lambda x: np.resize(x, num_samples)))
    event = archive.events[0]
    assert archive.status == "ok"
    signal = event.resp if path == "resp/RESP" else event.leads["ECG2"]
    assert signal is not None
    assert signal.samples.size == num_samples


def test_samples_that_are_no_numbers_become_nan() -> None:
    def spoil(samples: np.ndarray) -> np.ndarray:
        samples[[3, 5, 7]] = np.nan, np.inf, -np.inf
        return samples

    event = only_event_problem(with_signal("ecg/ECG1", spoil), "nan_samples", "ecg/ECG1")
    samples = event.leads["ECG1"].samples
    assert list(np.flatnonzero(np.isnan(samples))) == [3, 5, 7]
    assert not np.isinf(samples).any()


def test_a_lead_without_any_finite_sample_is_left_out() -> None:
    change = with_signal("ecg/ECG1", lambda x: np.full_like(x, np.nan))
    event = only_event_problem(change, "empty_signal", "ecg/ECG1")
    assert "ECG1" not in event.leads


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x[:0],
        lambda x: x.reshape(2, 1200),
        lambda x: x.astype("S8"),
        lambda x: x + 1j,
        lambda x: np.array([(1, 2)], dtype=[("a", int), ("b", int)]),
    ],
)
def test_a_lead_of_another_kind_is_left_out(make: Callable[[np.ndarray], np.ndarray]) -> None:
    event = only_event_problem(with_signal("ecg/ECG1", make), "unreadable_lead", "ecg/ECG1")
    assert "ECG1" not in event.leads


@pytest.mark.parametrize("dtype", [">f8", "<f4", ">f4", "f2"])
def test_other_float_types_are_read(dtype: str) -> None:
    archive = read_changed(with_signal("ecg/ECG1", lambda x: x.astype(dtype)))
    assert archive.status == "ok"
    expected = read_archive(two_events(), NAME).events[0].leads["ECG1"].samples
    np.testing.assert_array_equal(archive.events[0].leads["ECG1"].samples, expected.astype(dtype))


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "gzip", "shuffle": True},
        {"chunks": (500,)},
        {"compression": "gzip", "chunks": (1000,), "maxshape": (None,)},
        {},
    ],
)
def test_other_storage_of_a_lead_is_read(options: dict[str, object]) -> None:
    samples = np.linspace(-1, 1, 2400)
    archive = read_changed(lambda file: replace(file["event_1001/ecg"], "aVR", samples, **options))
    assert archive.status == "ok"
    np.testing.assert_array_equal(archive.events[0].leads["aVR"].samples, samples)


@pytest.mark.parametrize("options", [{"compression": "lzf"}, {"fletcher32": True}])
def test_filters_that_nobody_uses_make_a_lead_unreadable(options: dict[str, object]) -> None:
    event = only_event_problem(
        lambda file: replace(file["event_1001/ecg"], "aVR", np.ones(2400), **options),
        "unreadable_lead",
        "ecg/aVR",
    )
    assert "aVR" not in event.leads


@pytest.mark.parametrize("options", [{}, {"chunks": (1200,)}])
def test_a_lead_that_was_declared_but_never_written_is_not_read_as_zeros(options: dict[str, object]) -> None:
    def change(file: h5py.File) -> None:
        del file["event_1001/ecg/aVR"]
        file["event_1001/ecg"].create_dataset("aVR", (2400,), "f8", **options)

    event = only_event_problem(change, "unreadable_lead", "ecg/aVR")
    assert "aVR" not in event.leads


def test_the_datasets_own_rate_counts_more_than_the_archives() -> None:
    def change(file: h5py.File) -> None:
        replace(file["event_1001/ecg"], "ECG1", np.resize(file["event_1001/ecg/ECG1"][:], 6000))
        file["event_1001/ecg/ECG1"].attrs["sampling_rate"] = 500

    event = only_event_problem(change, "odd_rate", "ecg/ECG1")
    assert (event.leads["ECG1"].fs, event.leads["ECG2"].fs) == (500.0, 200.0)


@pytest.mark.parametrize(
    ("rate_hz", "expected_hz"), [(250.0, 250.0), (0.0, 200.0), (np.nan, 200.0), (b"x", 200.0)]
)
def test_another_rate_is_used_and_a_senseless_one_is_not(rate_hz: object, expected_hz: float) -> None:
    archive = read_changed(lambda file: replace(file["metadata"], "sampling_rate_ecg", rate_hz))
    assert [(p.code, p.where) for p in archive.problems] == [("odd_rate", "metadata/sampling_rate_ecg")]
    assert {signal.fs for event in archive.events for signal in event.leads.values()} == {expected_hz}


def test_what_the_ecg_group_holds_besides_leads() -> None:
    def change(file: h5py.File) -> None:
        ecg = file["event_1001/ecg"]
        ecg["V5"] = np.zeros(2400)
        ecg["annotations"] = '{"beats": [100, 260]}'
        ecg["comment"] = "moved"

    event = only_event_problem(change, "unknown_dataset", "ecg/V5")
    assert event.ecg_extras == {"annotations": {"beats": [100, 260]}, "comment": "moved"}


@pytest.mark.parametrize("content", ['{"history": [', "[1]", "", "[" * 100_000, b"\xff\xfe"])
def test_extras_that_are_no_json_object_are_ignored(content: str | bytes) -> None:
    change = lambda file: replace(file["event_1001/vitals/HR"], "extras", content, dtype=ASCII_VLEN)  # noqa: E731
    event = only_event_problem(change, "bad_json", "vitals/HR/extras")
    assert event.vitals["HR"].history == ()
    assert event.vitals["HR"].value is not None


def test_what_we_keep_can_be_written_as_json() -> None:
    deep = "[" * 500 + "]" * 500

    def change(file: h5py.File) -> None:
        replace(file["event_1001/ecg"], "extras", f'{{"noise": NaN, "gain": [1e999, 1], "deep": {deep}}}')
        file["event_1001/ecg/drift"] = np.inf
        file["event_1001/vitals/HR/drift"] = -np.inf
        file["metadata/drift"] = np.nan

    archive = read_changed(change)
    event = archive.events[0]
    kept = [event.ecg_extras, event.vitals["HR"].extras, archive.metadata]
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept
    assert event.ecg_extras["gain"] == [None, 1]
    assert (event.ecg_extras["drift"], event.vitals["HR"].extras["drift"]) == (None, None)


@pytest.mark.parametrize(
    "history",
    [
        [{"value": 1}, {"value": "x", "timestamp": 5}, 7, {"value": 60, "timestamp": 1.0}],
        [{"value": 60, "timestamp": 1.0}, {"value": 60, "timestamp": 1.7e12}],
    ],
)
def test_unusable_history_entries_are_left_out(history: list[object]) -> None:
    content = json.dumps({"history": history})
    event = only_event_problem(
        lambda file: replace(file["event_1001/vitals/HR"], "extras", content),
        "bad_history",
        "vitals/HR/extras",
    )
    assert event.vitals["HR"].history == ((1.0, 60.0),)


@pytest.mark.parametrize("word", [-1e12, 1.5, "two", True])
def test_a_senseless_pacer_word_is_null(word: object) -> None:
    content = json.dumps({"pacer_info": word, "pacer_offset": 1200})
    event = only_event_problem(
        lambda file: replace(file["event_1001/ecg"], "extras", content), "bad_pacer", "ecg"
    )
    assert (event.pacer_info, event.pacer_offset) == (None, 1200)


def test_missing_vitals_are_named_once() -> None:
    event = only_event_problem(
        without("event_1001/vitals/HR", "event_1001/vitals/Temp"), "missing_vitals", "vitals"
    )
    assert event.problems[0].detail == "HR, Temp"
    assert event.heart_rate_bpm is not None  # the event's own


def test_no_vitals_at_all() -> None:
    event = only_event_problem(without("event_1001/vitals"), "missing_vitals", "vitals")
    assert event.vitals == {}


@pytest.mark.parametrize(
    "change",
    [
        without("event_1001/vitals/SpO2/value"),
        lambda file: replace(file["event_1001/vitals/SpO2"], "value", np.nan),
        lambda file: replace(file["event_1001/vitals/SpO2"], "value", b"high"),
        lambda file: replace(file["event_1001/vitals/SpO2"], "value", np.arange(3)),
    ],
)
def test_a_vital_without_a_usable_value_has_none(change: Change) -> None:
    event = only_event_problem(change, "incomplete_vital", "vitals/SpO2")
    assert event.vitals["SpO2"].value is None
    assert event.vitals["SpO2"].units == "%"


def test_no_ppg_is_a_problem_and_no_resp_is_none() -> None:
    only_event_problem(without("event_1001/ppg"), "missing_waveform", "ppg/PPG")
    assert read_changed(without("event_1001/resp")).status == "ok"


@pytest.mark.parametrize("place", ["Condition", "reported_condition"])
def test_the_condition_has_other_names(place: str) -> None:
    def change(file: h5py.File) -> None:
        del file["event_1001"].attrs["condition"]
        file["event_1001"].attrs[place] = " Tachycardia "

    archive = read_changed(change)
    assert (archive.status, archive.events[0].condition) == ("ok", "Tachycardia")


def test_the_condition_may_be_a_dataset_or_an_attribute_of_the_metadata() -> None:
    def change(file: h5py.File) -> None:
        del file["event_1001"].attrs["condition"]
        del file["event_1002"].attrs["condition"]
        file["event_1001/condition"] = "Bradycardia"
        file["metadata"].attrs["default_condition"] = "Normal"

    archive = read_changed(change)
    assert archive.status == "ok"
    assert [event.condition for event in archive.events] == ["Bradycardia", "Normal"]


def test_no_condition_is_unknown() -> None:
    archive = read_changed(without("event_1001@condition"))
    assert [p.code for p in archive.events[0].problems] == ["missing_condition"]
    assert archive.events[0].condition == "Unknown"


@pytest.mark.parametrize(("also", "source"), [((), "HR"), (("event_1001/vitals/HR/value",), "Pulse")])
def test_a_missing_heart_rate_is_that_of_the_vitals(also: tuple[str, ...], source: str) -> None:
    archive = read_changed(without("event_1001@heart_rate", *also))
    event = archive.events[0]
    assert "missing_heart_rate" in {p.code for p in event.problems}
    assert event.heart_rate_bpm == event.vitals[source].value


def test_the_time_is_an_attribute_else_a_dataset_else_the_first_alarm() -> None:
    expected = [event.time_s for event in read_changed(lambda file: None).events]
    assert [e.time_s for e in read_changed(without("event_1001@event_timestamp")).events] == expected
    assert [e.time_s for e in read_changed(without("event_1001/timestamp")).events] == expected

    gone = [f"event_{n}{place}" for n in (1001, 1002) for place in ("/timestamp", "@event_timestamp")]
    archive = read_changed(without(*gone))
    assert [e.time_s for e in archive.events] == [expected[0], None]
    assert [[p.code for p in e.problems] for e in archive.events] == [["missing_time"], ["missing_time"]]


@pytest.mark.parametrize("time_s", [np.nan, -5.0, 0.0, 1.7575e12, 1e300])
def test_a_senseless_time_is_none(time_s: float) -> None:
    def change(file: h5py.File) -> None:
        file["event_1002"].attrs["event_timestamp"] = time_s
        del file["event_1002/timestamp"]

    event = read_changed(change, "export.h5").events[1]
    assert (event.time_s, [p.code for p in event.problems]) == (None, ["missing_time"])


def test_the_uuid_falls_back_to_patient_and_event() -> None:
    archive = read_changed(without("event_1001/uuid", "event_1001@uuid", "event_1002@uuid"))
    assert [p.code for p in archive.events[0].problems] == ["missing_uuid"]
    assert archive.events[0].uuid == "PT1234_event_1001"
    assert archive.events[1].problems == ()


def test_the_metadata_count_where_the_file_name_contradicts_them() -> None:
    archive = read_changed(lambda file: None, "PT9999_2025-09.h5")
    assert [p.code for p in archive.problems] == ["patient_mismatch"]
    assert archive.patient_id == "PT1234"


def test_without_metadata_the_file_name_tells_the_patient() -> None:
    archive = read_changed(without("metadata"))
    assert (archive.patient_id, [p.code for p in archive.problems]) == ("PT1234", ["missing_metadata"])
    assert archive.events[0].leads["ECG1"].fs == 200.0


@pytest.mark.parametrize("patient_id", [None, "", "PT\n1", "P" * 200])
def test_without_any_patient_there_is_no_archive(patient_id: str | None) -> None:
    def change(file: h5py.File) -> None:
        del file["metadata/patient_id"]
        if patient_id is not None:
            file["metadata/patient_id"] = patient_id

    with pytest.raises(ArchiveError) as caught:
        read_changed(change, "export.h5")
    assert caught.value.reason == "no_patient"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (without("event_1001/ecg"), "no_leads"),
        (both(without("event_1001/ecg"), lambda file: file.create_group("event_1001/ecg")), "no_leads"),
        (
            both(without("event_1001"), lambda file: file.create_dataset("event_1001", data=1)),
            "unreadable_event",
        ),
        (
            both(without("event_1001/ecg"), lambda file: file.create_dataset("event_1001/ecg", data=1)),
            "unreadable_event",
        ),
    ],
)
def test_an_unusable_event_does_not_cost_the_others(change: Change, code: str) -> None:
    archive = read_changed(change)
    assert [event.event_id for event in archive.events] == ["event_1002"]
    assert [(p.code, p.severity, p.where) for p in archive.problems] == [(code, "fatal", "event_1001")]


def test_the_list_of_codes_explains_itself() -> None:
    assert all(kind.meaning.endswith(".") for kind in PROBLEMS.values())
    assert {kind.severity for kind in PROBLEMS.values() if kind.costs in ("item", "nothing")} == {"degraded"}
