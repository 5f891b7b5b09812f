"""The plan's difference and the fold, by examples and by properties of arbitrary ledgers."""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmsai_ray.errors import LakeError
from rmsai_ray.storage import Store
from rmsai_ray.tables.ledger import COPY, LedgerEntry
from rmsai_ray.tables.manifest import (
    LISTING,
    Fold,
    Manifest,
    difference,
    fold,
    load_manifest,
    manifest_key,
    save_manifest,
)
from rmsai_ray.tables.parts import to_parquet

few = settings(max_examples=int(os.environ.get("RMSAI_EXAMPLES", "12")), deadline=None)
MODEL, RUN, OTHER_RUN = "tiny-8x4-aaaaaaaaaaaa", "backfill-1", "backfill-2"
EPOCH = datetime(2025, 10, 1, tzinfo=UTC)


def row(uri: str, content: str | None, status: str = "committed", **changes: Any) -> dict[str, Any]:
    """A row of a ledger entry; its size is that of the content's name, its etag names the content."""
    kept = status == "committed"
    base = {
        "uri": uri, "model_id": MODEL, "archive_id": content, "size": len(content or ""),
        "etag": f"e-{content}", "modified_time": EPOCH.isoformat(), "attempts": 1, "error": None,
        "run_id": RUN, "committed_time": EPOCH.isoformat(), "degraded": False,
        "num_rejects": int(status == "quarantined"),
        "patient_id": "PT1" if kept else None, "period": "2025-09" if kept else None,
        "variant": "v3" if kept else None, "num_events": int(kept), "num_windows": 7 * kept, "status": status,
    }  # fmt: skip
    return base | changes


def entry(unit: str, *rows: dict[str, Any], run: str = RUN) -> LedgerEntry:
    archives = [{**found, "unit_id": unit, "run_id": run} for found in rows]
    return LedgerEntry(unit_id=unit, run_id=run, model_id=MODEL, archives=archives, parts={}, fragments=[])


def manifest(*entries: LedgerEntry, run: str = RUN) -> Manifest:
    return fold(Manifest(), entries, run).manifest


def listing(**contents: str) -> pa.Table:
    """What lies in the store: content by URI."""
    rows = [
        {"uri": uri, "size": len(content), "etag": f"e-{content}", "modified_time": EPOCH}
        for uri, content in contents.items()
    ]
    return pa.Table.from_pylist(rows, LISTING)


def todo(listed: pa.Table, known: Manifest, run: str = RUN, *, retry: bool = False) -> dict[str, Any]:
    return {found["uri"]: found for found in difference(listed, known, run, retry=retry).to_pylist()}


def statuses(folded: Fold) -> dict[str, str]:
    rows = folded.manifest.rows.to_pylist()
    return {found["uri"]: found["status"] for found in rows}


def evicted(folded: Fold) -> set[tuple[str, str, bool]]:
    """(unit, uri, whether the unit is new)."""
    return {(found["unit_id"], found["uri"], found["is_new"]) for found in folded.evictions.to_pylist()}


# --- the difference


def test_everything_is_to_do_in_an_empty_lake() -> None:
    found = todo(listing(a="x", b="y"), Manifest())
    assert list(found) == ["a", "b"]
    assert (found["a"]["replaces"], found["a"]["previous_archive_id"]) == ("", None)
    assert found["a"]["same_size_ids"] == []


def test_what_the_lake_holds_as_it_is_is_not_to_do() -> None:
    known = manifest(entry("u1", row("a", "x"), row("b", "x", "skipped"), row("c", "bad", "quarantined")))
    assert todo(listing(a="x", b="x", c="bad"), known) == {}


@pytest.mark.parametrize("change", [{"etag": "e-other"}, {"size": 9}])
def test_a_changed_archive_is_to_do_and_says_what_it_was(change: dict[str, Any]) -> None:
    known = manifest(entry("u1", row("a", "x"), row("b", "y")))
    (listed,) = listing(a="x").to_pylist()
    found = todo(pa.Table.from_pylist([listed | change], LISTING), known)
    assert (found["a"]["replaces"], found["a"]["previous_archive_id"]) == ("u1", "x")


def test_what_is_not_listed_is_not_to_do() -> None:
    assert todo(listing(a="x"), manifest(entry("u1", row("gone", "y"), row("a", "x")))) == {}


def test_other_options_are_another_run() -> None:
    found = todo(listing(a="x"), manifest(entry("u1", row("a", "x"))), OTHER_RUN)
    assert found["a"]["replaces"] == "u1"
    assert found["a"]["previous_archive_id"] is None  # read again, and not found unchanged
    assert found["a"]["same_size_ids"] == []


def test_quarantined_archives_are_tried_again_when_that_is_asked_for_or_when_they_change() -> None:
    known = manifest(entry("u1", row("a", "bad", "quarantined")))
    assert todo(listing(a="bad"), known) == {}
    assert todo(listing(a="bad"), known, retry=True)["a"]["replaces"] == "u1"
    found = todo(listing(a="good"), known)
    assert found["a"]["previous_archive_id"] is None


def test_contents_of_the_same_size_are_named_where_they_stay() -> None:
    known = manifest(
        entry("u1", row("a", "x"), row("b", "y"), row("c", "longer"), row("d", "z", "quarantined"))
    )
    found = todo(listing(a="x", b="changed", new="n"), known)
    assert found["new"]["same_size_ids"] == ["x"]


def test_copies_are_to_do_when_their_holder_changes() -> None:
    known = manifest(entry("u1", row("a", "x"), row("b", "x", "skipped"), row("c", "y")))
    found = todo(listing(a="other", b="x", c="y"), known)
    assert set(found) == {"a", "b"}
    assert found["b"]["previous_archive_id"] is None
    assert found["b"]["same_size_ids"] == ["y"]


def test_copies_whose_holder_changed_while_they_were_not_listed_are_to_do() -> None:
    known = manifest(entry("u1", row("a", "x"), row("b", "x", "skipped")))
    known = fold(known, [entry("u2", row("a", "other"))], RUN).manifest
    assert set(todo(listing(a="other", b="x"), known)) == {"b"}


def test_copies_of_what_another_run_holds_are_to_do() -> None:
    known = manifest(entry("u1", row("a", "x"), run=OTHER_RUN), entry("u2", row("b", "x", "skipped")))
    assert set(todo(listing(b="x"), known)) == {"b"}
    assert todo(listing(new="x"), known)["new"]["same_size_ids"] == []


# --- the fold


def test_units_become_rows() -> None:
    folded = fold(
        Manifest(),
        [entry("u1", row("b", "y")), entry("u2", row("a", "x"), row("c", None, "quarantined"))],
        RUN,
    )
    assert statuses(folded) == {"a": "committed", "b": "committed", "c": "quarantined"}
    assert folded.manifest.folded_units == {"u1", "u2"}
    assert folded.evictions.num_rows == 0


def test_a_changed_archive_replaces_its_old_rows() -> None:
    folded = fold(manifest(entry("u1", row("a", "x"), row("b", "y"))), [entry("u2", row("a", "other"))], RUN)
    assert evicted(folded) == {("u1", "a", False)}
    (a, b) = folded.manifest.rows.to_pylist()
    assert (a["archive_id"], a["unit_id"]) == ("other", "u2")
    assert (b["archive_id"], b["unit_id"]) == ("y", "u1")


def test_a_touched_archive_keeps_its_rows_and_learns_its_etag() -> None:
    later = (EPOCH + timedelta(days=1)).isoformat()
    touched = row("a", "x", "unchanged", etag="new", modified_time=later)
    folded = fold(manifest(entry("u1", row("a", "x"))), [entry("u2", touched)], RUN)
    (a,) = folded.manifest.rows.to_pylist()
    assert (a["status"], a["unit_id"], a["num_windows"]) == ("committed", "u1", 7)
    assert (a["etag"], a["modified_time"].isoformat()) == ("new", later)
    assert evicted(folded) == set()


def test_of_copies_in_several_units_the_first_by_name_stands() -> None:
    folded = fold(Manifest(), [entry("u1", row("b", "x")), entry("u2", row("a", "x"))], RUN)
    assert statuses(folded) == {"a": "committed", "b": "skipped"}
    assert evicted(folded) == {("u1", "b", True)}
    copy = folded.manifest.rows.to_pylist()[1]
    assert {name: copy[name] for name in COPY} == COPY


def test_of_copies_the_one_that_is_in_the_lake_stands() -> None:
    folded = fold(manifest(entry("u1", row("b", "x"))), [entry("u2", row("a", "x"))], RUN)
    assert statuses(folded) == {"a": "skipped", "b": "committed"}
    assert evicted(folded) == {("u2", "a", True)}


def test_a_touched_holder_still_holds() -> None:
    entries = [entry("u2", row("b", "x", "unchanged", etag="new")), entry("u3", row("a", "x"))]
    folded = fold(manifest(entry("u1", row("b", "x"))), entries, RUN)
    assert statuses(folded) == {"a": "skipped", "b": "committed"}
    assert evicted(folded) == {("u3", "a", True)}


def test_a_copy_takes_over_from_a_holder_that_changed() -> None:
    known = manifest(entry("u1", row("a", "x"), row("b", "x", "skipped")))
    folded = fold(known, [entry("u2", row("a", "y")), entry("u3", row("b", "x"))], RUN)
    assert statuses(folded) == {"a": "committed", "b": "committed"}
    assert evicted(folded) == {("u1", "a", False)}


def test_two_archives_that_swap_their_contents_swap_their_rows() -> None:
    known = manifest(entry("u1", row("a", "x")), entry("u2", row("b", "y")))
    folded = fold(known, [entry("u3", row("a", "y"), row("b", "x"))], RUN)
    assert statuses(folded) == {"a": "committed", "b": "committed"}
    assert evicted(folded) == {("u1", "a", False), ("u2", "b", False)}


def test_a_mended_archive_replaces_its_quarantine_and_the_other_way_round() -> None:
    known = manifest(entry("u1", row("a", "bad", "quarantined"), row("b", "x")))
    folded = fold(known, [entry("u2", row("a", "y")), entry("u3", row("b", "bad", "quarantined"))], RUN)
    assert statuses(folded) == {"a": "committed", "b": "quarantined"}
    assert evicted(folded) == {("u1", "a", False), ("u1", "b", False)}


def test_broken_copies_are_each_quarantined() -> None:
    rows = [row("a", "bad", "quarantined"), row("b", "bad", "quarantined")]
    assert Counter(statuses(fold(Manifest(), [entry("u1", *rows)], RUN)).values()) == {"quarantined": 2}


def test_another_run_replaces_the_rows() -> None:
    folded = fold(
        manifest(entry("u1", row("a", "x"))), [entry("u2", row("a", "x"), run=OTHER_RUN)], OTHER_RUN
    )
    assert evicted(folded) == {("u1", "a", False)}
    assert folded.manifest.rows["run_id"].to_pylist() == [OTHER_RUN]


def test_this_runs_copy_takes_over_from_the_holder_of_another_run() -> None:
    folded = fold(
        manifest(entry("u1", row("a", "x"))), [entry("u2", row("b", "x"), run=OTHER_RUN)], OTHER_RUN
    )
    assert statuses(folded) == {"a": "skipped", "b": "committed"}
    assert evicted(folded) == {("u1", "a", False)}


@pytest.mark.parametrize("run", [RUN, OTHER_RUN])
def test_of_two_runs_rows_of_one_uri_that_of_this_run_stands(run: str) -> None:
    later = (EPOCH + timedelta(days=1)).isoformat()
    entries = [entry("u1", row("a", "x")), entry("u2", row("a", "y", modified_time=later), run=OTHER_RUN)]
    folded = fold(Manifest(), entries, run)
    (a,) = folded.manifest.rows.to_pylist()
    assert a["run_id"] == run
    assert evicted(folded) == {("u2" if run == RUN else "u1", "a", True)}


def test_of_two_rows_of_one_uri_the_later_object_stands() -> None:
    later = (EPOCH + timedelta(days=1)).isoformat()
    entries = [entry("u1", row("a", "new", modified_time=later)), entry("u2", row("a", "old"))]
    folded = fold(Manifest(), entries, RUN)
    assert folded.manifest.rows["archive_id"].to_pylist() == ["new"]
    assert evicted(folded) == {("u2", "a", True)}


# --- what holds for every ledger

uris, ids = st.sampled_from("abcd"), st.sampled_from(["x", "y", "z"])
rows_of = st.builds(
    lambda uri, content, status, day, run: (
        row(uri, content, status, modified_time=(EPOCH + timedelta(days=day)).isoformat()),
        run,
    ),
    uris,
    ids,
    st.sampled_from(["committed", "committed", "quarantined", "skipped", "unchanged"]),
    st.integers(0, 3),
    st.sampled_from([RUN, OTHER_RUN]),
)
rounds = st.lists(st.lists(rows_of, min_size=1, max_size=6), min_size=1, max_size=3)


def as_entries(number: int, drawn: list[tuple[dict[str, Any], str]], known: Manifest) -> list[LedgerEntry]:
    """One unit a row, of any run; only what the lake holds can be unchanged."""
    rows = known.rows.to_pylist()
    held = {(found["uri"], found["archive_id"]) for found in rows if found["status"] == "committed"}
    possible = (
        (found | {"status": "committed"}, run)
        if found["status"] == "unchanged" and (found["uri"], found["archive_id"]) not in held
        else (found, run)
        for found, run in drawn
    )
    return [entry(f"u{number}-{i}", found, run=run) for i, (found, run) in enumerate(possible)]


def fold_all(drawn: list[list[tuple[dict[str, Any], str]]]) -> tuple[Manifest, list[LedgerEntry]]:
    """The manifest before the last round, and the entries of that."""
    known = Manifest()
    for number, some in enumerate(drawn[:-1]):
        known = fold(known, as_entries(number, some, known), RUN).manifest
    return known, as_entries(len(drawn) - 1, drawn[-1], known)


@few
@given(rounds)
def test_every_uri_is_there_once_and_every_content_is_held_at_most_once(drawn: list[Any]) -> None:
    known, entries = fold_all(drawn)
    rows = fold(known, entries, RUN).manifest.rows.to_pylist()
    new = [found["uri"] for one in entries for found in one.archives]
    assert [found["uri"] for found in rows] == sorted({*known.rows["uri"].to_pylist(), *new})
    held = Counter(found["archive_id"] for found in rows if found["status"] == "committed")
    assert max(held.values(), default=0) <= 1
    assert {found["status"] for found in rows} <= {"committed", "skipped", "quarantined"}


@few
@given(rounds)
def test_rows_go_exactly_where_the_manifest_no_longer_names_them(drawn: list[Any]) -> None:
    known, entries = fold_all(drawn)
    folded = fold(known, entries, RUN)
    had = {
        (found["unit_id"], found["uri"])
        for found in known.rows.to_pylist() + [found for one in entries for found in one.archives]
        if found["status"] in ("committed", "quarantined")
    }
    kept = {
        (found["unit_id"], found["uri"])
        for found in folded.manifest.rows.to_pylist()
        if found["status"] in ("committed", "quarantined")
    }
    gone = {(unit, uri) for unit, uri, _ in evicted(folded)}
    assert kept | gone == had
    assert kept & gone == set()


@few
@given(rounds, st.randoms(use_true_random=False))
def test_the_order_of_units_is_irrelevant_and_folding_again_changes_nothing(
    drawn: list[Any], random: Any
) -> None:
    known, entries = fold_all(drawn)
    once = fold(known, entries, RUN).manifest
    shuffled = random.sample(entries, len(entries))
    assert fold(known, shuffled, RUN).manifest.rows.equals(once.rows)
    assert fold(once, entries, RUN).manifest.rows.equals(once.rows)


@few
@given(st.dictionaries(uris, ids, min_size=1), st.dictionaries(uris, ids, min_size=1))
def test_after_plan_and_fold_nothing_is_to_do(before: dict[str, str], after: dict[str, str]) -> None:
    known = Manifest()
    for number, contents in enumerate([before, after]):
        planned = todo(listing(**contents), known)
        read = [row(uri, contents[uri], read_status(contents[uri], plan)) for uri, plan in planned.items()]
        known = fold(known, [entry(f"u{number}-{found['uri']}", found) for found in read], RUN).manifest
        assert todo(listing(**contents), known) == {}
    rows = {found["uri"]: found for found in known.rows.to_pylist()}
    held = {found["archive_id"] for found in rows.values() if found["status"] == "committed"}
    assert set(after.values()) <= held
    assert set(after) <= set(rows)


def read_status(content: str, plan: dict[str, Any]) -> str:
    """What the reader says of an archive."""
    if content == plan["previous_archive_id"]:
        return "unchanged"
    return "skipped" if content in plan["same_size_ids"] else "committed"


# --- on disk


def test_a_manifest_survives_its_object(tmp_path: Path) -> None:
    lake = Store(str(tmp_path))
    assert load_manifest(lake, MODEL).rows.num_rows == 0
    known = manifest(entry("u1", row("a", "x")), entry("u2", row("b", None, "quarantined")))
    save_manifest(lake, MODEL, known)
    loaded = load_manifest(lake, MODEL)
    assert loaded.rows.equals(known.rows)
    assert loaded.folded_units == {"u1", "u2"}
    assert loaded.unit_ids == {"u1", "u2"}


def test_a_manifest_of_another_version_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    save_manifest(store, MODEL, Manifest.of([]))
    assert load_manifest(store, MODEL).rows.num_rows == 0
    table = pq.read_table(pa.BufferReader(store.get(manifest_key(MODEL))))
    store.put(manifest_key(MODEL), to_parquet(table.replace_schema_metadata({"rmsai_schema": "archives/1"})))
    with pytest.raises(LakeError, match=r"archives/1.*archives/2.*another lake"):
        load_manifest(store, MODEL)


@pytest.mark.parametrize("was_there", [False, True])
def test_a_manifest_is_written_only_over_the_one_that_it_was_made_from(
    tmp_path: Path, was_there: bool
) -> None:
    """Whoever slept between reading and writing it puts nothing old in the place of something new."""
    store = Store(str(tmp_path))
    if was_there:
        save_manifest(store, MODEL, manifest(entry("u1", row("a", "x"))))
    slept, awake = load_manifest(store, MODEL), load_manifest(store, MODEL)
    newer = fold(awake, [entry("u2", row("b", "y"))], RUN).manifest
    save_manifest(store, MODEL, newer)
    with pytest.raises(LakeError, match="another run"):
        save_manifest(store, MODEL, fold(slept, [entry("u3", row("c", "z"))], RUN).manifest)
    assert load_manifest(store, MODEL).rows.equals(newer.rows)
