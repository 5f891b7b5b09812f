"""The process that meets untrusted bytes: archives come in, what they hold goes out, nothing else is open.

Started by :mod:`~rmsai_ray.archives.guard` as ``python -m rmsai_ray.archives.parser_process``. It may open no
file, write none, start nothing, and neither use more memory nor more processor time than an archive may.
It ends when its parent does.

A message is two lengths, a head (JSON) and a body: a request and the bytes of an archive, or an answer and
the samples of its signals.
"""

from __future__ import annotations

import mmap
import os
import resource
import select
import signal
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final

from rmsai_ray.archives.limits import MEBIBYTE, Budget, Limits
from rmsai_ray.archives.reader import ReadOptions, read_by_library
from rmsai_ray.archives.transport import from_json, of_problems, to_json, to_parts
from rmsai_ray.archives.validate import judge_by_library
from rmsai_ray.errors import ArchiveError

LENGTHS: Final = struct.Struct("<QQ")
"""Bytes of the head and of the body."""
SECONDS_BETWEEN_LOOKS: Final = 20
"""At whether the parent is still there; usually it closes the pipe."""
INTERPRETER_BYTES: Final = 64 * MEBIBYTE
"""For what Python, HDF5 and the answer need beside what an archive is charged for."""
GRACE_S: Final = 0.5
"""Between the limit that the reader keeps by itself and the signal that ends the process."""

MOST_FILES: Final = 16
_MEMORY: Final = Path("/proc/self/statm")

REFUSED: Final = (
    "open", "os.", "shutil.", "socket.", "subprocess.", "ctypes.", "mmap.", "pty.", "urllib.", "webbrowser.",
)  # fmt: skip
"""Audit events of what no reader of archives has any business with."""


def main() -> None:
    """Answers requests until the parent closes the pipe."""
    memory = os.open(_MEMORY, os.O_RDONLY) if _MEMORY.exists() else None
    parent = os.getppid()
    _lock_in(memory)
    incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
    while True:
        while not select.select([0], [], [], SECONDS_BETWEEN_LOOKS)[0]:
            if os.getppid() != parent:
                return
        lengths = incoming.read(LENGTHS.size)
        if len(lengths) < LENGTHS.size:
            return
        head_bytes, body_bytes = LENGTHS.unpack(lengths)
        request = from_json(incoming.read(head_bytes))
        raw = incoming.read(body_bytes)
        _answer(request, raw, memory, outgoing)
        del raw


def _lock_in(memory: int | None) -> None:
    for what in ("RLIMIT_FSIZE", "RLIMIT_NPROC", "RLIMIT_CORE"):
        if hasattr(resource, what):
            resource.setrlimit(getattr(resource, what), (0, 0))
    none_left = MOST_FILES if memory is None else memory + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (none_left, none_left))
    sys.addaudithook(_refuse)


def _refuse(event: str, _: tuple[Any, ...]) -> None:
    if event.startswith(REFUSED):
        raise PermissionError(f"a parser of archives has no business with {event}")


def _answer(request: dict[str, Any], raw: bytes, memory: int | None, outgoing: BinaryIO) -> None:
    limits = Limits(**request["limits"])
    _limit(limits, memory)
    samples: list[bytes] = []
    try:
        head, samples = _work(request, raw, limits)
        encoded = to_json(head)
    except ArchiveError as error:
        encoded = to_json({"error": [error.reason, error.detail]})
    except MemoryError:
        samples.clear()
        _unlimit(memory)
        detail = f"it needs more than {limits.memory_bytes // MEBIBYTE} MiB of memory"
        encoded = to_json({"error": ["too_large", detail]})
    _unlimit(memory)
    outgoing.write(LENGTHS.pack(len(encoded), sum(map(len, samples))))
    outgoing.write(encoded)
    outgoing.writelines(samples)
    outgoing.flush()


def _work(request: dict[str, Any], raw: bytes, limits: Limits) -> tuple[dict[str, Any], list[bytes]]:
    budget = Budget(len(raw), limits)
    if request["what"] == "validate":
        verdict = judge_by_library(raw, request["uri"], request["profile"], budget)
        return {"status": verdict.status, "problems": of_problems(verdict.problems)}, []
    archive = read_by_library(
        raw,
        request["uri"],
        options=ReadOptions(**request["options"]),
        archive_id=request["archive_id"],
        detour=request["detour"],
        budget=budget,
    )
    head, samples = to_parts(archive)
    return {"archive": head, "used": budget.used}, samples


def _limit(limits: Limits, memory: int | None) -> None:
    """From here on the kernel keeps the limits, whatever HDF5 does."""
    signal.setitimer(signal.ITIMER_PROF, limits.seconds + GRACE_S)
    if memory is not None:
        pages = int(os.pread(memory, 100, 0).split()[0])
        most = pages * mmap.PAGESIZE + limits.memory_bytes + INTERPRETER_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def _unlimit(memory: int | None) -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
