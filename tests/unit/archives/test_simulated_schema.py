"""Simulated archives against the original generator's: same tree, types and storage; same bytes again."""

import io

import h5py
import numpy as np
import pytest

from rmsai_ray.archives.reader import ReadOptions, read_archive
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.archives.validate import Profile, validate
from rmsai_ray.archives.writer import write_archive
from tests.upstream_files import archive_bytes


def tree(content: bytes) -> dict[str, tuple[object, ...]]:
    """Everything about a file but the values: type, string charset, shape, chunks and filters by path."""
    found: dict[str, tuple[object, ...]] = {}

    def visit(path: str, node: h5py.Group | h5py.Dataset) -> None:
        found[path] = (type(node).__name__, sorted(node.attrs))
        if isinstance(node, h5py.Dataset):
            text = h5py.check_string_dtype(node.dtype)
            found[path] += (
                node.dtype,
                (text.encoding, text.length) if text else None,
                node.shape,
                node.chunks,
                node.compression,
                node.compression_opts,
            )

    with h5py.File(io.BytesIO(content)) as file:
        file.visititems(visit)
        found["/"] = (sorted(file.attrs),)
    return found


def test_the_tree_is_the_original_generators() -> None:
    assert tree(simulate_archive(1234, 2, seed=0)[1]) == tree(archive_bytes("v3", num_events=2))


@pytest.mark.parametrize("profile", ["lenient", "strict"])
def test_validation_has_nothing_to_say(profile: Profile) -> None:
    name, content = simulate_archive(3, 5, seed=1)
    verdict = validate(content, name, profile)
    assert (verdict.status, verdict.problems) == ("ok", ())


def test_what_is_read_and_written_again_gives_the_same_bytes() -> None:
    name, content = simulate_archive(5, 3, seed=1)
    archive = read_archive(content, name, options=ReadOptions(waveforms=True))
    again = write_archive(archive.events, patient_id=archive.patient_id, metadata=archive.metadata)
    reread = read_archive(again, name, options=ReadOptions(waveforms=True))
    assert again == content
    for event, other in zip(archive.events, reread.events, strict=True):
        np.testing.assert_array_equal(event.leads["aVF"].samples, other.leads["aVF"].samples)
        assert event.vitals == other.vitals
        assert event.ecg_extras == other.ecg_extras
