"""What one archive may cost, and the account that is kept while it is read; changes with what is allowed.

Archives are untrusted. Every way of reading one charges the same account before it allocates or goes on, so
that an archive which asks for too much costs itself and nobody else.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from rmsai_ray.errors import ArchiveError, ConfigError

MEBIBYTE: Final = 1 << 20
MOST_EXPANSION: Final = 64
"""Decoded bytes per stored byte. Leads that are all zeros reach 32."""
FREE_ALLOWANCE: Final = 64 * MEBIBYTE
"""Decoded bytes that any file may have, however small."""

GROUPS_BETWEEN_LOOKS: Final = 8
LONG_TEXT: Final = 1 << 14

_JSON_BYTES: Final = {",": 40, ":": 40, "[": 100, "{": 240}
"""No more bytes of Python objects than these come of each such character of a JSON text."""
_MEMBER_BYTES: Final = 250
"""Of a link, and what may have to be said about it."""
_GROUP_BYTES: Final = 2000
"""Of an event or vital sign without its samples, texts and history."""
_TEXT_BYTES: Final = 4
"""Of one character, at most."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one archive. Exceeding one quarantines the archive, with a reason that names the limit."""

    memory_bytes: int = 256 * MEBIBYTE
    """Beyond its own bytes: samples as float64 at the higher of their own and the usual rate, texts, JSON."""
    seconds: float = 5.0
    """CPU time, so that a busy machine rejects nothing that an idle one takes."""
    depth: int = 8
    """Groups below each other; the format has four levels."""
    events: int = 20_000
    members: int = 1_000_000
    """Links of all groups that are opened; an event has 60."""
    attributes: int = 100_000
    """Of all objects whose attributes are looked at."""
    rates: int = 16
    """Different sampling rates; each needs a filter of its own. The format has three."""
    patience: float = 6.0
    """The process that parses unusual files is given up after so many times ``seconds`` by the clock."""

    def __post_init__(self) -> None:
        if self.memory_bytes < MEBIBYTE:
            raise ConfigError("archive_memory_mib", self.memory_bytes, "is too little", "Give at least 1.")
        if not 0 < self.seconds <= 3600:
            raise ConfigError("archive_seconds", self.seconds, "is no time", "Give 0 to 3600 seconds.")


DEFAULT_LIMITS: Final = Limits()


class Budget:
    """How much one archive may still cost; every method raises ArchiveError where that is too much."""

    __slots__ = (
        "_attributes_left",
        "_clock_end_s",
        "_honest_left",
        "_members_left",
        "_rates",
        "_ticks",
        "limits",
        "used",
    )

    def __init__(self, file_bytes: int, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self.used = 0
        """Bytes charged so far."""
        self._honest_left = FREE_ALLOWANCE + MOST_EXPANSION * file_bytes
        self._members_left = limits.members
        self._attributes_left = limits.attributes
        self._rates: set[float] = set()
        self._ticks = 0
        self._clock_end_s = time.thread_time() + limits.seconds

    def charge(self, num_bytes: int, where: str) -> None:
        """To be called before allocating.

        Raises:
            ArchiveError: oversized, where a file of this size cannot honestly hold so much; too_large, where
                no archive may; too_slow.
        """
        self.used += num_bytes
        self._honest_left -= num_bytes
        if self._honest_left < 0:
            raise ArchiveError("oversized", f"{where} declares {num_bytes} bytes more than its file can hold")
        if self.used > self.limits.memory_bytes:
            most = self.limits.memory_bytes // MEBIBYTE
            raise ArchiveError("too_large", f"with {where} it needs more than {most} MiB of memory")

    def refund(self, num_bytes: int) -> None:
        """What was charged and is no longer held."""
        self.used -= num_bytes
        self._honest_left += num_bytes

    def charge_json(self, content: str, where: str) -> int:
        """Before a JSON text is parsed; returns what it was charged, which is more than it can become."""
        if len(content) > LONG_TEXT:
            self._look()
        num_bytes = _TEXT_BYTES * len(content)
        for character, each in _JSON_BYTES.items():
            num_bytes += each * content.count(character)
        self.charge(num_bytes, where)
        return num_bytes

    def tick(self) -> None:
        """To be called before every step of unknown length, and often.

        Raises:
            ArchiveError: too_slow.
        """
        self._ticks += 1
        if self._ticks % GROUPS_BETWEEN_LOOKS != 1:
            return  # the clock costs as much as a group
        self._look()

    def _look(self) -> None:
        if time.thread_time() > self._clock_end_s:
            raise ArchiveError("too_slow", f"reading it takes more than {self.limits.seconds:g} s")

    def enter(self, path: str) -> None:
        """Before a group is opened.

        Raises:
            ArchiveError: too_deep, too_slow.
        """
        if path and path.count("/") >= self.limits.depth:
            raise ArchiveError("too_deep", f"{path:.200} lies below more than {self.limits.depth} groups")
        self.tick()
        self.charge(_GROUP_BYTES, path)

    @property
    def members_left(self) -> int:
        """For whoever must not be interrupted while they are listed."""
        return self._members_left

    @property
    def attributes_left(self) -> int:
        """Likewise."""
        return self._attributes_left

    def count_members(self, count: int) -> None:
        """Links that were found in a group. Raises ArchiveError, too_many."""
        self._members_left -= count
        if self._members_left < 0:
            raise ArchiveError("too_many", f"its groups have more than {self.limits.members:,} members")
        self.charge(_MEMBER_BYTES * count, "its groups")

    def count_attributes(self, count: int) -> None:
        """Attributes that were found. Raises ArchiveError, too_many."""
        self._attributes_left -= count
        if self._attributes_left < 0:
            raise ArchiveError("too_many", f"it has more than {self.limits.attributes:,} attributes")

    def count_events(self, count: int) -> None:
        """Events that were found. Raises ArchiveError, too_many."""
        if count > self.limits.events:
            raise ArchiveError("too_many", f"it has {count:,} events, more than {self.limits.events:,}")

    def count_rate(self, rate_hz: float) -> None:
        """A sampling rate that was found. Raises ArchiveError, too_many."""
        self._rates.add(rate_hz)
        if len(self._rates) > self.limits.rates:
            raise ArchiveError("too_many", f"it has more than {self.limits.rates} different sampling rates")
