"""The promise of a backfill, for arbitrary histories: after a run the lake is what the archives say.

``RMSAI_EXAMPLES=200 pytest tests/unit/backfill/test_exactly_once.py`` looks longer.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rmsai_ray.ids import archive_id
from tests.local_backfill import (
    BROKEN,
    NAMES,
    NUM_CONTENTS,
    TWO_ARCHIVES,
    Died,
    LakeState,
    LocalBackfill,
    content_of,
    contents,
    dying_at,
    reference,
)

EXAMPLES = int(os.environ.get("RMSAI_EXAMPLES", "8"))

names = st.sampled_from(NAMES)
content_numbers = st.integers(0, NUM_CONTENTS - 1)
kinds = st.sampled_from(
    ["create ledger/", "put windows/", "delete windows/", "replace windows/", "replace ledger/",
     "delete_rows", "publish", "replace archives/", "delete ledger/"]
)  # fmt: skip
options = st.fixed_dictionaries(
    {},
    optional={
        "unit_bytes": st.sampled_from([TWO_ARCHIVES, 2**30]),
        "profile": st.just("upstream-2025"),
        "prefix": st.sampled_from(["PT2", "sub/"]),
        "retry_quarantined": st.just(True),
    },
)


class BackfillHistory(RuleBasedStateMachine):
    """Archives come, change, move and go; runs end or die; only what a run saw at its end is promised."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._local = LocalBackfill(Path(self._folder.name))
        self._there: dict[str, int] = {}
        """Number of the content by name, as it lies in the store."""
        self._settled: set[str] | None = None
        """The names that a run just listed; None since anything changed."""
        self._run_id = ""

    def teardown(self) -> None:
        """However it ended, one more run mends it."""
        with self._folder:
            self.run({})
            self._check(self._local.state())

    @initialize(numbers=st.lists(content_numbers, min_size=len(NAMES), max_size=len(NAMES)))
    def fill(self, numbers: list[int]) -> None:
        for name, number in zip(NAMES, numbers, strict=True):
            self.upload(name, number)

    @rule(name=names, number=content_numbers)
    def upload(self, name: str, number: int) -> None:
        self._local.put(name, contents()[number])
        self._there[name] = number
        self._settled = None

    @precondition(lambda self: self._there)
    @rule(data=st.data())
    def touch(self, data: st.DataObject) -> None:
        self._local.touch(data.draw(st.sampled_from(sorted(self._there))))
        self._settled = None

    @precondition(lambda self: self._there)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self._there)))
        del self._local.stored[name], self._there[name]
        self._settled = None

    @rule(kind=kinds, num_writes=st.sampled_from([0, 0, 0, 1, 2]), chosen=options)
    def run_and_die(self, kind: str, num_writes: int, chosen: dict[str, Any]) -> None:
        if self._local.run_and_die(num_writes, kind, **chosen):
            self._settled = None
        else:
            self._note_end(chosen)

    @rule(chosen=options)
    def run(self, chosen: dict[str, Any]) -> None:
        self._local.run(**chosen)
        self._note_end(chosen)

    @rule(num_writes=st.sampled_from([None, None, 0, 1, 2, 5]))
    def compact(self, num_writes: int | None) -> None:
        """As maintenance does, which may die too; what the lake says stays as it is."""
        with suppress(Died), dying_at(num_writes):
            self._local.compact()

    def _note_end(self, chosen: dict[str, Any]) -> None:
        self._settled = {name for name in self._there if name.startswith(chosen.get("prefix", ""))}
        self._run_id = self._local.resolve(**chosen).run_id

    @invariant()
    def the_lake_is_what_the_archives_say(self) -> None:
        if self._settled is not None:
            self._check(self._local.state())

    def _check(self, state: LakeState) -> None:
        assert state.waiting == []
        assert state.vectors.num_rows == state.windows.num_rows
        assert state.windows.num_rows == 0 or state.vectors.equals(state.windows)
        rows = {row["uri"].removeprefix("ward://"): row for row in state.manifest.to_pylist()}
        assert len(rows) == state.manifest.num_rows
        assert self._settled is not None
        assert self._settled <= set(rows)
        holders = {row["archive_id"]: name for name, row in rows.items() if row["status"] == "committed"}
        assert len(holders) == sum(row["status"] == "committed" for row in rows.values())
        for name in self._settled:
            self._check_listed(name, rows, holders)
        self._check_tables(state, rows, holders)

    def _check_listed(self, name: str, rows: dict[str, Any], holders: dict[str, str]) -> None:
        """A listed archive is committed with these options, or a copy of one that is, or quarantined."""
        row, number = rows[name], self._there[name]
        content, upload = self._local.stored[name]
        assert (row["size"], row["etag"]) == (len(content), f"v{upload}")
        assert row["archive_id"] == archive_id(content)
        if number == BROKEN:
            assert row["status"] == "quarantined"
            assert row["error"].startswith("not_hdf5")
            return
        holder = holders[archive_id(content)]
        assert row["status"] == ("committed" if holder == name else "skipped")
        assert rows[holder]["run_id"] == self._run_id
        if row["status"] == "skipped":
            assert (row["num_events"], row["num_windows"], row["patient_id"]) == (0, 0, None)

    def _check_tables(self, state: LakeState, rows: dict[str, Any], holders: dict[str, str]) -> None:
        """Parquet holds the rows of the holders and of quarantined archives, and nothing else."""
        kept = {name: row for name, row in rows.items() if row["status"] in ("committed", "quarantined")}
        profiles = {self._local.resolve(profile).run_id: profile for profile in ("seed", "upstream-2025")}
        by_id = {archive_id(content): content for content in contents()}
        expected = {
            name: reference(self._local.bundle, row["uri"], by_id[row["archive_id"]], profiles[row["run_id"]])
            for name, row in kept.items()
        }
        for table, key in (("windows", "archive_id"), ("events", "archive_id"), ("rejects", "uri")):
            found: pa.Table = getattr(state, table)
            assert found.num_rows == sum(rows_of[table].num_rows for rows_of in expected.values())
            for name, row in kept.items():
                if found.num_rows:
                    mine = found.filter(pc.equal(found[key], row[key]))
                    assert without_archive(content_of(mine)).equals(without_archive(expected[name][table]))
                    assert set(mine["unit_id"].to_pylist()) <= {row["unit_id"]}
                    assert set(mine["run_id"].to_pylist()) <= {row["run_id"]}


def without_archive(table: pa.Table) -> pa.Table:
    """Without the content's hash, which the reference cannot know of what is no archive."""
    return table.drop_columns(["archive_id"]).combine_chunks()


TestBackfillHistory = BackfillHistory.TestCase
TestBackfillHistory.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=8,
    deadline=None,
    phases=(Phase.generate,),
    derandomize="RMSAI_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    print_blob=True,
)
