"""Fetches the objects of a unit, many at a time and each once, and never far ahead of who parses them."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rmsai_ray.archives import packs
from rmsai_ray.archives.sources import ArchiveSource
from rmsai_ray.backfill.plan import source_of
from rmsai_ray.errors import ArchiveError, StorageError

FETCHES_IN_FLIGHT = 16
MOST_BYTES_AHEAD = 16 << 20
"""Of objects that are on their way or wait for the parser; a larger object travels alone."""
LEAST_BYTES = 1 << 14
"""What the smallest object counts as."""
MAX_PAUSE_S = 8.0

Planned = dict[str, Any]
"""A row of the plan: ``uri``, ``size`` and more; perhaps ``source_uri``, which then is where to read."""


@dataclass(frozen=True)
class Fetched:
    """The bytes of an archive, or why there are none."""

    content: bytes | None
    attempts: int
    error: ArchiveError | None = None


@dataclass(frozen=True)
class _Object:
    """Archives that come with one GET: one, or members of one pack."""

    archives: list[Planned]
    num_bytes: int
    answer: Future[Fetched]


class Fetcher:
    """Holds the client and its threads.

    Threads, because the client works outside of Python, and a thread that waits for it costs half of what a
    coroutine does.
    """

    def __init__(self, source: ArchiveSource, *, attempts: int, max_archive_bytes: int) -> None:
        self._source, self._attempts, self._max_archive_bytes = source, attempts, max_archive_bytes
        self._pool = ThreadPoolExecutor(FETCHES_IN_FLIGHT)

    def fetch_all(self, archives: Sequence[Planned]) -> Iterator[tuple[Planned, Fetched]]:
        """Every archive with its bytes, in order. Members of a pack lie side by side in ``archives``."""
        waiting: deque[_Object] = deque()
        for uri, members in groupby(archives, lambda planned: packs.object_uri(source_of(planned))):
            group = list(members)
            num_bytes = sum(planned["size"] for planned in group if not self._is_oversized(planned))
            while waiting and not _has_room(waiting, num_bytes):
                yield from self._take(waiting.popleft())
            waiting.append(_Object(group, num_bytes, self._pool.submit(self._fetch, uri, group)))
        while waiting:
            yield from self._take(waiting.popleft())

    def _fetch(self, uri: str, archives: list[Planned]) -> Fetched:
        if all(map(self._is_oversized, archives)):
            return Fetched(None, 0)
        return fetch(lambda: self._source.read(uri), self._attempts)

    def _take(self, each: _Object) -> Iterator[tuple[Planned, Fetched]]:
        answer = each.answer.result()
        index: dict[str, packs.Member] | ArchiveError = {}
        if answer.content is not None and packs.is_member(source_of(each.archives[0])):
            index = _index(answer.content)
        for planned in each.archives:
            yield planned, self._of_one(planned, answer, index)

    def _of_one(
        self, planned: Planned, answer: Fetched, index: dict[str, packs.Member] | ArchiveError
    ) -> Fetched:
        if self._is_oversized(planned):
            detail = f"{planned['size']} bytes, more than the allowed {self._max_archive_bytes}"
            return Fetched(None, 0, ArchiveError("oversized", detail))
        if answer.content is None or not packs.is_member(source_of(planned)):
            return answer
        if isinstance(index, ArchiveError):
            return Fetched(None, answer.attempts, index)
        member = index.get(packs.archive_name(source_of(planned)))
        if member is None:
            gone = ArchiveError("storage_error", "the pack has changed since it was listed")
            return Fetched(None, answer.attempts, gone)
        return Fetched(answer.content[member.start : member.start + member.num_bytes], answer.attempts)

    def _is_oversized(self, planned: Planned) -> bool:
        return bool(planned["size"] > self._max_archive_bytes)


def fetch(read: Callable[[], bytes], attempts: int, pause: Callable[[float], None] | None = None) -> Fetched:
    """Reads one object, up to ``attempts`` times, with pauses that double, are capped, and jitter."""
    for attempt in range(1, attempts + 1):
        try:
            return Fetched(read(), attempt)
        except StorageError as error:
            if attempt == attempts:
                return Fetched(None, attempt, ArchiveError("storage_error", str(error)))
        (pause or time.sleep)(min(MAX_PAUSE_S, 0.25 * 2**attempt) * random.uniform(0.5, 1.0))
    raise AssertionError("attempts is at least 1")


def _has_room(waiting: deque[_Object], num_bytes: int) -> bool:
    """Whether another object may be asked for. More may wait than are in flight: while one GET hangs, those
    behind it are fetched.
    """
    ahead = sum(max(each.num_bytes, LEAST_BYTES) for each in waiting)
    return ahead + num_bytes <= MOST_BYTES_AHEAD


def _index(pack: bytes) -> dict[str, packs.Member] | ArchiveError:
    try:
        return packs.read_index(pack, len(pack))
    except ArchiveError as error:
        return error
