"""Every deliberately broken archive gets the verdict that it was made for."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from rmsai_ray.archives.broken import BrokenArchive, broken_archives
from rmsai_ray.archives.problems import PROBLEMS
from rmsai_ray.archives.validate import validate
from rmsai_ray.ids import archive_id
from rmsai_ray.signals.quality import assess
from tests.both_ways import read_archive

KINDS = [
    "empty", "not_hdf5", "truncated", "half_written", "no_events", "no_patient", "external_link",
    "external_storage", "virtual_dataset", "huge_shape", "missing_metadata", "wrong_patient", "wrong_rate",
    "no_leads", "missing_lead", "corrupt_chunk", "short_event", "nan", "all_nan", "raw_counts", "bad_json",
    "missing_uuid", "missing_time", "missing_condition", "missing_vitals", "missing_ppg", "flat_lead",
    "clipped",
]  # fmt: skip


@cache
def broken() -> dict[str, BrokenArchive]:
    return broken_archives()


def test_the_kinds_are_all_there_and_all_different() -> None:
    assert list(broken()) == KINDS
    assert len({archive_id(item.content) for item in broken().values()}) == len(KINDS)
    assert len({item.file_name for item in broken().values()}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_verdict(kind: str) -> None:
    item = broken()[kind]
    verdict = validate(item.content, item.file_name)
    codes = {problem.code for problem in verdict.problems}
    assert verdict.status == item.status
    assert codes == ({item.code} if item.code else set())
    assert codes <= set(PROBLEMS)


@pytest.mark.parametrize("kind", ["nan", "flat_lead", "clipped"])
def test_quality_shows_what_the_format_does_not(kind: str) -> None:
    item = broken()[kind]
    event = read_archive(item.content, item.file_name).events[0]
    x_NT = np.asarray(event.leads["ECG2"].samples)[None, :]
    quality = assess(x_NT, np.array([x_NT.shape[1]]), 200.0, "mV")
    assert item.quality_flag in quality.flag_names()[0]


def test_what_is_broken_costs_no_more_than_it_must() -> None:
    for kind in KINDS:
        item = broken()[kind]
        if item.status != "fatal":
            archive = read_archive(item.content, item.file_name)
            assert len(archive.events) == (1 if kind == "no_leads" else 2)


def test_the_external_file_is_never_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("other.h5", "other.bin"):
        Path(name).write_bytes(b"secret" * 10_000)
    for kind in ("external_link", "external_storage", "virtual_dataset"):
        assert validate(broken()[kind].content, "PT1_2026-10.h5").status == "fatal"
