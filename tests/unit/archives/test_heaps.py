"""Damaged string heaps are found before HDF5 gets lost in them."""

import pytest

from rmsai_ray.archives.heaps import check_heaps
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.errors import ArchiveError
from tests.upstream_files import archive_bytes

HEADER = b"GCOL\x01\x00\x00\x00"


def test_sound_files_pass() -> None:
    for content in (simulate_archive(0, 3, seed=0)[1], archive_bytes("v1"), archive_bytes("vdx")):
        assert content.count(HEADER) > 0
        check_heaps(content)


def test_a_half_written_file_is_found() -> None:
    _, content = simulate_archive(0, 2, seed=0)
    half = len(content) // 2
    with pytest.raises(ArchiveError, match="heap") as caught:
        check_heaps(content[:half] + bytes(half))
    assert caught.value.reason == "corrupt"


@pytest.mark.parametrize("size", [0, 1 << 32, (1 << 64) - 16])
@pytest.mark.parametrize("index", [0, 1])
def test_objects_that_lead_nowhere_are_found(size: int, index: int) -> None:
    good = (1).to_bytes(8, "little") + (3).to_bytes(8, "little") + b"abc" + bytes(5)
    bad = index.to_bytes(8, "little") + size.to_bytes(8, "little")
    heap = HEADER + (4096).to_bytes(8, "little") + good + bad
    with pytest.raises(
        ArchiveError, match="damaged"
    ):  # an empty object 1 is fine, the zeros behind it are not
        check_heaps(b"x" * 100 + heap + bytes(4096))


def test_free_space_to_the_end_is_sound() -> None:
    free = (0).to_bytes(8, "little") + (4096 - 16).to_bytes(8, "little")
    check_heaps(HEADER + (4096).to_bytes(8, "little") + free + bytes(4096 - 32))
