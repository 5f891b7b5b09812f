"""Chunks come back as they were, or not at all; nobody allocates more than a file can hold."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from rmsai_ray.archives.chunks import (
    DEFLATE,
    LARGEST_CHUNK_BYTES,
    SHUFFLE,
    decode_chunk,
    inflate,
    unshuffle,
)
from rmsai_ray.archives.limits import FREE_ALLOWANCE, Budget
from rmsai_ray.archives.nodes import UnreadableError
from rmsai_ray.errors import ArchiveError

SAMPLES = np.sin(np.arange(100) / 9)
PLAIN = SAMPLES.tobytes()
SHUFFLED = np.frombuffer(PLAIN, np.uint8).reshape(-1, 8).T.tobytes()


@pytest.mark.parametrize(
    ("stored", "mask", "filters"),
    [
        (PLAIN, 0, ()),
        (zlib.compress(PLAIN), 0, (DEFLATE,)),
        (SHUFFLED, 0, (SHUFFLE,)),
        (zlib.compress(SHUFFLED), 0, (SHUFFLE, DEFLATE)),
        (zlib.compress(PLAIN), 0b01, (SHUFFLE, DEFLATE)),
        (SHUFFLED, 0b10, (SHUFFLE, DEFLATE)),
        (PLAIN, 0b11, (SHUFFLE, DEFLATE)),
        (zlib.compress(PLAIN) + b"what follows a stream is not its business", 0, (DEFLATE,)),
    ],
)
def test_filters_are_undone(stored: bytes, mask: int, filters: tuple[int, ...]) -> None:
    for content in (stored, memoryview(stored)):
        np.testing.assert_array_equal(decode_chunk(content, mask, filters, 100, SAMPLES.dtype), SAMPLES)


@pytest.mark.parametrize(
    "stored",
    [b"", b"no stream", zlib.compress(PLAIN)[:-1], zlib.compress(PLAIN + b"1"), zlib.compress(PLAIN[1:])],
)
def test_a_damaged_chunk_is_refused(stored: bytes) -> None:
    with pytest.raises(UnreadableError):
        decode_chunk(stored, 0, (DEFLATE,), 100, SAMPLES.dtype)


def test_a_size_beyond_all_sense_is_refused() -> None:
    with pytest.raises(UnreadableError, match="declares"):
        inflate(zlib.compress(b"x"), LARGEST_CHUNK_BYTES + 1)
    with pytest.raises(UnreadableError, match="whole numbers"):
        unshuffle(bytes(9), 8)


def test_an_allowance_is_for_the_whole_file() -> None:
    allowance = Budget(1000)
    allowance.charge(FREE_ALLOWANCE, "first")
    allowance.charge(64_000, "second")
    with pytest.raises(ArchiveError, match="third declares 1 bytes") as caught:
        allowance.charge(1, "third")
    assert caught.value.reason == "oversized"
