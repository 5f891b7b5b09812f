"""Texts are found in heaps that add up, and reading ends in those that do not."""

from __future__ import annotations

import struct
import time

import pytest

from rmsai_ray.archives.heaps import REFERENCE_BYTES, DamagedHeapError, GlobalHeaps
from rmsai_ray.archives.limits import Budget


def heap(*objects: tuple[int, bytes], size: int = 4096) -> bytes:
    """A heap with these (number, content); the rest of it is free."""
    content = b"".join(
        struct.pack("<HH4xQ", number, 1, len(text)) + text + bytes(-len(text) % 8) for number, text in objects
    )
    free = struct.pack("<HH4xQ", 0, 0, size - 16 - len(content))
    return (b"GCOL\x01\0\0\0" + struct.pack("<Q", size) + content + free).ljust(size, b"\0")


def reference(length: int, address: int, number: int) -> bytes:
    return struct.pack("<IQI", length, address, number)


def read(raw: bytes, reference_bytes: bytes, base: int = 0) -> bytes:
    return GlobalHeaps(raw + reference_bytes, base, Budget(0)).text(len(raw))


def test_texts_of_several_heaps() -> None:
    first, second = heap((1, b"bpm"), (2, b"mmHg")), heap((1, b"%"), size=8192)
    raw = bytes(100) + first + bytes(50) + second

    assert read(raw, reference(4, 100, 2)) == b"mmHg"
    assert read(raw, reference(1, 100 + 4096 + 50, 1)) == b"%"
    assert read(raw, reference(0, 0, 0)) == b""


def test_addresses_count_from_the_signature() -> None:
    assert read(bytes(512) + heap((1, b"bpm")), reference(3, 0, 1), base=512) == b"bpm"


def test_a_text_ends_at_its_first_zero() -> None:
    assert read(heap((1, b"bpm\0x")), reference(5, 0, 1)) == b"bpm"


@pytest.mark.parametrize(
    "bad", [reference(4, 0, 1), reference(3, 0, 7), reference(3, 8, 1), reference(1, 0, 0)]
)
def test_a_reference_that_leads_nowhere(bad: bytes) -> None:
    with pytest.raises(DamagedHeapError):
        read(heap((1, b"bpm")), bad)


def test_a_reference_outside_the_file() -> None:
    with pytest.raises(DamagedHeapError):
        GlobalHeaps(heap((1, b"bpm")), 0, Budget(0)).text(1 << 40)


@pytest.mark.parametrize("size", [0, 1, 1 << 63, (1 << 64) - 1])
def test_objects_before_a_damaged_one_are_still_read(size: int) -> None:
    raw = bytearray(heap((1, b"bpm"), (2, b"mmHg")))
    struct.pack_into("<HH4xQ", raw, 16 + 24, 0, 0, size)  # where the second object was

    assert read(bytes(raw), reference(3, 0, 1)) == b"bpm"
    with pytest.raises(DamagedHeapError):
        read(bytes(raw), reference(4, 0, 2))


def test_a_file_full_of_heaps_inside_heaps_takes_one_pass() -> None:
    nested = (b"GCOL\x01\0\0\0" + struct.pack("<Q", 1 << 40)) * 40_000
    padding = struct.pack("<HH4xQ", 1, 1, 0) * 40_000
    references = b"".join(reference(1, 16 * i, 7) for i in range(40_000))
    raw = nested + padding + references
    started = time.process_time()
    heaps = GlobalHeaps(raw, 0, Budget(len(raw)))
    for offset in range(len(nested) + len(padding), len(raw), REFERENCE_BYTES):
        with pytest.raises(DamagedHeapError):
            heaps.text(offset)
    assert time.process_time() - started < 4.0
