"""Whether an archive keeps to its format; changes when a profile asks for more or less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from rmsai_ray.archives import format as archive_format
from rmsai_ray.archives.direct import NOT_DIRECT, open_direct
from rmsai_ray.archives.direct_headers import UnknownLayoutError
from rmsai_ray.archives.guard import validate_guarded
from rmsai_ray.archives.hdf5 import open_archive
from rmsai_ray.archives.limits import DEFAULT_LIMITS, Budget, Limits
from rmsai_ray.archives.nodes import Group, UnreadableError
from rmsai_ray.archives.packed import PackedArchive, is_packed
from rmsai_ray.archives.problems import problem
from rmsai_ray.archives.reader import ReadOptions, event_keys, read_archive, read_by_library
from rmsai_ray.archives.records import Archive, Problem
from rmsai_ray.errors import ArchiveError

Profile = Literal["lenient", "strict"]
Status = Literal["ok", "degraded", "fatal"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the validator thinks of an archive."""

    status: Status
    problems: tuple[Problem, ...]


_OPTIONS: Final = ReadOptions(waveforms=True)


def validate(raw: bytes, uri: str, profile: Profile = "lenient", limits: Limits = DEFAULT_LIMITS) -> Verdict:
    """Reads everything in an archive, and says how usable it is.

    ``lenient`` is the reader's own judgement: fatal where no event can be used, degraded where anything
    deviates. ``strict`` also demands every item that the original validator demands; one missing is fatal.
    """
    budget = Budget(len(raw), limits)

    def read() -> tuple[Archive, list[Problem]]:
        archive = read_archive(raw, uri, options=_OPTIONS, budget=budget)
        if profile == "lenient":
            return archive, []
        if archive.detour is not None:
            raise UnknownLayoutError(archive.detour)
        root = PackedArchive(raw, budget).root if is_packed(raw) else open_direct(raw, budget)
        return archive, _missing_items(root)

    try:
        return _judge(read)
    except NOT_DIRECT:
        pass
    try:
        status, problems = validate_guarded(raw, uri, profile, limits)
    except ArchiveError as error:
        return _fatal(error)
    return Verdict(status=_STATUSES[status], problems=problems)


def judge_by_library(raw: bytes, uri: str, profile: Profile, budget: Budget) -> Verdict:
    """As :func:`validate`, with HDF5's library, in this process."""

    def read() -> tuple[Archive, list[Problem]]:
        archive = read_by_library(raw, uri, options=_OPTIONS, archive_id="", budget=budget)
        if profile == "lenient":
            return archive, []
        with open_archive(raw, budget) as root:
            return archive, _missing_items(root)

    return _judge(read)


_STATUSES: Final[dict[str, Status]] = {"ok": "ok", "degraded": "degraded", "fatal": "fatal"}


def _judge(read: Callable[[], tuple[Archive, list[Problem]]]) -> Verdict:
    try:
        archive, missing = read()
    except ArchiveError as error:
        return _fatal(error)
    of_events = [found for event in archive.events for found in event.problems]
    problems = (*missing, *archive.problems, *of_events)
    if missing or not archive.events:
        return Verdict(status="fatal", problems=problems)
    return Verdict(status="degraded" if problems else "ok", problems=problems)


def _fatal(error: ArchiveError) -> Verdict:
    return Verdict(status="fatal", problems=(problem(error.reason, "", error.detail),))


def _missing_items(root: Group) -> list[Problem]:
    paths = archive_format.required_paths(event_keys(root))
    absent = [path for path in paths if not _has_dataset(root, path)]
    return [problem("missing_item", path, "the strict profile requires it") for path in absent]


def _has_dataset(root: Group, path: str) -> bool:
    *groups, name = path.split("/")
    group: Group | None = root
    try:
        for part in groups:
            group = None if group is None else group.group(part)
        return group is not None and group.dataset(name) is not None
    except UnreadableError:
        return False
