"""Untrusted bytes: nothing outside them is touched, nothing large is allocated, nothing else is raised."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest

from rmsai_ray.archives.hdf5 import open_archive
from rmsai_ray.archives.headers import attribute_offset
from rmsai_ray.archives.limits import Budget
from rmsai_ray.archives.problems import PROBLEMS
from rmsai_ray.archives.reader import ReadOptions
from rmsai_ray.errors import ArchiveError
from tests.both_ways import read_archive
from tests.upstream_files import archive_bytes, edited, replace

NAME = "PT1234_2025-09.h5"


@cache
def one_event() -> bytes:
    return archive_bytes("v3", num_events=1)


def reason(raw: bytes) -> str:
    with pytest.raises(ArchiveError) as caught:
        read_archive(raw, NAME)
    assert PROBLEMS[caught.value.reason].costs == "archive"
    return caught.value.reason


def first_event_codes(raw: bytes) -> list[str]:
    (event,) = read_archive(raw, NAME).events
    return [found.code for found in event.problems]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Another archive, and a binary file, that an archive from outside must not reach."""
    path = tmp_path / "secret.h5"
    path.write_bytes(one_event())
    (tmp_path / "secret.bin").write_bytes(np.ones(2400).tobytes())
    return path


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "empty_object"),
        (b"not an archive at all" * 100, "not_hdf5"),
        (b"\x89HDF", "not_hdf5"),
        (b"\x89HDF\r\n\x1a\n" + bytes(2000), "corrupt"),
    ],
)
def test_what_is_no_archive(raw: bytes, expected: str) -> None:
    assert reason(raw) == expected


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_truncated_file(share: float) -> None:
    raw = one_event()
    assert reason(raw[: int(share * len(raw))]) == "truncated"


def test_a_file_of_full_length_that_was_written_half() -> None:
    raw = one_event()
    half = len(raw) // 2
    assert reason(raw[:half] + bytes(len(raw) - half)) == "corrupt"


def test_a_file_without_events() -> None:
    assert reason(edited(one_event(), lambda file: file.pop("event_1001"))) == "no_events"


def test_links_out_of_the_file_are_refused(secret: Path) -> None:
    def external(file: h5py.File) -> None:
        del file["event_1001/ecg/ECG1"]
        file["event_1001/ecg/ECG1"] = h5py.ExternalLink(str(secret), "/event_1001/ecg/ECG1")

    def event_elsewhere(file: h5py.File) -> None:
        file["event_1002"] = h5py.ExternalLink(str(secret), "/event_1001")

    def soft_through_external(file: h5py.File) -> None:
        file["door"] = h5py.ExternalLink(str(secret), "/")
        del file["event_1001/vitals/HR"]
        file["event_1001/vitals/HR"] = h5py.SoftLink("/door/event_1001/vitals/HR")

    for change in (external, event_elsewhere, soft_through_external):
        assert reason(edited(one_event(), change)) == "external_data"


def test_virtual_and_external_storage_are_refused(secret: Path) -> None:
    def virtual(file: h5py.File, name: str = "event_1001/ecg/ECG1") -> None:
        del file[name]
        shape = (2400,) if "ecg" in name else ()
        layout = h5py.VirtualLayout(shape=shape, dtype="f8")
        layout[...] = h5py.VirtualSource(str(secret), name, shape=shape)
        file.create_virtual_dataset(name, layout)

    def growing_virtual(file: h5py.File) -> None:
        del file["event_1001/ecg/ECG1"]
        layout = h5py.VirtualLayout(shape=(2400,), dtype="f8", maxshape=(None,))
        source = h5py.VirtualSource(str(secret), "event_1001/ecg/ECG1", shape=(2400,), maxshape=(None,))
        layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
        file.create_virtual_dataset("event_1001/ecg/ECG1", layout)

    def external(file: h5py.File) -> None:
        del file["event_1001/ecg/ECG1"]
        where = [(str(secret.with_suffix(".bin")), 0, 19200)]
        file.create_dataset("event_1001/ecg/ECG1", (2400,), "f8", external=where)

    for change in (virtual, growing_virtual, external):
        assert reason(edited(one_event(), change)) == "external_data"


@pytest.mark.parametrize(
    "options", [{"chunks": (1 << 20,), "compression": "gzip"}, {"chunks": (1 << 28,)}, {}]
)
def test_a_huge_declared_shape_is_refused_before_anything_is_allocated(options: dict[str, object]) -> None:
    def change(file: h5py.File) -> None:
        del file["event_1001/ecg/ECG1"]
        dataset = file["event_1001/ecg"].create_dataset("ECG1", (1 << 34,), "f8", **options)
        if options.get("compression"):
            dataset.id.write_direct_chunk((0,), zlib.compress(b"x"))

    raw = edited(one_event(), change)
    assert reason(raw) == "oversized"
    assert peak_bytes(lambda: reason(raw)) < 100 << 20


def test_many_large_leads_are_refused_together() -> None:
    def change(file: h5py.File) -> None:
        zeros = zlib.compress(bytes(32 << 20), 1)
        for lead in ("ECG1", "ECG2", "aVR", "aVL"):
            del file[f"event_1001/ecg/{lead}"]
            dataset = file["event_1001/ecg"].create_dataset(
                lead, (4 << 20,), "f8", chunks=(4 << 20,), compression="gzip"
            )
            dataset.id.write_direct_chunk((0,), zeros)

    raw = edited(one_event(), change)
    assert len(raw) < 1 << 20
    assert reason(raw) == "oversized"


def test_a_chunk_that_inflates_beyond_its_size_is_stopped() -> None:
    bomb = zlib.compress(bytes(64 << 20), 1)

    def change(file: h5py.File) -> None:
        del file["event_1001/ecg/ECG1"]
        dataset = file["event_1001/ecg"].create_dataset(
            "ECG1", (2400,), "f8", chunks=(2400,), compression="gzip"
        )
        dataset.id.write_direct_chunk((0,), bomb)

    raw = edited(one_event(), change)
    assert first_event_codes(raw) == ["unreadable_lead"]
    assert peak_bytes(lambda: first_event_codes(raw)) < 32 << 20


@pytest.mark.parametrize(
    "chunk", [b"", b"no zlib stream", zlib.compress(bytes(9599)), zlib.compress(bytes(9601))]
)
def test_a_damaged_chunk_costs_its_lead(chunk: bytes) -> None:
    def change(file: h5py.File) -> None:
        file["event_1001/ecg/ECG3"].id.write_direct_chunk((1200,), chunk or bytes(1))

    assert first_event_codes(edited(one_event(), change)) == ["unreadable_lead"]


def test_references_are_not_followed() -> None:
    def change(file: h5py.File) -> None:
        replace(file["event_1001/vitals/HR"], "value", file["event_1001"].ref, dtype=h5py.ref_dtype)
        references = np.array([file["event_1001"].ref] * 2400, dtype=h5py.ref_dtype)
        replace(file["event_1001/ecg"], "ECG1", references)

    assert first_event_codes(edited(one_event(), change)) == ["unreadable_lead", "incomplete_vital"]


def test_a_link_back_to_the_root_is_harmless() -> None:
    def change(file: h5py.File) -> None:
        file["event_1001/vitals/loop"] = file["/"]

    (event,) = read_archive(edited(one_event(), change), NAME).events
    assert event.vitals["loop"].value is None


def test_texts_of_every_kind() -> None:
    values = {
        "fixed": np.bytes_("bed 7"),
        "utf8": "°F",
        "ascii flag": np.array("°F".encode(), dtype=h5py.string_dtype("ascii")),
        "fixed utf8": np.array("°F".encode(), dtype=h5py.string_dtype("utf-8", 3)),
        "empty": "",
        "latin": np.bytes_(b"\xb0F"),
    }

    def change(file: h5py.File) -> None:
        for name, value in values.items():
            file["metadata"][name] = value
            file["metadata"].attrs[f"@{name}"] = value

    metadata = read_archive(edited(one_event(), change), NAME).metadata
    expected = {
        "fixed": "bed 7",
        "utf8": "°F",
        "ascii flag": "°F",
        "fixed utf8": "°F",
        "empty": "",
        "latin": "\ufffdF",
    }
    assert {name: metadata[name] for name in values} == expected
    assert {name: metadata[f"@{name}"] for name in values} == expected


def test_numbers_of_every_kind() -> None:
    values = {
        "flag": True,
        "small": np.int8(-3),
        "large": np.uint32(4_000_000_000),
        "single": np.float32(0.5),
    }

    def change(file: h5py.File) -> None:
        for name, value in values.items():
            file["metadata"][name] = value

    metadata = read_archive(edited(one_event(), change), NAME).metadata
    assert {name: metadata[name] for name in values} == {
        "flag": True,
        "small": -3,
        "large": 4_000_000_000,
        "single": 0.5,
    }
    assert metadata["flag"] is True


def test_a_heap_that_would_make_the_library_loop_costs_its_texts() -> None:
    raw = bytearray(one_event())
    with h5py.File(io.BytesIO(raw)) as file:
        offset = file["event_1001/vitals/SpO2/extras"].id.get_offset()
    (heap,) = struct.unpack_from("<Q", raw, offset + 4)
    raw[heap + 16 : heap + 32] = bytes(16)  # an object of size 0: HDF5 never gets past it
    codes = first_event_codes(bytes(raw))
    assert codes
    assert set(codes) <= {"bad_json", "incomplete_vital"}


def test_a_text_longer_than_its_heap_object_is_not_read() -> None:
    raw = bytearray(one_event())
    with h5py.File(io.BytesIO(raw)) as file:
        offset = file["event_1001/vitals/HR/units"].id.get_offset()
    struct.pack_into("<I", raw, offset, 0xFFFF_FFF0)
    assert first_event_codes(bytes(raw)) == ["incomplete_vital"]


def test_a_text_attribute_longer_than_its_heap_object_is_not_read() -> None:
    raw = one_event()
    with h5py.File(io.BytesIO(raw)) as file:
        header = h5py.h5o.get_info(file["event_1001"].id).addr
    offset = attribute_offset(raw, 0, header, b"condition")
    assert offset is not None
    spoiled = bytearray(raw)
    struct.pack_into("<I", spoiled, offset, 0x7FFF_FFF0)
    assert first_event_codes(bytes(spoiled)) == ["missing_condition"]


def test_damaged_bytes_give_an_archive_or_an_archive_error() -> None:
    raw = one_event()
    outcomes = set()
    for seed in range(60):
        rng = random.Random(seed)
        spoiled = bytearray(raw)
        for _ in range(rng.choice((1, 10, 100, 1000))):
            spoiled[rng.randrange(len(spoiled))] = rng.randrange(256)
        outcomes.add(outcome(bytes(spoiled)))
    assert {"degraded", "corrupt"} <= outcomes <= {"ok", "degraded", *PROBLEMS}


def outcome(raw: bytes) -> str:
    try:
        return read_archive(raw, NAME, options=ReadOptions(waveforms=True)).status
    except ArchiveError as error:
        return error.reason


def test_a_group_lists_its_links() -> None:
    with open_archive(one_event(), Budget(0)) as root:
        assert root.names == ["event_1001", "metadata"]
        assert "metadata" in root
        assert root.group("nothing") is None
        assert root.dataset("nothing") is None


def peak_bytes(work: Callable[[], object]) -> int:
    """Most memory that Python and numpy held at once."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak
