"""A backfill that dies at any of its writes and is started again ends as if nothing had happened."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.local_backfill import (
    BROKEN,
    TWO_ARCHIVES,
    LakeState,
    LocalBackfill,
    before_each_write,
    contents,
    dying_at,
)

NOT_COMPARED = ("committed_time", "unit_id")
"""Times are those of the writing; a unit is named by what it replaces, which a death may have changed."""


def fresh(local: LocalBackfill) -> dict[str, Any]:
    """An empty lake; of the second unit one archive is a copy, one stays."""
    upload(local, a=0, b=1, c=0, d=2)
    return {"unit_bytes": TWO_ARCHIVES}


def changes(local: LocalBackfill) -> dict[str, Any]:
    """a changes, so that its copy b takes over; c is mended, as another copy."""
    upload(local, a=0, b=0, c=BROKEN)
    local.run()
    upload(local, a=3, c=0)
    return {}


def other_options(local: LocalBackfill) -> dict[str, Any]:
    """Another threshold profile replaces all rows, rejects too."""
    upload(local, a=3)
    local.run()
    return {"profile": "upstream-2025"}


def upload(local: LocalBackfill, **numbers: int) -> None:
    for name, number in numbers.items():
        local.put(name, contents()[number])


@pytest.mark.parametrize("scenario", [fresh, changes, other_options])
def test_wherever_it_dies_the_next_run_mends_it(
    scenario: Callable[[LocalBackfill], dict[str, Any]], tmp_path: Path
) -> None:
    local = LocalBackfill(tmp_path / "now")
    options = scenario(local)
    deaths: list[tuple[str, Path]] = []

    def keep_a_copy(write: str) -> None:
        """Of the lake as a death before this write leaves it."""
        if " runs/" not in write:
            deaths.append((write, tmp_path / f"{len(deaths)}"))
            shutil.copytree(local.root, deaths[-1][1])

    with before_each_write(keep_a_copy):
        local.run(**options)
    expected = comparable(local.state())
    assert {write.split("/")[0] for write, _ in deaths} >= {"create ledger", "publish ", "replace archives"}
    for write, root in deaths:
        again = LocalBackfill(root, stored=local.stored)
        again.bury()
        again.run(**options)
        assert comparable(again.state()) == expected, f"died at {write}"


def test_it_may_die_again_and_again(tmp_path: Path) -> None:
    local, undisturbed = LocalBackfill(tmp_path / "now"), LocalBackfill(tmp_path / "undisturbed")
    for one in (local, undisturbed):
        changes(one)
    undisturbed.run()
    num_deaths = 0
    while local.run_and_die(5 + num_deaths):
        num_deaths += 1
    assert num_deaths > 5
    assert comparable(local.state()) == comparable(undisturbed.state())


def test_a_run_with_nothing_to_do_writes_only_its_own_record(tmp_path: Path) -> None:
    local = LocalBackfill(tmp_path)
    fresh(local)
    local.run()
    with dying_at(None) as writes:
        local.run()
    assert all(" runs/" in write for write in writes), writes


def comparable(state: LakeState) -> dict[str, Any]:
    """What must be equal, as plain values; checks on the way that both stores hold the same rows once."""
    assert state.waiting == []
    assert state.vectors.equals(state.windows)
    keys = list(zip(*(state.windows[name].to_pylist() for name in ("window_id", "model_id")), strict=True))
    assert len(keys) == len(set(keys))
    named = {name: getattr(state, name).to_pylist() for name in ("windows", "events", "rejects", "manifest")}
    return {name: [without(row) for row in rows] for name, rows in named.items()}


def without(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in NOT_COMPARED}
