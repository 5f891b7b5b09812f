"""A manifest of several pages is what one of a single page would be."""

from __future__ import annotations

import pytest

from rmsai_ray.tables import manifest as manifest_module
from rmsai_ray.tables.manifest import Manifest, count_by_status, fold
from tests.unit.tables.test_manifest import RUN, entry, listing, manifest, row, todo


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "ROWS_PER_GROUP", 3)


def test_a_small_change_to_many_pages_is_what_one_page_would_become() -> None:
    """And the object is the same to the byte as if it had been written at once."""
    before = entry("u1", *[row(f"a{number:02}", f"x{number}") for number in range(0, 20, 2)])
    after = entry("u2", *[row(f"a{number:02}", f"y{number}") for number in (1, 4, 5, 6, 7, 19, 20)])
    known = manifest(before)
    assert [page.num_rows for page in known.pages()] == [3, 3, 3, 1]
    folded = fold(known, [after], RUN).manifest
    uris = folded.columns(["uri"])["uri"].to_pylist()
    assert uris == sorted(uris)
    assert len(uris) == len(set(uris)) == 15
    assert [page.num_rows for page in folded.pages()] == [3] * 5
    assert folded.content == Manifest.of([folded.rows], ["u2"]).content
    assert {found["uri"] for found in folded.rows.to_pylist() if found["unit_id"] == "u2"} == {
        found["uri"] for found in after.archives
    }
    changed = todo(listing(**{uri: uri for uri in uris}), folded)
    assert list(changed) == uris


def test_only_what_is_listed_is_counted() -> None:
    rows = [row(f"a{number}", f"x{number}") for number in range(7)]
    known = manifest(entry("u1", *rows, row("b", "bad", "quarantined"), row("c", "x0", "skipped")))
    assert count_by_status(listing(a1="x1", a5="x5", b="bad", c="x0", new="y"), known) == {
        "committed": 2, "quarantined": 1, "skipped": 1
    }  # fmt: skip
    assert count_by_status(listing(), known) == {}
    assert count_by_status(listing(a="x"), Manifest()) == {}
