"""The commit protocol for arbitrary histories of crashes, lost answers, zombies and rivals at every write.

Parquet, manifest, layout, ledger and lease lie in an in-memory object store, LanceDB's table in a folder. No
archive is read: their contents are letters. With ``RMSAI_EXAMPLES=500`` in the environment it looks longer.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import lance
import obstore
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from lance.commit import CommitConflictError
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import MemoryStore

from rmsai_ray.backfill.plan import Unit, pack_units
from rmsai_ray.errors import LakeError
from rmsai_ray.storage import Store
from rmsai_ray.tables import ledger, parts
from rmsai_ray.tables.compaction import compact_parts, compact_vectors
from rmsai_ray.tables.layout import load_layout
from rmsai_ray.tables.lease import Lease, latest_claim
from rmsai_ray.tables.manifest import LISTING, Manifest, difference, load_manifest
from rmsai_ray.tables.units import settle, write_unit
from rmsai_ray.tables.vectors import VectorTable
from tests.small_tables import EMBEDDING_DIM, MODEL
from tests.unit.tables.test_units import archive, tables

URIS = ("a", "b", "c", "d")
CONTENTS = "xyzw"
BROKEN = "!"
RUNS = ("backfill-1", "backfill-2")
"""Two sets of options."""
EXAMPLES = int(os.environ.get("RMSAI_EXAMPLES", "12"))
Step = Callable[[], object]

kinds = st.sampled_from(
    ["create runs/lease/", "put windows/", "create ledger/", "replace windows/", "replace ledger/",
     "delete_rows", *["publish"] * 4, *["replace archives/"] * 4, "delete ledger/",
     "delete windows/", "put runs/lease/"]
)  # fmt: skip


uploads = st.tuples(st.sampled_from(URIS), st.sampled_from([*CONTENTS, BROKEN]))


class Died(BaseException):
    """What SIGKILL is to a process."""


class Writes:
    """Strikes at one of the writes to come."""

    def __init__(self) -> None:
        self.kind, self.left, self.strike = "", 0, ""
        self.meanwhile: Step = lambda: None

    def arm(self, kind: str, left: int, strike: str, meanwhile: Step) -> None:
        """The write of a kind after ``left`` others of it is struck."""
        self.kind, self.left, self.strike, self.meanwhile = kind, left + 1, strike, meanwhile

    def disarm(self) -> None:
        self.left = 0

    def do(self, name: str, write: Step, again: Step) -> Any:
        """One write: as it is, or with a death before or after it, an answer that is lost, so that the client
        sends it again, or a long sleep before it."""
        if self.left == 0 or not name.startswith(self.kind):
            return write()
        self.left -= 1
        if self.left > 0:
            return write()
        if self.strike == "before":
            raise Died
        if self.strike == "asleep":
            self.meanwhile()
        if self.strike == "lost":
            with suppress(AlreadyExistsError, PreconditionError):
                again()
        answer = write()
        if self.strike == "after":
            raise Died
        return answer


class MemoryLake(Store):
    """Objects in memory, behind the code that asks S3 for them."""

    def __init__(self, writes: Writes) -> None:
        self.uri = "memory://lake"
        self._store = self._reader = MemoryStore()  # type: ignore[assignment]
        self._writes = writes

    def put(self, key: str, content: bytes) -> None:
        self._writes.do(
            f"put {key}",
            lambda: super(MemoryLake, self).put(key, content),
            lambda: self._put(key, content),
        )

    def create(self, key: str, content: bytes) -> bool:
        done = self._writes.do(
            f"create {key}",
            lambda: super(MemoryLake, self).create(key, content),
            lambda: self._put(key, content, "create"),
        )
        return bool(done)

    def replace(self, key: str, content: bytes, etag: str) -> str | None:
        mode = {"e_tag": etag} if etag else "create"
        return self._writes.do(  # type: ignore[no-any-return]
            f"replace {key}",
            lambda: super(MemoryLake, self).replace(key, content, etag),
            lambda: self._put(key, content, mode),
        )

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._delete_one(key)

    def _delete_one(self, key: str) -> None:
        self._writes.do(f"delete {key}", lambda: super(MemoryLake, self).delete([key]), lambda: None)

    def _put(self, key: str, content: bytes, mode: Any = "overwrite") -> None:
        obstore.put(self._store, key, content, mode=mode)


class Vectors(VectorTable):
    """A real table, whose commits are struck like other writes."""

    def __init__(self, folder: str, writes: Writes) -> None:
        super().__init__(folder, MODEL, EMBEDDING_DIM)
        self._writes = writes

    def publish(self, fragments_by_unit: dict[str, list[dict[str, Any]]]) -> int:
        commit = lance.LanceDataset.commit

        def struck(*arguments: Any, **options: Any) -> Any:
            """Of a commit whose answer is lost Lance sees that its version is taken."""
            done: list[Any] = []

            def first() -> None:
                done.append(commit(*arguments, **options))

            def then() -> Any:
                if done:
                    raise CommitConflictError("version taken")
                return commit(*arguments, **options)

            return self._writes.do("publish", then, first)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lance.LanceDataset, "commit", struck)
            return super().publish(fragments_by_unit)

    def delete_rows(self, archives_by_unit: dict[str, set[str]]) -> None:
        def delete() -> None:
            super(Vectors, self).delete_rows(archives_by_unit)

        self._writes.do("delete_rows", delete, delete)


class CommitProtocol(RuleBasedStateMachine):
    """Archives change; runs of two kinds of options, and compactions, end, die, sleep and overlap."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._writes = Writes()
        self._lake = MemoryLake(self._writes)
        self._vectors = Vectors(self._folder.name, self._writes)
        self._vectors.ensure_exists()
        self._there: dict[str, tuple[str, int]] = {}
        """URI → (content, number of the write)."""
        self._num_uploads = 0
        self._unwritten: list[tuple[Unit, str, int]] = []
        """Units that workers of dead drivers still have in their hands: unit, run, epoch."""
        self._settled: str | None = None
        """The run that ended last, where nothing has changed since."""

    def teardown(self) -> None:
        with self._folder:
            self._backfill(RUNS[0])
            self._check_visible()
            self._check_settled(RUNS[0])

    @initialize(contents=st.lists(st.sampled_from(CONTENTS), min_size=len(URIS), max_size=len(URIS)))
    def fill(self, contents: list[str]) -> None:
        for uri, content in zip(URIS, contents, strict=True):
            self.upload(uri, content)

    def upload(self, uri: str, content: str) -> None:
        self._num_uploads += 1
        self._there[uri] = content, self._num_uploads
        self._settled = None

    @rule(
        changed=st.lists(uploads, min_size=1, max_size=3),
        run=st.sampled_from(RUNS),
        kind=kinds,
        left=st.sampled_from([0, 0, 0, 1]),
        strike=st.sampled_from(["before", "after", "lost", "asleep", "asleep", "asleep"]),
        rival=st.sampled_from(["run", "run", "run", "late worker", "compaction"]),
    )
    def backfill(
        self, changed: list[tuple[str, str]], run: str, kind: str, left: int, strike: str, rival: str
    ) -> None:
        for uri, content in changed:
            self.upload(uri, content)
        rivals: dict[str, Step] = {
            "run": lambda: self._backfill(RUNS[0]),
            "late worker": self._late_worker,
            "compaction": self._compact,
        }
        self._strike(kind, left, strike, rivals[rival], lambda: self._backfill(run))

    @rule(
        kind=st.sampled_from(["create windows/", "replace archives/", "delete windows/", "publish"]),
        strike=st.sampled_from(["before", "after", "lost", "asleep"]),
    )
    def compact(self, kind: str, strike: str) -> None:
        self._strike(kind, 0, strike, lambda: self._backfill(RUNS[1]), self._compact)

    @rule()
    def late_worker(self) -> None:
        self._late_worker()

    @rule(run=st.sampled_from(RUNS))
    def undisturbed(self, run: str) -> None:
        self._backfill(run)
        self._settled = run

    @invariant()
    def readers_see_nothing_unfinished_and_nothing_twice(self) -> None:
        self._check_visible()

    @invariant()
    def after_a_run_the_lake_is_what_the_archives_say(self) -> None:
        if self._settled is not None:
            self._check_settled(self._settled)

    def _strike(self, kind: str, left: int, strike: str, meanwhile: Step, work: Step) -> None:
        """Does some work; while it is asleep its claim counts as dead, and something else happens."""
        self._settled = None

        def while_asleep() -> None:
            self._bury()
            meanwhile()

        self._writes.arm(kind, left, strike, while_asleep)
        with suppress(Died, LakeError):
            work()
        self._writes.disarm()

    def _backfill(self, run: str) -> None:
        """As the flow does it, each unit by a worker of its own."""
        self._bury()
        with Lease(self._lake, run) as lease:
            try:
                manifest = settle(self._lake, self._vectors, MODEL, lease.confirm)
                parts.remove_unfinished(self._lake, MODEL, manifest.unit_ids, lease.confirm)
                todo = difference(self._listing(), manifest, run, retry=True)
                units = pack_units(
                    todo, run_id=run, unit_bytes=lambda left: 2, max_archive_bytes=9, epoch=lease.epoch
                )
                waiting = [(unit, run, lease.epoch) for unit in units]
                while waiting:
                    self._unwritten.append(waiting.pop(0))
                    self._write(*self._unwritten[-1])
                    self._unwritten.pop()
                settle(self._lake, self._vectors, MODEL, lease.confirm)
            except Died:
                lease._stop.set()  # no renewal, and nothing is given back
                lease._is_ours = lambda: False  # type: ignore[method-assign]
                raise

    def _compact(self) -> None:
        """As maintenance does it."""
        self._bury()
        with Lease(self._lake, "maintain") as lease:
            manifest = settle(self._lake, self._vectors, MODEL, lease.confirm)
            parts.remove_unfinished(self._lake, MODEL, manifest.unit_ids, lease.confirm)
            compact_parts(self._lake, MODEL, manifest.unit_ids)
            compact_vectors(self._vectors)

    def _late_worker(self) -> None:
        """Whoever worked for a dead driver comes to the end of its unit."""
        if self._unwritten:
            self._write(*self._unwritten.pop(0))

    def _write(self, unit: Unit, run: str, epoch: int) -> None:
        seen: set[str] = set()
        rows = [self._read(planned, seen) for planned in unit.archives]
        write_unit(
            self._lake,
            self._vectors,
            tables(unit.unit_id, run, *rows),
            run_id=run,
            model_id=MODEL,
            epoch=epoch,
        )

    def _read(self, planned: dict[str, Any], seen: set[str]) -> dict[str, Any]:
        """What a reader makes of one archive; its content is that of now, whenever it was listed."""
        content = self._there[planned["uri"]][0]
        status = "committed"
        if content == BROKEN:
            status = "quarantined"
        elif content == planned["previous_archive_id"]:
            status = "unchanged"
        elif content in seen or content in planned["same_size_ids"]:
            status = "skipped"
        seen.add(content)
        times = {name: planned[name] for name in ("etag", "size")}
        return archive(
            planned["uri"], content, status, modified_time=planned["modified_time"].isoformat(), **times
        )

    def _listing(self) -> pa.Table:
        rows = [
            {"uri": uri, "size": 1, "etag": f"v{number}", "modified_time": number * 1_000_000}
            for uri, (_, number) in self._there.items()
        ]
        return pa.Table.from_pylist(rows, LISTING)

    def _bury(self) -> None:
        """Whoever holds the lake counts as dead, dead or not."""
        claim = latest_claim(self._lake)
        if claim is not None:
            dead = replace(claim.holder, process_started="")
            Store.put(self._lake, claim.info.key, json.dumps(asdict(dead)).encode())

    def _check_visible(self) -> None:
        """Of every committed archive both windows are to be seen, or none while it is being replaced; in
        LanceDB nothing is twice, and everything is of a finished unit."""
        manifest = load_manifest(self._lake, MODEL)
        committed = {
            (row["unit_id"], row["archive_id"]): row["num_windows"]
            for row in manifest.rows.to_pylist()
            if row["status"] == "committed"
        }
        layout = load_layout(self._lake, MODEL)
        shown = Counter((unit, content) for name, unit, content in self._windows() if layout.is_visible(name))
        for name, count in shown.items():
            assert name not in committed or count == committed[name], (name, count)
        published = lance.dataset(self._vectors.uri).to_table(["unit_id", "window_id"]).to_pylist()
        twice = [name for name, count in Counter(row["window_id"] for row in published).items() if count > 1]
        assert not twice
        known = manifest.unit_ids | ledger.unit_ids(self._lake, MODEL)
        assert {row["unit_id"] for row in published} <= known

    def _windows(self) -> list[tuple[str, str, str]]:
        """(name of the part, unit, content) of every Parquet row."""
        keys = [info.key for info in self._lake.list(parts.model_folder("windows", MODEL))]
        found = [(parts.name_of(key), parts.read_part(self._lake, key)) for key in keys]
        return [
            (name, row["unit_id"], row["archive_id"])
            for name, part in found
            if part is not None
            for row in part.select(["unit_id", "archive_id"]).to_pylist()
        ]

    def _check_settled(self, run: str) -> None:
        manifest = load_manifest(self._lake, MODEL)
        rows = {row["uri"]: row for row in manifest.rows.to_pylist()}
        assert {uri: row["etag"] for uri, row in rows.items()} == {
            uri: f"v{number}" for uri, (_, number) in self._there.items()
        }
        good = {content for content, _ in self._there.values()} - {BROKEN}
        holders = {row["archive_id"]: row for row in rows.values() if row["status"] == "committed"}
        assert set(holders) == good
        assert sum(row["status"] == "committed" for row in rows.values()) == len(good)
        for uri, (content, _) in self._there.items():
            assert rows[uri]["archive_id"] == content
            assert (rows[uri]["status"] == "quarantined") == (content == BROKEN)
            assert content == BROKEN or holders[content]["run_id"] == run
        expected = sorted((row["unit_id"], content) for content, row in holders.items() for _ in range(2))
        self._check_rows(manifest, expected)

    def _check_rows(self, manifest: Manifest, expected: list[tuple[str, str]]) -> None:
        published = lance.dataset(self._vectors.uri).to_table(["unit_id", "archive_id"]).to_pylist()
        assert sorted((row["unit_id"], row["archive_id"]) for row in published) == expected
        layout = load_layout(self._lake, MODEL)
        names = {layout.part_name(unit) for unit in manifest.unit_ids}
        assert sorted((unit, content) for name, unit, content in self._windows() if name in names) == expected


TestCommitProtocol = CommitProtocol.TestCase
TestCommitProtocol.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=5,
    deadline=None,
    phases=(Phase.generate,) if "RMSAI_EXAMPLES" not in os.environ else (Phase.generate, Phase.shrink),
    derandomize="RMSAI_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    print_blob=True,
)


@pytest.mark.parametrize("kind", ["publish", "replace archives/", "delete_rows", "delete ledger/"])
def test_who_sleeps_in_a_commit_while_another_run_ends_changes_nothing(kind: str) -> None:
    history = CommitProtocol()
    history.fill(["x", "y", "z", "x"])
    history.undisturbed(RUNS[0])
    history.backfill([("a", "w")], RUNS[0], kind, 0, "asleep", "run")
    history._check_visible()
    history._check_settled(RUNS[0])
    history.teardown()
