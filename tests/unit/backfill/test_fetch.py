"""Fetching: one GET per object, many in flight, bounded memory, the members of a pack from one GET."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rmsai_ray.archives import packs
from rmsai_ray.archives.packing import content_of
from rmsai_ray.archives.sources import ArchiveRef
from rmsai_ray.backfill import fetch
from rmsai_ray.backfill.fetch import Fetcher
from rmsai_ray.errors import DeniedError, StorageError
from rmsai_ray.storage import Store
from tests.upstream_files import archive_bytes


class Ward:
    """Objects in memory; tells how many bytes were asked for and not yet consumed."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents, self.reads = contents, list[str]()
        self.ahead = self.most_ahead = self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()

    def list_archives(self) -> Iterator[ArchiveRef]:
        raise NotImplementedError

    def read(self, uri: str) -> bytes:
        with self.lock:
            self.reads.append(uri)
            self.ahead += len(self.contents.get(uri, b""))
            self.in_flight += 1
            self.most_ahead, self.most_in_flight = (
                max(self.ahead, self.most_ahead), max(self.in_flight, self.most_in_flight)
            )  # fmt: skip
        if uri not in self.contents:
            raise StorageError(f"cannot read {uri}: 404")
        return self.contents[uri]

    def consumed(self, content: bytes) -> None:
        with self.lock:
            self.ahead -= len(content)
            self.in_flight -= 1


def planned(uri: str, size: int) -> dict[str, Any]:
    return {"uri": uri, "size": size}


@pytest.fixture
def fetcher(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Fetcher, Ward]]:
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)

    def make(contents: dict[str, bytes], **options: int) -> tuple[Fetcher, Ward]:
        ward = Ward(contents)
        return Fetcher(ward, **({"attempts": 2, "max_archive_bytes": 10**9} | options)), ward

    return make


@pytest.mark.parametrize(("size", "most_objects"), [(1000, 1024), (1 << 20, 16), (5 << 20, 3), (20 << 20, 1)])
def test_memory_is_bounded(fetcher: Callable[..., Any], size: int, most_objects: int) -> None:
    contents = {f"{number:02}": bytes(size) for number in range(40 if size < 1 << 22 else 8)}
    reader, ward = fetcher(contents)
    for expected, (row, fetched) in zip(
        contents, reader.fetch_all([planned(uri, size) for uri in contents]), strict=True
    ):
        assert (row["uri"], fetched.attempts, len(fetched.content)) == (expected, 1, size)
        ward.consumed(fetched.content)
    assert sorted(ward.reads) == sorted(contents), "one GET per object"
    assert ward.most_in_flight <= most_objects + 1  # and the one in the parser's hands
    assert ward.most_ahead <= max(fetch.MOST_BYTES_AHEAD, size) + size
    if size <= 1 << 20:
        assert ward.most_in_flight > 1


def test_a_pack_is_fetched_once_for_all_its_members(fetcher: Callable[..., Any]) -> None:
    raws = {f"{seed}.h5": archive_bytes(num_events=1, seed=seed) for seed in range(3)}
    pack = packs.build_pack([content_of(name, raw, "e")[0] for name, raw in raws.items()])
    rows = [planned(f"w://a.pack.h5#{name}", len(raw)) for name, raw in raws.items()]
    gone = planned("w://a.pack.h5#gone.h5", 5)
    rows = [planned("w://0.h5", 3), rows[0], rows[2], gone, planned("w://z.h5", 3)]
    reader, ward = fetcher({"w://a.pack.h5": pack, "w://0.h5": b"abc", "w://z.h5": b"xyz"})
    found = {row["uri"]: fetched for row, fetched in reader.fetch_all(rows)}
    assert list(found) == [row["uri"] for row in rows]
    assert sorted(ward.reads) == ["w://0.h5", "w://a.pack.h5", "w://z.h5"]
    index = packs.read_index(pack, len(pack))
    for name in ("0.h5", "2.h5"):
        member = index[name]
        assert found[f"w://a.pack.h5#{name}"].content == pack[member.start :][: member.num_bytes]
    missing = found[gone["uri"]]
    assert (missing.content, str(missing.error)) == (
        None, "storage_error: the pack has changed since it was listed"
    )  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"junk" * 100])
def test_a_damaged_pack_costs_its_members(fetcher: Callable[..., Any], content: bytes) -> None:
    reader, _ = fetcher({"w://a.pack.h5": content, "w://b.h5": b"abc"})
    rows = [planned("w://a.pack.h5#1.h5", 5), planned("w://a.pack.h5#2.h5", 5), planned("w://b.h5", 3)]
    errors = [fetched.error and fetched.error.reason for _, fetched in reader.fetch_all(rows)]
    assert errors == ["corrupt", "corrupt", None]


def test_what_never_comes_costs_its_archives(fetcher: Callable[..., Any]) -> None:
    reader, ward = fetcher({"w://b.h5": b"abc"})
    rows = [planned("w://a.pack.h5#1.h5", 5), planned("w://a.pack.h5#2.h5", 5), planned("w://b.h5", 3)]
    found = [
        (fetched.attempts, fetched.error and fetched.error.reason) for _, fetched in reader.fetch_all(rows)
    ]
    assert found == [(2, "storage_error"), (2, "storage_error"), (1, None)]
    assert ward.reads.count("w://a.pack.h5") == 2


def test_the_oversized_are_not_fetched(fetcher: Callable[..., Any]) -> None:
    reader, ward = fetcher({}, max_archive_bytes=100)
    (found,) = [fetched for _, fetched in reader.fetch_all([planned("w://a.pack.h5#1.h5", 101)])]
    assert found.error is not None
    assert (found.attempts, found.error.reason, ward.reads) == (0, "oversized", [])


def answers(*outcomes: bytes | StorageError) -> Callable[[], bytes]:
    left = [*outcomes]

    def read() -> bytes:
        outcome = left.pop(0)
        if isinstance(outcome, bytes):
            return outcome
        raise outcome

    return read


def busy() -> StorageError:
    return StorageError("503 SlowDown")


def test_an_unreadable_object_is_given_up_after_pauses_that_grow() -> None:
    pauses: list[float] = []
    found = fetch.fetch(answers(*[busy()] * 5), 5, pauses.append)
    assert (found.content, found.attempts) == (None, 5)
    assert found.error is not None
    assert found.error.reason == "storage_error"
    assert len(pauses) == 4
    assert all(earlier <= later for earlier, later in itertools.pairwise(pauses))
    assert pauses[-1] >= 4 * pauses[0] / 2


def test_an_object_that_comes_later_is_read() -> None:
    pauses: list[float] = []
    found = fetch.fetch(answers(busy(), busy(), b"abc"), 3, pauses.append)
    assert (found.content, found.attempts, len(pauses)) == (b"abc", 3, 2)


def test_pauses_are_capped_and_differ() -> None:
    for is_denied, longest in ((False, 8.0), (True, 30.0)):
        late = {fetch.pause_s(50, is_denied=is_denied) for _ in range(50)}
        assert len(late) > 1, "clients that failed together must not come back together"
        assert longest / 2 <= min(late) <= max(late) <= longest


def test_who_is_denied_waits_longer_and_has_a_reason_of_its_own() -> None:
    waited: dict[str, list[float]] = {"storage_error": [], "permission_denied": []}
    for reason, error in (("storage_error", busy()), ("permission_denied", DeniedError("403"))):
        found = fetch.fetch(answers(*[error] * 4), 4, waited[reason].append)
        assert found.error is not None
        assert found.error.reason == reason
    assert all(denied > transient for denied, transient in zip(*reversed(waited.values()), strict=True)), (
        waited
    )


def test_a_store_that_denies_is_asked_by_us_and_not_by_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a real server: 403 is not retried by the client, 503 is; then each in its own way by us."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            is_late = len(asked) > 3
            self.send_response(200 if is_late else 403 if "denied" in self.path else 503)
            content = b"abc" if is_late else b""
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Last-Modified", "Wed, 21 Oct 2026 07:28:00 GMT")
            self.send_header("ETag", '"1"')
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    store = Store("s3://ward/archives")
    found = {}
    for name in ("denied.h5", "busy.h5"):
        asked.clear()
        found[name] = fetch.fetch(lambda name=name: store.get(name), 5, lambda seconds: None)  # type: ignore[misc]
        assert len(asked) == 4
    server.shutdown()
    server.server_close()
    assert {name: (each.content, each.attempts) for name, each in found.items()} == {
        "denied.h5": (b"abc", 4),
        "busy.h5": (b"abc", 1),
    }
