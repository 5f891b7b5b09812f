"""Fetches the objects of a unit, many at a time and each once, and never far ahead of who parses them."""

from __future__ import annotations

import logging
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
from rmsai_ray.errors import ArchiveError, DeniedError, StorageError

FETCHES_IN_FLIGHT = 16
MOST_BYTES_AHEAD = 16 << 20
"""Of objects that are on their way or wait for the parser; a larger object travels alone."""
LEAST_BYTES = 1 << 14
"""What the smallest object counts as."""
MAX_PAUSE_S = 8.0
MAX_DENIED_PAUSE_S = 30.0

log = logging.getLogger(__name__)

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
    """Reads one object, up to ``attempts`` times, with growing pauses; see :func:`pause_s`."""
    for attempt in range(1, attempts + 1):
        try:
            return Fetched(read(), attempt)
        except StorageError as error:
            is_denied = isinstance(error, DeniedError)
            if attempt == attempts:
                reason = "permission_denied" if is_denied else "storage_error"
                return Fetched(None, attempt, ArchiveError(reason, str(error)))
            why = type(error.__cause__ or error).__name__  # its text may name what has a pseudonym
            log.warning("read %d of %d failed: %s", attempt, attempts, why)
        (pause or time.sleep)(pause_s(attempt, is_denied=is_denied))
    raise AssertionError("attempts is at least 1")


def pause_s(attempt: int, *, is_denied: bool) -> float:
    """Seconds after a failed attempt, from 1: each longer than the one before, up to a cap, with jitter.

    A store that is busy may answer soon. One that denies has answered, and will not think otherwise before
    somebody has done something: a writer that sets rights last, a role that takes time to be known.
    """
    longest, first, growth = (MAX_DENIED_PAUSE_S, 1.0, 4.0) if is_denied else (MAX_PAUSE_S, 0.5, 2.0)
    return float(min(longest, first * growth ** (attempt - 1)) * random.uniform(0.5, 1.0))


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
