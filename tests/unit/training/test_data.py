"""Windows for training: which are normal, what is left out, and that patients stay together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rmsai_ray.archives.records import Event, Signal
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.archives.writer import write_archive
from rmsai_ray.errors import ConfigError
from rmsai_ray.models.profiles import PROFILES
from rmsai_ray.signals.leads import LEADS
from rmsai_ray.training.data import read_training_data
from rmsai_ray.training.splits import split_by_patient

LONG, SHORT = PROFILES["framed-2400x64"], PROFILES["rmsai-140x128"]


def write(folder: Path, name: str, content: bytes) -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return str(folder)


def event(
    number: int, signal: np.ndarray, *, condition: str = "Normal", fs: float = 200.0, **extras: object
) -> Event:
    return Event(
        event_id=f"event_{number}",
        uuid=f"00000000-0000-4000-8000-{number:012d}",
        time_s=1.7e9 + number,
        condition="Normal",
        heart_rate_bpm=70.0,
        leads={"ECG2": Signal(samples=signal, fs=fs)},
        ecg_extras=dict(extras),
    )


def archive(folder: Path, patient: str, events: list[Event]) -> str:
    return write(folder, f"{patient}_2026-01.h5", write_archive(events, patient_id=patient, metadata={}))


@pytest.fixture
def wave() -> np.ndarray:
    return np.sin(np.arange(2400) / 20.0)


def test_simulated_archives_give_all_leads_and_know_what_is_normal(tmp_path: Path) -> None:
    uri = write(tmp_path / "a", *simulate_archive(0, 5, seed=1))
    data = read_training_data([uri], LONG)
    windows = data.windows
    assert len(windows) == 5 * 7
    assert sorted(set(windows.leads_N)) == sorted(LEADS)
    assert (windows.is_normal_N == (windows.conditions_N == "Normal")).all()
    assert windows.is_normal_N.sum() == 7
    assert data.patients_by_source == {uri: ("PT0000",)}
    assert data.left_out == {}


def test_a_window_with_an_abnormal_beat_is_not_normal(tmp_path: Path, wave: np.ndarray) -> None:
    beats = {"samples": [100, 500, 900], "symbols": ["N", "V", "L"], "rhythms": [[0, "N"]]}
    uri = archive(tmp_path / "a", "PT0001", [event(1001, wave, annotations=beats)])
    windows = read_training_data([uri], SHORT).windows
    starts = np.append(np.arange(0, 2261, 70), 2260)
    holds_beat = (starts <= 500) & (starts + 140 > 500)
    assert holds_beat.sum() == 2
    assert (windows.is_normal_N == ~holds_beat).all()


def test_a_window_that_touches_another_rhythm_is_not_normal(tmp_path: Path, wave: np.ndarray) -> None:
    rhythms = [[0, "AFIB"], [130, "N"], [1000, "SBR"], [1200, "N"]]
    beats = {"samples": [100], "symbols": ["N"], "rhythms": rhythms}
    uri = archive(tmp_path / "a", "PT0001", [event(1001, wave, annotations=beats)])
    windows = read_training_data([uri], SHORT).windows
    starts = np.append(np.arange(0, 2261, 70), 2260)
    touches = (starts < 130) | ((starts < 1200) & (starts + 140 > 1000))
    assert (windows.is_normal_N == ~touches).all()


def test_beats_are_found_at_the_rate_of_the_archive(tmp_path: Path, wave: np.ndarray) -> None:
    beats = {"samples": [1000], "symbols": ["V"], "rhythms": []}
    slow = event(1001, wave, fs=400.0, annotations=beats)  # 6 s; the beat is at 2.5 s, sample 500 at 200 Hz
    uri = archive(tmp_path / "a", "PT0001", [slow])
    windows = read_training_data([uri], SHORT).windows
    assert np.flatnonzero(~windows.is_normal_N).tolist() == [6, 7]  # starts 420 and 490


def test_what_cannot_be_used_is_counted(tmp_path: Path, wave: np.ndarray) -> None:
    gappy = wave.copy()
    gappy[:200] = np.nan
    folder = tmp_path / "a"
    uri = archive(folder, "PT0001", [event(1001, wave), event(1002, gappy), event(1003, wave * 1e-4)])
    write(folder, "broken.h5", b"not HDF5")
    data = read_training_data([uri], LONG)
    assert len(data.windows) == 1
    assert data.left_out == {"not_hdf5": 1, "missing_samples": 1, "flat": 1}


def test_the_same_archive_twice_counts_once_and_names_do_not_matter(tmp_path: Path) -> None:
    name, content = simulate_archive(0, 1, seed=1)
    one = write(tmp_path / "one", name, content)
    two = write(tmp_path / "two", name, content)
    write(tmp_path / "two", "PT0000_2026-11.h5", content)
    assert len(read_training_data([one, two], LONG).windows) == 7
    assert read_training_data([one], LONG).data_hash == read_training_data([two], LONG).data_hash


def test_no_window_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ConfigError, match="no window"):
        read_training_data([str(tmp_path / "a")], LONG)
    uri = write(tmp_path / "a", *simulate_archive(0, 1, seed=1))
    with pytest.raises(ConfigError, match="no window"):
        read_training_data([uri], replace(LONG, leads=()))


def patients(**counts: int) -> Mapping[str, tuple[str, ...]]:
    return {source: tuple(f"{source}-{i}" for i in range(count)) for source, count in counts.items()}


def test_every_patient_is_in_one_part_and_every_source_in_all() -> None:
    sources = patients(icu=40, ptbxl=7, few=3)
    parts = split_by_patient(dict(sources), 42).to_json()
    everyone = [patient for part in parts.values() for patient in part]
    assert sorted(everyone) == sorted(patient for source in sources.values() for patient in source)
    for part in parts.values():
        assert {patient.partition("-")[0] for patient in part} == set(sources)
    counts = {part: sum(name.startswith("icu") for name in names) for part, names in parts.items()}
    assert counts == {"train": 28, "validation": 6, "test": 6}


def test_the_division_depends_on_the_seed_and_not_on_the_order() -> None:
    sources = dict(patients(icu=40))
    backwards = {"icu": tuple(reversed(sources["icu"]))}
    assert split_by_patient(sources, 1) == split_by_patient(backwards, 1)
    assert split_by_patient(sources, 1) != split_by_patient(sources, 2)


def test_a_patient_of_two_sources_is_in_one_part() -> None:
    first = dict(patients(icu=20))["icu"]
    both = split_by_patient({"icu": first, "again": tuple(reversed(first))}, 3)
    assert both == split_by_patient({"icu": first}, 3)


def test_patients_that_take_no_part_are_in_no_part_and_move_nobody_of_another_source() -> None:
    sources = dict(patients(icu=12, ward=9))
    absent = sources["icu"][:4]
    parts, whole = (split_by_patient(sources, 1, leave_out=names) for names in (absent, ()))
    placed = {name for names in parts.to_json().values() for name in names}
    assert placed == {*sources["icu"][4:], *sources["ward"]}
    for part, names in parts.to_json().items():
        assert {*names} & {*sources["ward"]} == {*whole.to_json()[part]} & {*sources["ward"]}


def test_too_few_patients_are_an_error() -> None:
    with pytest.raises(ConfigError, match="three patients"):
        split_by_patient(dict(patients(icu=2, other=1)), 1)
