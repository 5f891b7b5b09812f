"""HDF5's library in a process of its own, whose death costs one archive; changes with how it is kept.

The library is C, and archives are untrusted: a crash, an endless loop or a flood of memory in it must not end
a worker. There is one such process per worker, started when the first unusual archive comes; it is killed and
replaced when it dies or takes too long, and ends with the worker.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rmsai_ray.archives.limits import Budget, Limits
from rmsai_ray.archives.records import Archive, Problem
from rmsai_ray.archives.transport import ERRORS, from_json, from_parts, to_json, to_problems
from rmsai_ray.errors import ArchiveError

COMMAND: Final = ("-P", "-m", "rmsai_ray.archives.parser_process")
MOST_TRIES: Final = 2
"""Of one archive: a process may also die of something else, which shall cost nothing."""
LARGEST_PIECE: Final = 1 << 20
START_S: Final = 60.0
"""To start the process, beside the time for its first archive."""
_KEPT_VARIABLES: Final = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TZ")
_VARIABLES: Final = {
    "HDF5_PLUGIN_PRELOAD": "::",  # no filter is ever loaded
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "LC_ALL": "C.UTF-8",
}
_LENGTHS_BYTES: Final = 16


class _DiedError(Exception):
    """The process ended in the middle of an archive, by this signal or code."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}")


class _OverdueError(Exception):
    """The process does not answer."""


def read_guarded(
    raw: bytes, uri: str, *, options: dict[str, Any], archive_id: str, detour: str | None, budget: Budget
) -> Archive:
    """As :func:`~rmsai_ray.archives.reader.read_by_library`, in the process.

    ``options`` are the fields of its options.

    Raises:
        ArchiveError: as it does; and parser_died, too_slow, too_large.
    """
    request = {
        "what": "read",
        "uri": uri,
        "options": options,
        "archive_id": archive_id,
        "detour": detour,
        "limits": asdict(budget.limits),
    }
    head, samples = _ask(request, raw, budget.limits)
    try:
        archive = from_parts(head["archive"], memoryview(samples))
        budget.used = int(head["used"])
    except ERRORS as error:
        raise ArchiveError("parser_died", f"the parser's answer is no archive: {error!r:.200}") from error
    return archive


def validate_guarded(raw: bytes, uri: str, profile: str, limits: Limits) -> tuple[str, tuple[Problem, ...]]:
    """Status and problems, as :func:`~rmsai_ray.archives.validate.judge_by_library` says, in the process.

    Raises:
        ArchiveError: as :func:`read_guarded`.
    """
    request = {"what": "validate", "uri": uri, "profile": profile, "limits": asdict(limits)}
    head, _ = _ask(request, raw, limits)
    try:
        return str(head["status"]), to_problems(head["problems"])
    except ERRORS as error:
        raise ArchiveError("parser_died", f"the parser's answer is no verdict: {error!r:.200}") from error


def _ask(request: dict[str, Any], raw: bytes, limits: Limits) -> tuple[dict[str, Any], bytearray]:
    with _LOCK:
        try:
            answer, samples = _PARSER.ask(to_json(request), raw, limits)
            head = from_json(answer)
            if "error" not in head:
                return head, samples
            reason, detail = map(str, head["error"])
        except _OverdueError as error:
            raise ArchiveError(
                "too_slow", f"no answer after {limits.seconds * limits.patience:g} s"
            ) from error
        except _DiedError as error:
            if error.code == -signal.SIGPROF:
                raise ArchiveError("too_slow", f"HDF5 needs more than {limits.seconds:g} s for it") from error
            raise ArchiveError("parser_died", f"HDF5's library crashed on it: {error}") from error
        except ERRORS as error:
            raise ArchiveError("parser_died", f"the parser's answer is none: {error!r:.200}") from error
    raise ArchiveError(reason, detail)


def close_parser() -> None:
    """Ends the process of this worker, if there is one; the next unusual archive starts another."""
    with _LOCK:
        _PARSER.close()


def parser_pid() -> int | None:
    """Of the process of this worker, if there is one."""
    return _PARSER.pid


class Parser:
    """The process, started when it is needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    @property
    def pid(self) -> int | None:
        """Of the process that is there now."""
        return None if self._process is None else self._process.pid

    def ask(self, head: bytes, body: bytes, limits: Limits) -> tuple[bytearray, bytearray]:
        """Head and body of the answer. A process that dies is asked again, but for one that took too long."""
        for attempt in range(1, MOST_TRIES + 1):
            try:
                return self._ask_once(head, body, limits)
            except (_DiedError, _OverdueError) as error:
                self.close()
                is_sure = isinstance(error, _DiedError) and error.code == -signal.SIGPROF
                if is_sure or attempt == MOST_TRIES:
                    raise
        raise AssertionError("it is tried at least once")

    def close(self) -> None:
        """Ends the process, if there is one of ours."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return  # a forked process has no right to its parent's
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.kill()
        process.wait()

    def _ask_once(self, head: bytes, body: bytes, limits: Limits) -> tuple[bytearray, bytearray]:
        end_s = time.monotonic() + limits.seconds * limits.patience
        if self._process is None or self._owner != os.getpid():
            self._start()
            end_s += START_S
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        lengths = len(head).to_bytes(8, "little") + len(body).to_bytes(8, "little")
        try:
            _send(process.stdin.fileno(), (lengths, head, body), end_s)
            lengths = bytes(_receive(process.stdout.fileno(), _LENGTHS_BYTES, end_s))
            sizes = [int.from_bytes(lengths[at : at + 8], "little") for at in (0, 8)]
            if sum(sizes) > 2 * limits.memory_bytes:
                raise ValueError(f"an answer of {sum(sizes)} bytes")
            answer, samples = (_receive(process.stdout.fileno(), size, end_s) for size in sizes)
        except (BrokenPipeError, EOFError) as error:
            raise _DiedError(process.wait()) from error
        except ValueError:
            self.close()
            raise
        return answer, samples

    def _start(self) -> None:
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, *COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**kept, **_VARIABLES, "PYTHONPATH": path},  # no credentials
            cwd="/",
            bufsize=0,
        )
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)


def _send(pipe: int, parts: Sequence[bytes], end_s: float) -> None:
    for part in parts:
        left = memoryview(part)
        while left:
            _wait([], [pipe], end_s)
            left = left[os.write(pipe, left[:LARGEST_PIECE]) :]


def _receive(pipe: int, num_bytes: int, end_s: float) -> bytearray:
    content = bytearray(num_bytes)
    left = memoryview(content)
    while left:
        _wait([pipe], [], end_s)
        count = os.readv(pipe, [left[:LARGEST_PIECE]])
        if not count:
            raise EOFError
        left = left[count:]
    return content


def _wait(readable: list[int], writable: list[int], end_s: float) -> None:
    poll = select.poll()
    for pipe in readable:
        poll.register(pipe, select.POLLIN)
    for pipe in writable:
        poll.register(pipe, select.POLLOUT)
    if not poll.poll(max(0.0, end_s - time.monotonic()) * 1000):
        raise _OverdueError


_LOCK: Final = threading.Lock()
_PARSER: Final = Parser()
atexit.register(_PARSER.close)
