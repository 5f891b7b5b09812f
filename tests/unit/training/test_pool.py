"""The pool deals the windows that a plain reading gives, whatever blocks they came in; without a cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.errors import ConfigError
from rmsai_ray.ids import event_uid
from rmsai_ray.models.profiles import PROFILES
from rmsai_ray.training import pool
from rmsai_ray.training.data import TrainingData, read_training_data

SPEC = PROFILES["framed-2400x64"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two folders; one archive lies in both, one cannot be read."""
    root = tmp_path_factory.mktemp("sources")
    for patient in range(4):
        name, content = simulate_archive(patient, 2, seed=1, proportions=(0.5, 0.5, 0, 0, 0))
        for folder in ("a", "b") if patient == 1 else ("ab"[patient % 2],):
            (root / folder).mkdir(exist_ok=True)
            (root / folder / name).write_bytes(content)
    (root / "b" / "broken.h5").write_bytes(b"not HDF5")
    return [str(root / "a"), str(root / "b")]


@pytest.fixture(scope="module")
def blocks(sources: list[str]) -> list[pa.Table]:
    listing = pool._list_archives(sources)
    tables = [
        table
        for block in pool._blocks(listing, num_cpus=1)
        for table in pool._read_block(block, spec=SPEC, cohort=None)
    ]
    everything = pa.concat_tables(tables)
    half = len(everything) // 2  # an edge in the middle of an archive, and the last ones first
    return [everything.slice(half), everything.slice(0, half)]


@pytest.fixture(scope="module")
def made(sources: list[str], blocks: list[pa.Table]) -> pool.WindowPool:
    described = pa.concat_tables(blocks).sort_by([("archive", "ascending"), ("window", "ascending")])
    return pool._pool(None, described, pool._list_archives(sources), sources)


@pytest.fixture(scope="module")
def plain(sources: list[str]) -> TrainingData:
    return read_training_data(sources, SPEC)


def test_the_pool_knows_what_a_plain_reading_knows(made: pool.WindowPool, plain: TrainingData) -> None:
    assert made.data_hash == plain.data_hash
    assert made.patients_by_source == plain.patients_by_source
    assert made.left_out == plain.left_out == {"not_hdf5": 1}
    for name in ("leads_N", "patients_N", "conditions_N", "is_normal_N"):
        assert (getattr(made.labels, name) == getattr(plain.windows, name)).all(), name


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_each_worker_gets_every_nth_window_of_a_part(
    made: pool.WindowPool, plain: TrainingData, blocks: list[pa.Table], num_workers: int
) -> None:
    masks = {"train": made.labels.is_normal_N, "validation": ~made.labels.is_normal_N}
    part_N = np.where(masks["train"], "train", "validation")
    position_N = np.empty(len(part_N), np.int64)
    for mask_N in masks.values():
        position_N[mask_N] = np.arange(mask_N.sum())
    for worker in range(num_workers):
        mine_N = np.where(position_N % num_workers == worker, position_N, -1)
        picked = [
            pool._pick(block, first_row_A=made.first_row_A, part_N=part_N, position_N=mine_N)
            for block in blocks
        ]
        sizes = {part: len(range(worker, int(mask_N.sum()), num_workers)) for part, mask_N in masks.items()}
        parts = pool.gather(picked, sizes, SPEC.window_samples)
        for part, mask_N in masks.items():
            expected = plain.windows.take(np.flatnonzero(mask_N)[worker::num_workers])
            for name, values in vars(expected).items():
                assert np.array_equal(getattr(parts[part], name), values), (part, name)


def test_windows_that_did_not_come_are_noticed(blocks: list[pa.Table], made: pool.WindowPool) -> None:
    num_windows = len(made.labels)
    picked = pool._pick(
        blocks[0],
        first_row_A=made.first_row_A,
        part_N=np.full(num_windows, "train"),
        position_N=np.arange(num_windows),
    )
    with pytest.raises(RuntimeError, match=f"of {num_windows} windows"):
        pool.gather([picked], {"train": num_windows}, SPEC.window_samples)


def test_a_cohort_chooses_events(sources: list[str], blocks: list[pa.Table]) -> None:
    listing = pool._list_archives(sources).slice(0, 1)
    archive_id = (
        pa.concat_tables(blocks).filter(pa.compute.field("archive") == 0)["archive_id"].to_pylist()[1]
    )
    cohort = {event_uid(archive_id, "event_1002")}
    (table,) = pool._read_block(listing, spec=SPEC, cohort=cohort)
    assert len(table) == 1 + 7
    (table,) = pool._read_block(listing, spec=SPEC, cohort=frozenset())
    assert table["window"].to_pylist() == [-1]


def test_no_archive_and_no_window_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no archive"):
        pool._list_archives([str(tmp_path)])
    (tmp_path / "broken.h5").write_bytes(b"not HDF5")
    listing = pool._list_archives([str(tmp_path)])
    (note,) = pool._read_block(listing, spec=SPEC, cohort=None)
    with pytest.raises(ConfigError, match="not_hdf5"):
        pool._pool(None, note, listing, [str(tmp_path)])


def test_blocks_hold_every_archive_once(sources: list[str]) -> None:
    listing = pool._list_archives(sources)
    for num_cpus in (0.2, 1, 100):
        blocks = pool._blocks(listing, num_cpus)
        assert pa.concat_tables(blocks) == listing
        assert min(map(len, blocks)) > 0
