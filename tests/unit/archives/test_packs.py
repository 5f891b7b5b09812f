"""A pack is an HDF5 file with an index before it; what it holds is listed and read as archives of its own."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from rmsai_ray.archives import packs
from rmsai_ray.archives.packing import content_of, identical
from rmsai_ray.archives.reader import read_archive
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.archives.sources import ObjectStoreSource, open_source
from rmsai_ray.errors import ArchiveError, StorageError
from rmsai_ray.ids import archive_id
from rmsai_ray.storage import Store

RAWS = {f"ward/{name}": raw for name, raw in (simulate_archive(patient, 2, seed=5) for patient in range(3))}
BROKEN = {"junk.h5": b"no archive at all", "empty.h5": b""}
PACK = packs.build_pack([content_of(name, raw, f"e{name}")[0] for name, raw in (RAWS | BROKEN).items()])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.pack.h5").write_bytes(PACK)
    (tmp_path / "loose.h5").write_bytes(next(iter(RAWS.values())))
    return tmp_path


def test_any_hdf5_tool_sees_a_block_per_lead() -> None:
    name, raw = next(iter(RAWS.items()))
    with h5py.File(io.BytesIO(PACK)) as pack, h5py.File(io.BytesIO(raw)) as archive:
        assert pack[name].attrs["archive_id"] == archive_id(raw)
        found: dict[str, h5py.Dataset] = {}
        pack[name].visititems(lambda path, node: found.update({path.partition("/")[2]: node}))
        block = found["ecg/aVR"]
        assert (block.shape, block.dtype, block.chunks) == ((2, 2400), np.float64, None)
        assert np.array_equal(block[1], archive["event_1002/ecg/aVR"][:])


def test_the_same_archives_give_the_same_pack() -> None:
    again = packs.build_pack([content_of(name, raw, f"e{name}")[0] for name, raw in (RAWS | BROKEN).items()])
    assert again == PACK


def test_the_index_says_what_was_packed_and_where() -> None:
    start = PACK[: packs.index_bytes(PACK[:64])]
    index = packs.read_index(start, len(PACK))
    assert {name: (m.archive_id, m.size, m.etag) for name, m in index.items()} == {
        name: (archive_id(raw), len(raw), f"e{name}") for name, raw in (RAWS | BROKEN).items()
    }
    junk = index["junk.h5"]
    assert PACK[junk.start : junk.start + junk.num_bytes] == BROKEN["junk.h5"]


def test_members_are_listed_as_archives(folder: Path) -> None:
    found = {ref.key: ref for ref in open_source(str(folder)).list_archives()}
    assert found.keys() == {"loose.h5", *(f"sub/a.pack.h5#{name}" for name in RAWS | BROKEN)}
    for name, raw in RAWS.items():
        ref = found[f"sub/a.pack.h5#{name}"]
        assert (ref.uri, ref.size, ref.etag) == (f"{folder}/sub/a.pack.h5#{name}", len(raw), archive_id(raw))


@pytest.mark.parametrize("place", ["", "/sub", "/sub/a.pack.h5"])
def test_members_read_as_archives(folder: Path, place: str) -> None:
    source = open_source(f"{folder}{place}")
    for ref in source.list_archives():
        name = packs.archive_name(ref.uri)
        if name in RAWS:
            expected = read_archive(RAWS[name], name)
            assert identical(read_archive(source.read(ref.uri), ref.uri), expected)
        elif name in BROKEN:
            assert source.read(ref.uri) == BROKEN[name]


def test_one_member_is_a_source_too(folder: Path) -> None:
    uri = f"{folder}/sub/a.pack.h5#{next(iter(RAWS))}"
    source = open_source(uri)
    assert [ref.uri for ref in source.list_archives()] == [uri]
    assert read_archive(source.read(uri), uri).stem == "PT0000_2026-10"
    with pytest.raises(StorageError, match=r"a.pack.h5#gone.h5: the pack has no archive"):
        source.read(f"{folder}/sub/a.pack.h5#gone.h5")


def damaged(change: Callable[[bytearray], object]) -> bytes:
    pack = bytearray(PACK)
    change(pack)
    return bytes(pack)


DAMAGE: dict[str, bytes] = {
    "empty": b"",
    "cut in the head": PACK[:10],
    "cut in the index": PACK[:200],
    "cut in the archives": PACK[:-5000],
    "no pack": b"x" * 1000,
    "length of the index": damaged(lambda pack: pack.__setitem__(slice(16, 24), b"\xff" * 8)),
    "no JSON": damaged(lambda pack: pack.__setitem__(24, 0)),
    "place": PACK.replace(b'",', b'",9', 3),
}


@pytest.mark.parametrize("kind", sorted(DAMAGE))
def test_a_damaged_pack_is_one_archive_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.pack.h5").write_bytes(DAMAGE[kind])
    source = open_source(str(tmp_path))
    (ref,) = source.list_archives()
    assert (ref.key, ref.size) == ("a.pack.h5", len(DAMAGE[kind]))
    with pytest.raises(ArchiveError):
        read_archive(source.read(ref.uri), ref.uri)


def test_a_long_index_is_read_with_two_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "USUAL_INDEX_BYTES", 100)
    (tmp_path / "a.pack.h5").write_bytes(PACK)
    assert len(list(open_source(str(tmp_path)).list_archives())) == len(RAWS | BROKEN)


def test_listing_a_pack_fetches_its_index_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pack.h5").write_bytes(PACK)
    reads: list[int] = []
    get_range = Store.get_range

    def counted(store: Store, key: str, start: int, num_bytes: int) -> bytes:
        content = get_range(store, key, start, num_bytes)
        reads.append(len(content))
        return content

    monkeypatch.setattr(Store, "get_range", counted)
    monkeypatch.setattr(Store, "get", None)
    assert len(list(ObjectStoreSource(str(tmp_path)).list_archives())) == len(RAWS | BROKEN)
    assert reads == [packs.USUAL_INDEX_BYTES]
