"""The direct way gives the library's answer or none, and takes the archives that h5py writes by default."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from functools import cache

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmsai_ray.archives.broken import broken_archives
from rmsai_ray.archives.reader import ReadOptions
from rmsai_ray.archives.records import Archive, Event, Signal
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.archives.writer import write_archive
from rmsai_ray.errors import ArchiveError
from rmsai_ray.signals.leads import LEADS
from tests.both_ways import read_archive
from tests.upstream_files import Variant, archive_bytes, edited, replace

NAME = "PT1234_2025-09.h5"
EVERYTHING = ReadOptions(waveforms=True)
VARIANTS: tuple[Variant, ...] = ("v1", "v2", "v3", "vdx")

few = settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
options = st.builds(
    ReadOptions,
    gain_mv_per_count=st.sampled_from([None, 0.0025]),
    vitals=st.booleans(),
    waveforms=st.booleans(),
)


@cache
def one_event() -> bytes:
    return archive_bytes("v3", num_events=1)


def direct(raw: bytes, options: ReadOptions = EVERYTHING) -> Archive:
    """What both ways read, the direct one without help."""
    archive = read_archive(raw, NAME, options=options)
    assert archive.detour is None
    return archive


def detour(raw: bytes) -> str:
    """Why the library had to read what it did read."""
    reason = read_archive(raw, NAME, options=EVERYTHING).detour
    assert reason is not None
    return reason


def changed(change: Callable[[h5py.Group], object]) -> bytes:
    return edited(one_event(), lambda file: change(file["event_1001"]))


@few
@given(patient=st.integers(0, 1000), num_events=st.integers(1, 3), seed=st.integers(0, 9), options=options)
def test_simulated_archives(patient: int, num_events: int, seed: int, options: ReadOptions) -> None:
    archive = direct(simulate_archive(patient, num_events, seed=seed)[1], options)
    assert len(archive.events) == num_events


@few
@given(
    variant=st.sampled_from(VARIANTS), num_events=st.integers(1, 3), seed=st.integers(0, 9), options=options
)
def test_archives_of_the_original_writers(
    variant: Variant, num_events: int, seed: int, options: ReadOptions
) -> None:
    assert direct(archive_bytes(variant, num_events=num_events, seed=seed), options).variant == variant


@few
@given(
    fs=st.sampled_from([100.0, 360.0, 500.0]),
    seconds=st.integers(1, 130),
    leads=st.sets(st.sampled_from(LEADS), min_size=1),
    bad_samples=st.integers(0, 3),
)
def test_imported_archives(fs: float, seconds: int, leads: set[str], bad_samples: int) -> None:
    samples = np.sin(np.arange(int(fs * seconds)) / 7.0)
    samples[:bad_samples] = (np.nan, np.inf, -np.inf)[:bad_samples]
    signals = {lead: Signal(samples=samples, fs=fs) for lead in leads}
    event = Event(
        event_id="event_1001", uuid="u", time_s=None, condition="AFIB", heart_rate_bpm=None, leads=signals,
        ecg_extras={"beats": [[0.5, "N"], [1.5, "V"]], "source": "some database, °"},
    )  # fmt: skip
    (found,) = direct(write_archive([event], patient_id="PT1234", metadata={"device_info": "°"})).events
    assert found.leads.keys() == leads


def test_what_is_unusual_but_of_the_known_layout() -> None:
    def change(group: h5py.Group) -> None:
        samples = group["ecg/ECG1"][()]
        replace(group["ecg"], "ECG1", samples, chunks=(100,), compression="gzip", shuffle=True)
        replace(group["ecg"], "ECG2", samples, track_times=True)
        replace(group["ecg"], "ECG3", samples.astype(np.float32), chunks=(2400,))
        replace(group["ecg"], "aVL", samples[:900], chunks=(400,), shuffle=True, maxshape=(None,))
        replace(group["ecg"], "aVF", np.arange(2400, dtype=np.int16), compression=1)
        group["ecg/aVR"].attrs["sampling_rate"] = 180.0
        replace(group["vitals/HR"], "value", np.float32(61.5))
        replace(group["vitals/Pulse"], "value", np.uint8(61))

    (event,) = direct(changed(change)).events
    assert len(event.leads) == 7
    assert event.leads["aVR"].fs == 180.0
    assert event.vitals["HR"].value == 61.5


def test_hundreds_of_events_make_a_tree_of_several_levels() -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["metadata/patient_id"] = np.bytes_("PT1234")
        for i in np.random.default_rng(0).permutation(700):
            file[f"event_{1001 + i}/ecg/ECG1"] = np.ones(3)
    assert len(direct(buffer.getvalue()).events) == 700


def test_broken_archives_take_the_library_only_where_they_are_useless() -> None:
    for item in broken_archives().values():
        if item.status == "fatal":
            with pytest.raises(ArchiveError) as caught:
                read_archive(item.content, item.file_name, options=EVERYTHING)
            assert caught.value.reason == item.code
        else:
            assert read_archive(item.content, item.file_name, options=EVERYTHING).detour is None


def test_other_layouts_take_the_library() -> None:
    def copied(**options: object) -> bytes:
        buffer = io.BytesIO()
        with h5py.File(io.BytesIO(one_event())) as old, h5py.File(buffer, "w", **options) as new:
            for name in old:
                old.copy(name, new)
        return buffer.getvalue()

    assert "superblock" in detour(copied(libver="latest"))
    assert "superblock" in detour(copied(userblock_size=512))
    assert "superblock" in detour(one_event() + b"something behind the end")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda event: replace(event["ecg"], "ECG1", np.ones(2400), fletcher32=True), "filter"),
        (lambda event: replace(event["ecg"], "ECG1", np.ones(2400), fillvalue=1.0), "type 4"),
        (lambda event: replace(event["ecg"], "ECG1", np.ones(2400), chunks=(10,)), "several levels"),
        (lambda event: replace(event["ecg"], "ECG1", np.ones((2, 1200))), "shape"),
        (lambda event: replace(event["ecg"], "ECG1", np.ones(2400, ">f8")), "number"),
        (lambda event: replace(event["vitals/HR"], "value", np.arange(3)), "no scalar"),
        (lambda event: replace(event["vitals/HR"], "value", event.ref, dtype=h5py.ref_dtype), "number"),
        (lambda event: event["ecg/ECG1"].attrs.update({"a": "x" * 99, "b": 1}), "type 16"),
        (lambda event: event.attrs.__setitem__("channels", [1, 2]), "attribute"),
        (lambda event: event["ecg"].__setitem__("again", event["ecg/ECG1"]), "header"),
        (lambda event: event["vitals/HR"].create_group("value2"), "no layout"),
    ],
)
def test_so_does_an_unusual_item(change: Callable[[h5py.Group], object], reason: str) -> None:
    assert reason in detour(changed(change))


def test_soft_links_and_references_into_the_void_are_not_taken_directly() -> None:
    raw = bytearray(one_event())
    with h5py.File(io.BytesIO(raw)) as file:
        offset = file["event_1001/vitals/HR/units"].id.get_offset()
    raw[offset + 4 : offset + 12] = b"\xff" * 8
    assert "heap" in detour(bytes(raw))
    with pytest.raises(ArchiveError) as caught:
        read_archive(changed(lambda event: event.__setitem__("soft", h5py.SoftLink("/metadata"))), NAME)
    assert caught.value.reason == "external_data"


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_wrong_byte_gets_the_library_s_answer(variant: Variant) -> None:
    raw = archive_bytes(variant, num_events=1)
    described = np.flatnonzero(~_samples(raw))
    rng = random.Random(variant)
    outcomes = set()
    for _ in range(60):
        place = int(rng.choice(described))
        spoiled = bytearray(raw)
        spoiled[place] = rng.choice((0, 1, 255, spoiled[place] ^ 1 << rng.randrange(8)))
        outcomes.add(outcome(bytes(spoiled)))
    assert {"direct", "library"} <= outcomes


def outcome(raw: bytes) -> str:
    try:
        return "library" if read_archive(raw, NAME, options=EVERYTHING).detour else "direct"
    except ArchiveError as error:
        return error.reason


def _samples(raw: bytes) -> np.ndarray:
    """Where a byte belongs to the samples, of which one is as good as any other; or to nothing."""
    covered = np.zeros(len(raw), bool)

    def visit(_: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset) and item.chunks:
            for i in range(item.id.get_num_chunks()):
                chunk = item.id.get_chunk_info(i)
                covered[chunk.byte_offset + 2 : chunk.byte_offset + chunk.size - 4] = True

    with h5py.File(io.BytesIO(raw)) as file:
        file.visititems(visit)
    zeros = np.frombuffer(raw, np.uint8) == 0
    covered[64:] |= np.convolve(zeros, np.ones(64), "full")[64 : len(raw)] == 64  # unused rests of blocks
    return covered
