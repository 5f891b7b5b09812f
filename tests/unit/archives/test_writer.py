"""The written schema, looked at with h5py alone."""

import io
import json

import h5py
import numpy as np
import pytest

from rmsai_ray.archives.records import Event, Signal, Vital
from rmsai_ray.archives.writer import write_archive


def make_event(event_id: str = "event_1001", **changes: object) -> Event:
    rng = np.random.default_rng(5)
    fields: dict[str, object] = {
        "event_id": event_id,
        "uuid": "6f1c",
        "time_s": 1_790_000_000.5,
        "condition": "Normal",
        "heart_rate_bpm": 71.3,
        "leads": {"ECG2": Signal(samples=rng.standard_normal(2400), fs=200.0)},
        "ppg": Signal(samples=rng.standard_normal(900), fs=75.0),
        "resp": Signal(samples=rng.standard_normal(399), fs=33.33),
        "vitals": {
            "Temp": Vital(value=98.6, units="°F", time_s=1.5, lower_threshold=96.0, upper_threshold=100.4),
            "HR": Vital(value=71.0, units="bpm", history=((1.0, 70.0), (2.0, 72.0)), extras={"note": "x"}),
            "SpO2": Vital(value=None, units="%"),
        },
        "pacer_info": 2,
        "pacer_offset": 17,
        "ecg_extras": {"fiducials": {"R": [3, None]}},
    }
    return Event(**(fields | changes))  # type: ignore[arg-type]


def opened(events: list[Event], **options: object) -> h5py.File:
    return h5py.File(io.BytesIO(write_archive(events, patient_id="PT0042", **options)))  # type: ignore[arg-type]


def test_metadata_has_upstreams_types() -> None:
    metadata = opened([make_event()])["metadata"]
    assert metadata["patient_id"].dtype == "S6"
    assert metadata["device_info"].dtype == "S20"
    assert metadata["max_vital_history"].dtype == np.int64
    floats = set(metadata) - {"patient_id", "device_info", "max_vital_history"}
    assert len(floats) == 8
    assert all(metadata[name].dtype == np.float64 and metadata[name].shape == () for name in floats)
    assert metadata["alarm_time_epoch"][()] == 1_790_000_000.5


def test_metadata_can_be_replaced_extended_and_left_out() -> None:
    metadata = opened(
        [make_event()], metadata={"device_info": "M", "max_vital_history": None, "source": "s"}
    )["metadata"]
    assert metadata["device_info"][()] == b"M"
    assert metadata["source"][()] == b"s"
    assert "max_vital_history" not in metadata


def test_waveforms_have_upstreams_storage() -> None:
    event = make_event()
    group = opened([event])["event_1001"]
    ecg, ppg, resp = group["ecg/ECG2"], group["ppg/PPG"], group["resp/RESP"]
    assert (ecg.dtype, ecg.shape, ecg.chunks) == (np.float64, (2400,), (1200,))
    assert (ppg.dtype, ppg.shape) == (np.float64, (900,))
    assert (resp.dtype, resp.shape) == (np.float32, (399,))
    assert {(d.compression, d.compression_opts) for d in (ecg, ppg, resp)} == {("gzip", 4)}
    np.testing.assert_array_equal(ecg[()], event.leads["ECG2"].samples)


def test_event_fields() -> None:
    group = opened([make_event()])["event_1001"]
    assert dict(group.attrs) == {
        "condition": "Normal",
        "heart_rate": 71.3,
        "event_timestamp": 1_790_000_000.5,
        "uuid": "6f1c",
    }
    assert group["timestamp"][()] == 1_790_000_000.5
    assert h5py.check_string_dtype(group["uuid"].dtype).encoding == "utf-8"
    assert json.loads(group["ecg/extras"][()]) == {
        "pacer_info": 2,
        "pacer_offset": 17,
        "fiducials": {"R": [3, None]},
    }


def test_vitals() -> None:
    vitals = opened([make_event()])["event_1001/vitals"]
    assert set(vitals) == {"Temp", "HR"}, "a vital without value cannot be written"
    assert vitals["HR/value"].dtype == np.int64
    assert vitals["Temp/value"].dtype == np.float64
    assert vitals["Temp/units"][()] == "°F".encode()
    assert h5py.check_string_dtype(vitals["Temp/units"].dtype).encoding == "ascii"
    extras = vitals["HR/extras"][()].decode()
    assert json.loads(extras)["history"] == [{"value": 70, "timestamp": 1.0}, {"value": 72, "timestamp": 2.0}]
    assert '"value": 70,' in extras, "integers stay integers"
    assert json.loads(vitals["Temp/extras"][()]) == {
        "upper_threshold": 100.4,
        "lower_threshold": 96.0,
        "history": [],
    }


def test_what_an_event_lacks_is_not_written() -> None:
    event = make_event(
        ppg=None, resp=None, vitals={}, heart_rate_bpm=None, time_s=None, pacer_info=None, ecg_extras={}
    )
    group = opened([event])["event_1001"]
    assert set(group) == {"ecg", "uuid"}
    assert "heart_rate" not in group.attrs


def test_same_input_same_bytes() -> None:
    events = [make_event(f"event_{1001 + i}") for i in range(3)]
    first, second = (write_archive(events, patient_id="PT0042") for _ in range(2))
    assert first == second
    assert first != write_archive(events[:2], patient_id="PT0042")


def test_mixed_sampling_rates_are_refused() -> None:
    leads = {name: Signal(samples=np.zeros(10), fs=fs) for name, fs in (("ECG1", 200.0), ("ECG2", 250.0))}
    with pytest.raises(ValueError, match="several sampling rates"):
        write_archive([make_event(leads=leads)], patient_id="PT0042")
