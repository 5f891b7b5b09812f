"""The record of a run: what was asked, with which versions, what came of it."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rmsai_ray import REVISION, __version__, lineage
from rmsai_ray.errors import StorageError
from rmsai_ray.lineage import Written
from rmsai_ray.scrubbing import scrub_values
from rmsai_ray.storage import Store

KEPT_INVOCATIONS = 100
LOG_EVERY_S = 30.0
"""What a killed driver has not written yet is at most so old."""
LINES_PER_OBJECT = 1000
MOST_LINES_KEPT = 20_000
"""While the lake does not take them."""

RECORDED_PACKAGES = ("ray", "torch", "pyarrow", "lancedb", "pylance", "h5py", "numpy", "obstore", "duckdb")


@dataclass(kw_only=True)
class RunRecord:
    """``runs/<run_id>/run.json``.

    The same command again is the same run: its record keeps a line for each of the last invocations and the
    whole of the latest one.
    """

    run_id: str
    job: str
    argv: list[str]
    config: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    """What was resolved at the start: model, threshold profile, resources."""
    status: str = "running"
    started: str = field(default_factory=lambda: now().isoformat())
    ended: str | None = None
    counts: dict[str, Any] = field(default_factory=dict)
    timings_s: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    invocations: list[dict[str, Any]] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    """The tables to which this invocation added rows."""

    def begin(self, store: Store) -> None:
        """Writes the record with status ``running``, keeping the lines of earlier invocations."""
        earlier = store.find(self._key)
        if earlier is not None:
            self.invocations = json.loads(earlier)["invocations"][1 - KEPT_INVOCATIONS :]
        self.invocations.append({"started": self.started, "status": self.status})
        self._write(store)
        lineage.tell(self, store)

    def finish(self, store: Store, status: str, error: str | None = None) -> None:
        """Completes the record."""
        self.status, self.error, self.ended = status, error, now().isoformat()
        self.invocations[-1] = {
            "started": self.started,
            "ended": self.ended,
            "status": status,
            "counts": self.counts,
        }
        self._write(store)
        lineage.tell(self, store)

    @cached_property
    def log_prefix(self) -> str:
        """What the keys of this invocation's logs begin with."""
        return log_prefix(self.run_id)

    @property
    def _key(self) -> str:
        return f"runs/{self.run_id}/run.json"

    def _write(self, store: Store) -> None:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        values["written"] = [asdict(table) for table in self.written]
        record = {**values, "versions": versions(), "code_version": code_version()}
        plain = json.loads(json.dumps(record, default=str))
        store.put(self._key, json.dumps(scrub_values(plain), indent=2).encode())


class JsonLog(logging.Handler):
    """Collects log records as JSON lines, and writes them in objects of their own every half minute or so.

    What cannot be written now is kept for the next time: a log never ends a run.
    """

    def __init__(self, store: Store, run_id: str, prefix: str | None = None) -> None:
        super().__init__(level=logging.INFO)
        self._store, self._run_id = store, run_id
        self._prefix = prefix or log_prefix(run_id)
        self._lines: list[str] = []
        self._num_written, self._last_write = 0, time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Adds one line; ``extra={"fields": {…}}`` of the log call becomes further keys."""
        self._lines.append(json_line(record, run_id=self._run_id))
        is_full = len(self._lines) % LINES_PER_OBJECT == 0
        if is_full or time.monotonic() - self._last_write > LOG_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Writes what has come since the last time."""
        self._last_write = time.monotonic()
        if not self._lines:
            return
        try:
            self._store.put(
                f"{self._prefix}-driver-{self._num_written:04}.jsonl", "\n".join([*self._lines, ""]).encode()
            )
        except StorageError as error:
            del self._lines[:-MOST_LINES_KEPT]
            logging.getLogger().warning("the log waits: %s", error)  # not to itself
            return
        self._num_written += 1
        self._lines.clear()


def log_prefix(run_id: str) -> str:
    """What the keys of an invocation's logs begin with; in the order of their starts."""
    return f"runs/{run_id}/logs/{now():%Y%m%dT%H%M%S.%fZ}"


def json_line(record: logging.LogRecord, **common: Any) -> str:
    """A log record as one line of JSON, with ``common`` and the fields of the record itself."""
    line = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
        "level": record.levelname,
        "logger": record.name,
        "message": record.getMessage(),
        **common,
        **getattr(record, "fields", {}),
    }
    if record.exc_info and record.exc_info[1]:
        line["error"] = repr(record.exc_info[1])
    return json.dumps(scrub_values(line), default=str)


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


@cache
def versions() -> dict[str, str]:
    """Versions of Python, this package and the packages that decide results."""
    found = {"python": platform.python_version(), "rmsai_ray": __version__}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


@cache
def code_version() -> str:
    """``<version>+<git revision>``, ``.dirty`` where the checkout differs.

    Of a copy that ``git archive`` packed, the revision that it was packed from; otherwise outside of git the
    version alone.
    """
    if not REVISION.startswith("$"):
        return f"{__version__}+{REVISION[:12]}"
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return answer.stdout.strip()

    revision = git("rev-parse", "--short=12", "HEAD")
    if not revision:
        return __version__
    return f"{__version__}+{revision}{'.dirty' if git('status', '--porcelain', '--', '.') else ''}"


def command_line() -> list[str]:
    """The command as typed, without the interpreter's path."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]
