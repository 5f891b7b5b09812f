"""A worker that outlives its driver may finish its unit when the next run is at work already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rmsai_ray.backfill import flow
from tests.local_backfill import NAMES, LocalBackfill, contents, dying_at

ONE_UNIT = 2**30


@pytest.fixture
def local(tmp_path: Path) -> LocalBackfill:
    local = LocalBackfill(tmp_path)
    for name, content in zip(NAMES, contents()[:3], strict=False):
        local.put(name, content)
    return local


@pytest.mark.parametrize("comes", ["before", "after"])
def test_entry_whose_parts_were_removed_counts_for_nothing(
    local: LocalBackfill, monkeypatch: pytest.MonkeyPatch, comes: str
) -> None:
    key, entry = finish_the_unit(local)
    local.lake.delete([key])  # the worker is not so far yet, its parts are there
    process = flow.process

    def beside_the_straggler(*arguments: Any) -> None:
        if comes == "before":
            local.lake.put(key, entry)
        process(*arguments)
        if comes == "after":
            local.lake.put(key, entry)

    with monkeypatch.context() as patch:
        patch.setattr(flow, "process", beside_the_straggler)
        local.run(unit_bytes=1)
    check(local)
    local.lake.put(key, entry)
    local.run(unit_bytes=1)
    check(local)


def finish_the_unit(local: LocalBackfill) -> tuple[str, bytes]:
    """Dies after the ledger entry of the only unit; returns the entry."""
    with dying_at(None) as writes:
        LocalBackfill(local.root / "rehearsal", stored=local.stored).run(unit_bytes=ONE_UNIT)
    [place] = [number for number, write in enumerate(writes) if write.startswith("create ledger/")]
    assert local.run_and_die(place + 1, unit_bytes=ONE_UNIT)
    [key] = local.state().waiting
    return key, local.lake.get(key)


def check(local: LocalBackfill) -> None:
    state = local.state()
    assert state.windows.num_rows == state.vectors.num_rows == 3
    assert state.events.num_rows == 3
    assert state.vectors.equals(state.windows)
    assert state.manifest["status"].to_pylist() == ["committed"] * 3
    assert state.waiting == []
