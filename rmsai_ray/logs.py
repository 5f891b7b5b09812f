"""What workers log, in one object per unit; reading, and removing, the logs of all runs of a lake."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rmsai_ray.errors import ConfigError, StorageError
from rmsai_ray.runs import json_line, now
from rmsai_ray.scrubbing import scrub_values
from rmsai_ray.storage import Store

PACKAGE = "rmsai_ray"
MOST_MESSAGES = 500
"""Of one unit beside its archives; a worker that says more has said the same before."""
READS_IN_FLIGHT = 16
LOGGED_COLUMNS = (
    "uri", "archive_id", "unit_id", "status", "attempts", "num_events", "num_windows", "num_rejects", "error",
)  # fmt: skip

FROM_OUTSIDE = ("uri", "error")
"""Texts of a line that are not ours."""

log = logging.getLogger(__name__)


def archive_line(row: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What the log says of one archive.

    Args:
        row: its row of the ``archives`` table.
        seconds: that its reader waited for it and worked on it.
    """
    ended = now()
    return {
        "time": ended.isoformat(),
        "started": (ended - timedelta(seconds=seconds)).isoformat(),
        "seconds": round(seconds, 6),
        "level": "WARNING" if row["status"] == "quarantined" else "INFO",
        "message": "archive",
        **{name: row[name] for name in LOGGED_COLUMNS},
    }


class WorkerLog(logging.Handler):
    """Collects what a worker says while it works on a unit, and writes it as an object of that unit.

    Args:
        store: the lake.
        run_id: goes into every line.
        prefix: of the invocation's logs, see :func:`rmsai_ray.runs.log_prefix`.
        stage: what this worker does of a unit.
    """

    def __init__(self, store: Store, run_id: str, prefix: str, stage: str) -> None:
        super().__init__(level=logging.INFO)
        self._store, self._prefix, self._stage = store, prefix, stage
        self._common = {"run_id": run_id, "worker": {"node": socket.gethostname(), "pid": os.getpid()}}
        self._unit_id = ""
        self._messages: list[str] = []
        self._num_left_out = self._num_written = 0

    @contextmanager
    def unit(self, unit_id: str) -> Iterator[None]:
        """Collects while the block lasts. What made it fail is logged too."""
        self._unit_id, self._num_written = unit_id, 0
        logger = logging.getLogger(PACKAGE)
        logger.addHandler(self)
        try:
            yield
        except BaseException:
            log.exception("the unit failed")
            raise
        finally:
            logger.removeHandler(self)
            self.write(())

    def emit(self, record: logging.LogRecord) -> None:
        """Adds one line."""
        if len(self._messages) < MOST_MESSAGES:
            self._messages.append(json_line(record, unit_id=self._unit_id, stage=self._stage, **self._common))
        else:
            self._num_left_out += 1

    def write(self, archives: Iterable[dict[str, Any]]) -> None:
        """Writes the lines of archives and what was said so far.

        A log that cannot be written is left behind with a warning: it never costs a unit.
        """
        lines = [json.dumps(line | self._common) for line in _scrubbed(archives)] + self._messages
        if self._num_left_out:
            left_out = {"message": f"{self._num_left_out} more", "unit_id": self._unit_id, **self._common}
            lines.append(json.dumps({"time": now().isoformat(), "level": "WARNING", **left_out}))
        if not lines:
            return
        part = f"-{self._num_written}" if self._num_written else ""
        try:
            key = f"{self._prefix}-{self._unit_id}-{self._stage}{part}.jsonl"
            self._store.put(key, "\n".join([*lines, ""]).encode())
        except StorageError as error:
            logging.getLogger().warning("a unit's log is lost: %s", error)
        self._num_written += 1
        self._num_left_out = 0
        self._messages.clear()


@dataclass(frozen=True, kw_only=True)
class LogFilter:
    """Which lines of a run's logs are wanted."""

    archive: str | None = None
    """Part of an archive's URI, or its id."""
    level: str = "DEBUG"
    """Least level."""

    def __post_init__(self) -> None:
        if self.level.upper() not in logging.getLevelNamesMapping():
            raise ConfigError("level", self.level, "is no level", "Give INFO, WARNING or ERROR.")

    def lets_through(self, line: dict[str, Any]) -> bool:
        """Whether a line is wanted."""
        levels = logging.getLevelNamesMapping()
        if levels.get(line["level"], 0) < levels[self.level.upper()]:
            return False
        return self.archive is None or any(
            self.archive in str(line.get(name)) for name in ("uri", "archive_id")
        )


def runs_with_logs(store: Store) -> list[str]:
    """Ids of the lake's runs that logged anything, the last one last."""
    latest: dict[str, str] = {}
    for info in store.list("runs"):
        _, run_id, folder, *rest = [*info.key.split("/"), "", ""]
        if folder == "logs":
            latest[run_id] = max(latest.get(run_id, ""), rest[0])
    return sorted(latest, key=lambda run_id: latest[run_id])


def read_logs(store: Store, run_id: str, wanted: LogFilter) -> list[dict[str, Any]]:
    """The lines of all invocations of a run, by time."""
    keys = sorted(info.key for info in store.list(f"runs/{run_id}/logs"))
    with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
        found = [line for content in pool.map(store.get, keys) for line in _lines(content, wanted)]
    return sorted(found, key=lambda line: str(line["time"]))


def remove_old_logs(store: Store, keep_days: float) -> int:
    """Removes logs and lineage that are older, of all runs; returns how many objects. Run records stay."""
    oldest = now() - timedelta(days=keep_days)
    old = [info.key for info in store.list("runs") if _is_log(info.key) and info.modified < oldest]
    store.delete(old)
    return len(old)


def _scrubbed(archives: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Lines of archives, without secrets in what came from outside; all at once costs a tenth."""
    lines = list(archives)
    outside = [{name: line[name] for name in FROM_OUTSIDE if line.get(name)} for line in lines]
    for line, texts in zip(lines, scrub_values(outside), strict=True):
        yield line | texts


def _is_log(key: str) -> bool:
    parts: Sequence[str] = key.split("/")
    return len(parts) == 4 and parts[2] in ("logs", "lineage")


def _lines(content: bytes, wanted: LogFilter) -> Iterator[dict[str, Any]]:
    for text in content.decode().splitlines():
        line = json.loads(text)
        if wanted.lets_through(line):
            yield line
