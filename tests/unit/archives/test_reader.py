"""Archives of every generation are read as they were written."""

from __future__ import annotations

import io
import json
from functools import cache

import h5py
import numpy as np
import pytest

from rmsai_ray.archives.reader import ReadOptions
from rmsai_ray.archives.records import Archive
from rmsai_ray.ids import archive_id
from rmsai_ray.signals.leads import LEADS
from tests import upstream_files
from tests.both_ways import read_archive
from tests.upstream_files import CONDITIONS, VITALS, Variant, edited, replace

URI = "s3://monitor/archives/PT1234_2025-09.h5"
VARIANTS: list[Variant] = ["v1", "v2", "v3", "vdx"]


archive_bytes = cache(upstream_files.archive_bytes)


def read(raw: bytes, uri: str = URI, options: ReadOptions = ReadOptions()) -> Archive:  # noqa: B008
    return read_archive(raw, uri, options=options)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_generation_gives_its_events_as_h5py_shows_them(variant: Variant) -> None:
    raw = archive_bytes(variant, num_events=3, seed=1)
    archive = read(raw)

    with h5py.File(io.BytesIO(raw)) as file:
        groups = {name: file[name] for name in file if name.startswith("event_")}
        assert [event.event_id for event in archive.events] == list(groups)
        for event in archive.events:
            group = groups[event.event_id]
            assert event.uuid == group["uuid"][()].decode()
            assert event.time_s == group["timestamp"][()]
            assert event.condition == group.attrs["condition"]
            assert event.heart_rate_bpm == group.attrs["heart_rate"]
            assert tuple(event.leads) == LEADS
            for lead, signal in event.leads.items():
                np.testing.assert_array_equal(signal.samples, group[f"ecg/{lead}"][:])
                assert signal.samples.dtype == np.float64
                assert signal.fs == 200.0
            assert list(event.vitals) == list(VITALS)
            for name, vital in event.vitals.items():
                assert vital.value == group[f"vitals/{name}/value"][()]
                assert vital.time_s == group[f"vitals/{name}/timestamp"][()]


@pytest.mark.parametrize("variant", ["v1", "v2", "v3"])
def test_what_the_generator_wrote_has_no_problems(variant: Variant) -> None:
    archive = read(archive_bytes(variant, num_events=len(CONDITIONS)), options=ReadOptions(waveforms=True))

    assert archive.status == "ok"
    assert archive.problems == ()
    assert archive.variant == variant
    assert {signal.unit for event in archive.events for signal in event.leads.values()} == {"mV"}


def test_the_archive_knows_where_it_comes_from() -> None:
    raw = archive_bytes("v3", patient_id="PT0042")
    archive = read(raw, "file:///data/PT0042_2025-11.h5")

    assert (archive.stem, archive.patient_id, archive.period) == ("PT0042_2025-11", "PT0042", "2025-11")
    assert archive.archive_id == archive_id(raw)
    assert archive.metadata["sampling_rate_ecg"] == 200.0
    assert archive.metadata["max_vital_history"] == 30
    assert archive.metadata["device_info"] == "RMSAI-SimDevice-v1.0"


def test_the_period_of_a_file_without_one_is_that_of_its_first_event() -> None:
    assert read(archive_bytes("v3"), "export.h5").period == "2025-09"


def test_waveforms_and_vitals_are_read_on_demand() -> None:
    raw = archive_bytes("v3", num_events=1)
    (lean,) = read(raw, options=ReadOptions(vitals=False)).events
    (full,) = read(raw, options=ReadOptions(waveforms=True)).events

    assert (lean.ppg, lean.resp, lean.vitals, lean.problems) == (None, None, {}, ())
    assert full.ppg is not None
    assert (full.ppg.samples.size, full.ppg.fs) == (900, 75.0)
    assert full.resp is not None
    assert (full.resp.samples.size, full.resp.fs) == (399, 33.33)


@pytest.mark.parametrize("variant", VARIANTS)
def test_units_are_spelled_one_way(variant: Variant) -> None:
    (event,) = read(archive_bytes(variant, num_events=1)).events

    assert {name: vital.units for name, vital in event.vitals.items()} == {
        name: units for name, (units, *_) in VITALS.items()
    }


@pytest.mark.parametrize("variant", ["v2", "v3"])
def test_thresholds_come_from_datasets_or_extras(variant: Variant) -> None:
    (event,) = read(archive_bytes(variant, num_events=1)).events

    found = {name: (vital.lower_threshold, vital.upper_threshold) for name, vital in event.vitals.items()}
    assert found == {name: thresholds or (None, None) for name, (_, thresholds, *_) in VITALS.items()}


def test_the_converters_default_thresholds_mean_unknown() -> None:
    (event,) = read(archive_bytes("vdx", num_events=1)).events

    assert (event.vitals["HR"].lower_threshold, event.vitals["HR"].upper_threshold) == (60.0, 100.0)
    assert (event.vitals["Temp"].lower_threshold, event.vitals["Temp"].upper_threshold) == (None, None)


@pytest.mark.parametrize(("variant", "num_entries"), [("v1", 0), ("v2", 0), ("v3", 30), ("vdx", 20)])
def test_histories_are_oldest_first(variant: Variant, num_entries: int) -> None:
    (event,) = read(archive_bytes(variant, num_events=1)).events

    history = event.vitals["SpO2"].history
    assert len(history) == num_entries
    assert list(history) == sorted(history)
    source = event.vitals["SpO2"].extras.get("history_source")
    assert source == ("synthetic" if variant == "vdx" else None)


def test_a_history_in_any_order_is_sorted() -> None:
    entries = [{"value": 2, "timestamp": 20.0}, {"value": 1, "timestamp": 10}, {"value": 3, "timestamp": 30}]
    raw = edited(
        archive_bytes("v3", num_events=1),
        lambda file: replace(file["event_1001/vitals/HR"], "extras", json.dumps({"history": entries})),
    )

    assert read(raw).events[0].vitals["HR"].history == ((10.0, 1.0), (20.0, 2.0), (30.0, 3.0))


@pytest.mark.parametrize("variant", ["v2", "v3", "vdx"])
def test_posture_extras_have_one_spelling(variant: Variant) -> None:
    (event,) = read(archive_bytes(variant, num_events=1)).events

    extras = event.vitals["XL_Posture"].extras
    assert {"step_count", "time_since_posture_change"} <= extras.keys()
    assert "time_since_change" not in extras


def test_the_pacer_is_found_in_extras_else_in_datasets_else_nowhere() -> None:
    found = {
        variant: [
            (event.pacer_info is not None, event.pacer_offset is not None)
            for event in read(archive_bytes(variant, num_events=1)).events
        ]
        for variant in VARIANTS
    }

    assert found == {
        "v1": [(False, False)],
        "v2": [(True, True)],
        "v3": [(True, True)],
        "vdx": [(True, False)],
    }


def test_extras_count_more_than_datasets_beside_them() -> None:
    def change(file: h5py.File) -> None:
        replace(file["event_1001/ecg"], "pacer_info", np.int32(7))
        replace(file["event_1001/ecg"], "extras", '{"pacer_info": 258, "fiducials": [1, 2]}')

    (event,) = read(edited(archive_bytes("v2", num_events=1), change)).events

    assert event.pacer_info == 258
    assert event.pacer_offset is not None  # still from its dataset
    assert event.ecg_extras == {"fiducials": [1, 2]}


def test_a_pacer_word_stored_as_a_negative_integer_keeps_its_bits() -> None:
    raw = edited(
        archive_bytes("v2", num_events=1),
        lambda file: replace(file["event_1001/ecg"], "pacer_info", np.int32(-(1 << 31) + 1)),
    )

    assert read(raw).events[0].pacer_info == 0x80000001


def test_converter_zeros_are_missing_values() -> None:
    def change(file: h5py.File) -> None:
        for name in VITALS:
            replace(file[f"event_001/vitals/{name}"], "value", np.int64(0))
        file["event_001"].attrs["heart_rate"] = 0.0

    (event,) = read(edited(archive_bytes("vdx", num_events=1), change)).events

    values = {name: vital.value for name, vital in event.vitals.items()}
    assert values == {name: 0.0 if name == "XL_Posture" else None for name in VITALS}
    assert event.heart_rate_bpm is None


def test_a_monitors_zero_is_a_zero() -> None:
    raw = edited(
        archive_bytes("v3", num_events=1),
        lambda file: replace(file["event_1001/vitals/RespRate"], "value", np.int64(0)),
    )

    assert read(raw).events[0].vitals["RespRate"].value == 0.0


def test_raw_counts_are_marked_or_scaled() -> None:
    raw = archive_bytes("vdx", num_events=1)
    (counts,) = read(raw).events
    (scaled,) = read(raw, options=ReadOptions(gain_mv_per_count=0.0025)).events

    assert {signal.unit for signal in counts.leads.values()} == {"raw"}
    assert {signal.unit for signal in scaled.leads.values()} == {"mV"}
    np.testing.assert_allclose(scaled.leads["aVF"].samples, 0.0025 * counts.leads["aVF"].samples)
    assert "unit_raw" in {found.code for found in counts.problems}
    assert "unit_raw" not in {found.code for found in scaled.problems}


def test_events_are_sorted_by_number_and_keep_their_names() -> None:
    def change(file: h5py.File) -> None:
        for name in ("event_10010", "event_999", "event_0998"):
            file.copy("event_1001", name)
        file.create_group("event_x")
        file.create_group("events_1")

    archive = read(edited(archive_bytes("v3", num_events=2), change))

    names = [event.event_id for event in archive.events]
    assert names == ["event_0998", "event_999", "event_1001", "event_1002", "event_10010"]


def test_unknown_metadata_and_vitals_are_carried() -> None:
    def change(file: h5py.File) -> None:
        file["metadata/ward"] = "ICU °3"
        file["metadata"].attrs["bed"] = 12
        file.copy("event_1001/vitals/HR", "event_1001/vitals/EtCO2")
        file["event_1001/vitals/HR/site"] = "finger"

    archive = read(edited(archive_bytes("v3", num_events=1), change))

    assert archive.status == "ok"
    assert (archive.metadata["ward"], archive.metadata["bed"]) == ("ICU °3", 12)
    assert list(archive.events[0].vitals) == [*VITALS, "EtCO2"]
    assert archive.events[0].vitals["HR"].extras == {"site": "finger"}


@pytest.mark.parametrize("options", [{"libver": "latest"}, {"userblock_size": 512}, {"track_order": True}])
def test_other_ways_to_lay_out_the_same_content(options: dict[str, object]) -> None:
    raw = archive_bytes("v3", num_events=1)
    buffer = io.BytesIO()
    with h5py.File(io.BytesIO(raw)) as source, h5py.File(buffer, "w", **options) as target:
        for name in source:
            source.copy(name, target)
    archive, expected = read(buffer.getvalue()), read(raw)

    assert archive.status == "ok"
    assert archive.metadata == expected.metadata
    assert archive.events[0].vitals == expected.events[0].vitals
    np.testing.assert_array_equal(
        archive.events[0].leads["vVX"].samples, expected.events[0].leads["vVX"].samples
    )
