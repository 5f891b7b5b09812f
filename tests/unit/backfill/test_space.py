"""A disk that is too small: refused before the run with numbers, or left in time with what is finished."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from rmsai_ray.backfill import space
from rmsai_ray.backfill.space import check_space, check_space_left
from rmsai_ray.errors import LakeError
from rmsai_ray.storage import Store
from tests.local_backfill import NAMES, LocalBackfill, contents

MIB = 1 << 20


@pytest.fixture
def ward(tmp_path: Path) -> LocalBackfill:
    ward = LocalBackfill(tmp_path)
    for name, content in zip(NAMES[:3], contents(), strict=False):
        ward.put(name, content)
    return ward


def disk(monkeypatch: pytest.MonkeyPatch, *free_mib: float) -> None:
    """A disk with so much left, at one look after the other."""
    left = [*free_mib]
    monkeypatch.setattr(
        space.shutil,
        "disk_usage",
        lambda _: SimpleNamespace(free=round((left.pop(0) if len(left) > 1 else left[0]) * MIB)),
    )


def test_a_run_that_will_not_fit_does_not_begin_and_says_what_is_missing(
    ward: LocalBackfill, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, 16.1)
    with pytest.raises(
        LakeError, match=r"16\.1 MiB free and needs about \d+\.\d MiB: .* of archives, and 16\.0"
    ):
        ward.run()
    assert not list(ward.lake.list("windows"))
    (key,) = (info.key for info in ward.lake.list("runs") if info.key.endswith("run.json"))
    assert json.loads(ward.lake.get(key))["status"] == "failed"
    ward.run(min_free_bytes=0)
    assert ward.state().manifest.num_rows == 3


def test_a_disk_that_fills_ends_the_run_and_keeps_what_is_finished(
    ward: LocalBackfill, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, 1000, 1000, 15)
    with pytest.raises(LakeError, match=r"15\.0 MiB left, less than the 16\.0 MiB"):
        ward.run()
    assert len(ward.state().waiting) == 2, "the finished units wait for the next run"
    monkeypatch.undo()
    assert ward.run().num_units == 1
    assert ward.state().manifest.num_rows == 3


def test_an_object_store_has_no_end(s3_like: Store) -> None:
    check_space(s3_like, todo_bytes=1 << 60, min_free_bytes=1)
    check_space_left(s3_like, min_free_bytes=1 << 60)


@pytest.fixture
def s3_like(monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    return Store("s3://nobody/lake")


def test_the_real_disk_is_asked(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    check_space(Store(str(tmp_path)), todo_bytes=1, min_free_bytes=1)
    with pytest.raises(LakeError):
        check_space(Store(str(tmp_path)), todo_bytes=4 * free, min_free_bytes=1)
