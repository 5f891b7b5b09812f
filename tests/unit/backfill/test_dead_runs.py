"""What a dead run began to settle is completed as decided; what its workers write later is ignored."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from rmsai_ray.backfill import flow
from tests.local_backfill import NAMES, LocalBackfill, contents, dying_at

FIRST, SECOND, THIRD = NAMES[:3]


@pytest.mark.parametrize("deaths", range(7))
def test_a_run_with_other_options_completes_what_was_decided(tmp_path: Path, deaths: int) -> None:
    local = LocalBackfill(tmp_path)
    local.put(FIRST, contents()[0])
    local.run()
    local.put(SECOND, contents()[0])  # takes the content over, as the only one of the next run
    options = {"profile": "upstream-2025", "prefix": SECOND}
    place = writes_until_the_entry(local, **options)
    local.run_and_die(place + deaths, **options)
    local.run()
    check(local, num_archives=1, num_skipped=1)


@pytest.mark.parametrize("comes", ["before", "after"])
def test_entry_whose_parts_were_removed_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes: str
) -> None:
    local = LocalBackfill(tmp_path)
    for name, content in zip(NAMES, contents()[:3], strict=False):
        local.put(name, content)
    assert local.run_and_die(writes_until_the_entry(local, unit_bytes=2**30), unit_bytes=2**30)
    [key] = local.state().waiting
    entry = local.lake.get(key)
    local.lake.delete([key])  # the worker is not so far yet, its parts are there
    process = flow.process

    def beside_the_worker(*arguments: Any) -> None:
        if comes == "before":
            local.lake.put(key, entry)
        process(*arguments)
        if comes == "after":
            local.lake.put(key, entry)

    with monkeypatch.context() as patch:
        patch.setattr(flow, "process", beside_the_worker)
        local.run(unit_bytes=1)
    check(local, num_archives=3)
    local.lake.put(key, entry)
    local.run(unit_bytes=1)
    check(local, num_archives=3)


def writes_until_the_entry(local: LocalBackfill, **options: Any) -> int:
    """How many writes a run makes until its only unit is finished."""
    rehearsal = LocalBackfill(local.root / "rehearsal", stored=local.stored)
    if Path(local.lake.uri).exists():
        shutil.copytree(local.lake.uri, rehearsal.lake.uri, dirs_exist_ok=True)
    with dying_at(None) as writes:
        rehearsal.run(**options)
    [place] = [number for number, write in enumerate(writes, 1) if write.startswith("create ledger/")]
    return place


def check(local: LocalBackfill, *, num_archives: int, num_skipped: int = 0) -> None:
    """Every archive has the one window and the one event of its content, in both stores."""
    state = local.state()
    assert state.windows.num_rows == state.vectors.num_rows == state.events.num_rows == num_archives
    assert state.vectors.equals(state.windows)
    statuses = sorted(state.manifest["status"].to_pylist())
    assert statuses == ["committed"] * num_archives + ["skipped"] * num_skipped
    assert state.waiting == []
