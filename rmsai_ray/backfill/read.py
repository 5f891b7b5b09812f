"""Reads a unit: objects → archives → windows with their identity and quality, and rows for all that is lost.

Shapes: N windows, T samples of a window.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rmsai_ray.archives.limits import DEFAULT_LIMITS, MEBIBYTE, Budget, Limits
from rmsai_ray.archives.packed import content_id
from rmsai_ray.archives.pseudonyms import Door
from rmsai_ray.archives.reader import ReadOptions, read_archive
from rmsai_ray.archives.records import Archive, Problem
from rmsai_ray.archives.sources import open_source
from rmsai_ray.archives.validate import validate
from rmsai_ray.backfill.fetch import Fetched, Fetcher
from rmsai_ray.backfill.plan import Unit, source_of
from rmsai_ray.backfill.report import BY_LIBRARY
from rmsai_ray.backfill.rows import UnitRows
from rmsai_ray.errors import ArchiveError
from rmsai_ray.logs import archive_line
from rmsai_ray.models.bundle import ModelSpec
from rmsai_ray.privacy import quiet_errors
from rmsai_ray.tables.blocks import UnitTables

USUAL_GROWTH = 16
"""Bytes in memory per byte of an archive; leads that all are flat are beyond."""
EXCESS_BYTES = 1024 * MEBIBYTE
"""That a unit's archives may have together beyond the usual."""


@dataclass(frozen=True, kw_only=True)
class ReadTask:
    """What every reader of a run needs to know; small, and the same for all of them."""

    archives_uri: str
    run_id: str
    model_id: str
    code_version: str
    spec: ModelSpec
    leads: tuple[str, ...]
    tail: bool
    strict: bool
    attempts: int
    max_archive_bytes: int
    pseudonyms: str | None = None
    """Fingerprint of the key under which names are replaced, which is in the worker's environment."""
    options: ReadOptions = field(default_factory=ReadOptions)
    limits: Limits = DEFAULT_LIMITS


class UnitMemory:
    """How much the archives of a unit that grow without measure may grow together.

    They are held at the same time, so that many small ones could do what none may alone. Those that grow as
    archives do are never refused for the sake of others.
    """

    def __init__(self) -> None:
        self._left = EXCESS_BYTES

    def charge(self, used: int, file_bytes: int) -> None:
        """After an archive was read.

        Raises:
            ArchiveError: too_large.
        """
        excess = used - USUAL_GROWTH * file_bytes
        if excess > 0:
            self._left -= excess
        if excess > 0 and self._left < 0:
            detail = f"{file_bytes} bytes become {used}, as too much in its unit does already"
            raise ArchiveError("too_large", detail)


class UnitReader:
    """Reads units of one run; holds the client."""

    def __init__(self, task: ReadTask) -> None:
        self._task = task
        self._door = Door.under(task.pseudonyms)
        source = open_source(task.archives_uri)
        self._fetcher = Fetcher(source, attempts=task.attempts, max_archive_bytes=task.max_archive_bytes)

    def read(self, unit: Unit) -> UnitTables:
        """Reads with many GETs in flight, one per object, be it one archive or a pack of them.

        Every archive ends committed, skipped, unchanged or quarantined.
        """
        with quiet_errors(self._door.is_closed):
            return self._read(unit)

    def _read(self, unit: Unit) -> UnitTables:
        started = last = time.perf_counter()
        task = self._task
        lines: list[dict[str, Any]] = []
        rows = UnitRows(task.run_id, task.model_id, unit.unit_id, task.spec, task.code_version)
        archives: list[dict[str, Any]] = []
        seen: set[str] = set()
        num_bytes: Counter[str] = Counter()
        unit_memory = UnitMemory()
        for planned, fetched in self._fetcher.fetch_all(unit.archives):
            num_bytes["read"] += len(fetched.content or b"")
            archives.append(self._take(planned, fetched, rows, seen, num_bytes, unit_memory))
            lines.append(archive_line(archives[-1], time.perf_counter() - last))
            last = time.perf_counter()
        windows, events, rejects = rows.tables()
        return UnitTables(
            unit_id=unit.unit_id,
            archives=archives,
            windows=windows,
            events=events,
            rejects=rejects,
            seconds={"read": time.perf_counter() - started},
            num_bytes=dict(num_bytes),
            lines=lines,
        )

    def _take(
        self,
        planned: dict[str, Any],
        fetched: Fetched,
        rows: UnitRows,
        seen: set[str],
        num_bytes: Counter[str],
        unit_memory: UnitMemory,
    ) -> dict[str, Any]:
        """Adds an archive's rows; returns its row of the ``archives`` table."""
        row = self._archive_row(planned, rows.unit_id, fetched.attempts)
        try:
            if fetched.error or fetched.content is None:
                raise fetched.error or ArchiveError("unreadable", "no bytes")
            row["archive_id"] = archive_id = self._door.archive_id(content_id(fetched.content))
            if archive_id == planned["previous_archive_id"]:
                return {**row, "status": "unchanged"}
            if archive_id in seen or archive_id in planned["same_size_ids"]:
                return {**row, "status": "skipped"}
            read = self._parse(fetched.content, source_of(planned), archive_id, unit_memory)
            archive = self._door.archive(read)
            if archive.detour:
                num_bytes[BY_LIBRARY] += len(fetched.content)
            row |= rows.add_archive(archive, planned["uri"], self._task.leads, tail=self._task.tail)
            seen.add(archive_id)
        except ArchiveError as found:
            error = self._door.error(found)
            rows.reject(planned["uri"], row["archive_id"], "archive", "", error.reason, error.detail)
            row |= {"status": "quarantined", "error": str(error), "num_rejects": 1}
        return row

    def _parse(self, content: bytes, uri: str, archive_id: str, unit_memory: UnitMemory) -> Archive:
        limits = self._task.limits
        if self._task.strict and (verdict := validate(content, uri, "strict", limits)).status == "fatal":
            raise _as_error(verdict.problems)
        budget = Budget(len(content), limits)
        archive = read_archive(content, uri, options=self._task.options, archive_id=archive_id, budget=budget)
        unit_memory.charge(budget.used, len(content))
        if not archive.events:
            raise _as_error([found for found in archive.problems if found.severity == "fatal"])
        return archive

    def _archive_row(self, planned: dict[str, Any], unit_id: str, attempts: int) -> dict[str, Any]:
        return {
            "uri": planned["uri"],
            "model_id": self._task.model_id,
            "archive_id": None,
            "size": planned["size"],
            "etag": planned["etag"],
            "modified_time": planned["modified_time"].isoformat(),
            "status": "committed",
            "attempts": attempts,
            "patient_id": None,
            "period": None,
            "variant": None,
            "degraded": False,
            "num_events": 0,
            "num_windows": 0,
            "num_rejects": 0,
            "error": None,
            "unit_id": unit_id,
            "run_id": self._task.run_id,
            "committed_time": datetime.now(UTC).isoformat(),
        }


def _as_error(problems: Sequence[Problem]) -> ArchiveError:
    """The first problem as the reason why nothing of an archive is used."""
    return ArchiveError(problems[0].code, f"{problems[0].where}: {problems[0].detail}")


def unit_to_json(unit: Unit) -> str:
    """A unit as the one value that is sent to a reader."""
    return json.dumps({"unit_id": unit.unit_id, "archives": unit.archives}, default=datetime.isoformat)


def unit_from_json(text: str) -> Unit:
    """The inverse of :func:`unit_to_json`."""
    values = json.loads(text)
    for archive in values["archives"]:
        archive["modified_time"] = datetime.fromisoformat(archive["modified_time"])
    return Unit(**values)
