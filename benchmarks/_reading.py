"""What benchmarks and tests of hostile files share: reading as a backfill does, and what that took."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from rmsai_ray.archives import packs
from rmsai_ray.archives.guard import parser_pid
from rmsai_ray.archives.limits import DEFAULT_LIMITS, Budget, Limits
from rmsai_ray.archives.packed import content_id
from rmsai_ray.archives.reader import read_archive
from rmsai_ray.archives.records import Archive
from rmsai_ray.backfill.rows import UnitRows
from rmsai_ray.errors import ArchiveError
from rmsai_ray.models.bundle import ModelSpec
from rmsai_ray.signals.leads import LEADS

SPEC = ModelSpec(
    family="framed",
    profile="framed-2400x64",
    window_samples=2400,
    stride_samples=2400,
    sampling_rate_hz=200.0,
    embedding_dim=64,
    leads=LEADS,
)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What became of a file."""

    reasons: tuple[str, ...]
    """Why it, or which of a pack's members, was refused; empty where all was read."""
    details: str
    num_events: int
    cpu_s: float
    """Of this process; what is unusual is read in another."""
    elapsed_s: float
    worker_mib: float
    """By which the peak of this process's memory exceeds what it had before."""
    parser_mib: float
    """Likewise of the process that HDF5's library is in; 0 where that died, or was not there before."""


def read_as_backfills_do(
    raw: bytes, name: str, limits: Limits = DEFAULT_LIMITS
) -> list[Archive | ArchiveError]:
    """An archive, or every member of a pack, down to the rows that the lake gets.

    Anything but an ArchiveError is a fault of ours.
    """
    if not name.endswith(packs.SUFFIX):
        return [_read(raw, name, limits)]
    try:
        members = packs.read_index(raw, len(raw))
    except ArchiveError as error:
        return [error]
    return [
        _read(
            raw[member.start : member.start + member.num_bytes], packs.member_uri(name, member.name), limits
        )
        for member in members.values()
    ]


def _read(raw: bytes, uri: str, limits: Limits) -> Archive | ArchiveError:
    try:
        archive = read_archive(raw, uri, archive_id=content_id(raw), budget=Budget(len(raw), limits))
    except ArchiveError as error:
        return error
    rows = UnitRows("run", "model", "unit", SPEC, "0")
    rows.add_archive(archive, uri, LEADS, tail=True)
    rows.tables()
    return archive


def measured(raw: bytes, name: str, limits: Limits = DEFAULT_LIMITS) -> Reading:
    """Reads a file, and looks at the clock and at both processes' memory."""
    parser = parser_pid()
    before = [_start(pid) for pid in (None, parser)]
    started, cpu = time.perf_counter(), time.process_time()
    found = read_as_backfills_do(raw, name, limits)
    cpu_s, elapsed_s = time.process_time() - cpu, time.perf_counter() - started
    worker_mib, parser_mib = (
        max(0.0, _peak_mib(pid) - start) if start else 0.0
        for pid, start in zip((None, parser), before, strict=True)
    )
    errors = [error for error in found if isinstance(error, ArchiveError)]
    return Reading(
        reasons=tuple(sorted({error.reason for error in errors})),
        details="; ".join(error.detail for error in errors[:2]),
        num_events=sum(len(each.events) for each in found if isinstance(each, Archive)),
        cpu_s=cpu_s,
        elapsed_s=elapsed_s,
        worker_mib=worker_mib,
        parser_mib=parser_mib,
    )


def _start(pid: int | None) -> float:
    """Forgets the peak of a process; returns its memory now, MiB. 0 where that cannot be known."""
    home = Path("/proc") / (str(pid) if pid else "self")
    try:
        (home / "clear_refs").write_text("5")
        return _peak_mib(pid)
    except OSError:
        return 0.0


def _peak_mib(pid: int | None) -> float:
    try:
        status = (Path("/proc") / (str(pid) if pid else "self") / "status").read_text()
    except OSError:
        return 0.0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) / 1024 if lines else 0.0
