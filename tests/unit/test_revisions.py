from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from rmsai_ray import revisions
from rmsai_ray.errors import StorageError
from rmsai_ray.revisions import Document, Revisions
from rmsai_ray.storage import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def add(word: str) -> revisions.Callable[[Document | None], Document]:
    return lambda present: {"words": [*(present or {"words": []})["words"], word]}


def test_a_document_starts_with_its_first_change_and_keeps_every_revision(store: Store) -> None:
    document = Revisions(store, "a/index")
    assert document.read() is None
    assert document.change(add("x")) == {"words": ["x"]}
    assert document.change(add("y")) == document.read() == {"words": ["x", "y"]}
    assert sorted(info.key for info in store.list()) == [f"a/index/0000000{n}.json" for n in (1, 2)]
    assert Revisions(store, "a").read() is None  # not what lies deeper
    assert [document.read(number) for number in (0, 1, 2, 3)] == [
        None,
        {"words": ["x"]},
        document.read(),
        None,
    ]


def test_nothing_to_change_writes_nothing(store: Store) -> None:
    document = Revisions(store, "index")
    assert document.change(lambda _: None) == {}
    document.change(add("x"))
    assert document.change(lambda _: None) == {"words": ["x"]}
    assert len(list(store.list())) == 1


def test_writers_at_the_same_moment_lose_nothing_even_with_equal_changes(store: Store) -> None:
    together = Barrier(4)

    def write(_: int) -> None:
        waited = []

        def apply(present: Document | None) -> Document:
            if not waited:  # all have read before any writes
                waited.append(together.wait())
            return add("same")(present)

        Revisions(store, "index").change(apply)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert Revisions(store, "index").read() == {"words": ["same"] * 4}
    assert len(list(store.list())) == 4


def test_a_document_that_never_stands_still_is_given_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revisions, "MAX_ATTEMPTS", 3)
    rival = Revisions(store, "index")

    def overtaken(present: Document | None) -> Document:
        rival.change(add("rival"))
        return add("ours")(present)

    with pytest.raises(StorageError, match="changes too fast"):
        Revisions(store, "index").change(overtaken)
    assert rival.read() == {"words": ["rival"] * 3}


@pytest.mark.parametrize("content", [b"", b"[1]", b"{}", b'{"document": 3}'])
def test_something_else_in_its_place_is_named(store: Store, content: bytes) -> None:
    store.put("index/00000001.json", content)
    with pytest.raises(StorageError, match=r"00000001\.json"):
        Revisions(store, "index").read()


def test_other_files_beside_it_are_left_alone(store: Store) -> None:
    store.put("index/notes.txt", b"")
    store.put("index/00000009.json.tmp", b"")
    assert Revisions(store, "index").read() is None
