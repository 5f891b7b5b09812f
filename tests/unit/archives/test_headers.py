"""Text attributes are found wherever HDF5 puts them, and nowhere in damaged headers."""

from __future__ import annotations

import io

import h5py
import pytest

from rmsai_ray.archives.hdf5 import open_archive
from rmsai_ray.archives.headers import DamagedHeaderError, attribute_offset
from rmsai_ray.archives.limits import Budget


def file_with_attributes(num_texts: int, **options: object) -> bytes:
    """A group with texts ``t0`` … and as many numbers."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        group = file.create_group("group")
        for i in range(num_texts):
            group.attrs[f"t{i}"] = f"text ° {i}"
            group.attrs.create(f"a{i}", b"ascii", dtype=h5py.string_dtype("ascii"))
            group.attrs[f"n{i}"] = i
    return buffer.getvalue()


@pytest.mark.parametrize("userblock_size", [0, 512, 2048])
@pytest.mark.parametrize("track_order", [False, True])
@pytest.mark.parametrize(
    ("libver", "num_texts"), [("earliest", 1), ("earliest", 40), ("latest", 1), ("latest", 2)]
)
def test_every_header_that_h5py_writes(
    libver: str, num_texts: int, track_order: bool, userblock_size: int
) -> None:
    raw = file_with_attributes(
        num_texts, libver=libver, track_order=track_order, userblock_size=userblock_size
    )
    expected: dict[str, object] = {f"t{i}": f"text ° {i}" for i in range(num_texts)}
    expected |= {f"a{i}": "ascii" for i in range(num_texts)} | {f"n{i}": i for i in range(num_texts)}

    with open_archive(raw, Budget(len(raw))) as root:
        group = root.group("group")
        assert group is not None
        assert group.attributes() == expected


def test_texts_outside_the_header_are_not_read_and_numbers_are() -> None:
    with open_archive(file_with_attributes(9, libver="latest"), Budget(0)) as root:
        group = root.group("group")
        assert group is not None
        assert group.attributes() == {f"n{i}": i for i in range(9)}


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_header_that_continues_in_itself_ends(libver: str) -> None:
    raw = bytearray(file_with_attributes(2, libver=libver))
    with h5py.File(io.BytesIO(raw)) as file:
        header = h5py.h5o.get_info(file["group"].id).addr
    if libver == "earliest":
        block, message = header + 16, (0x10).to_bytes(2, "little") + (16).to_bytes(2, "little") + bytes(4)
        raw[block : block + 24] = message + block.to_bytes(8, "little") + (24).to_bytes(8, "little")
    else:
        flags = raw[header + 5]
        block = header + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0) + (1 << (flags & 3))
        message = b"\x10" + (16).to_bytes(2, "little") + bytes(3 if flags & 4 else 1)
        body = (block - 4).to_bytes(8, "little") + (len(message) + 24).to_bytes(8, "little")
        raw[block : block + len(message) + 16] = message + body

    assert attribute_offset(bytes(raw), 0, header, b"missing") is None


@pytest.mark.parametrize("address", [-1, 10**6, 10**30])
def test_an_address_outside_the_file(address: int) -> None:
    with pytest.raises(DamagedHeaderError):
        attribute_offset(file_with_attributes(1), 0, address, b"t0")
