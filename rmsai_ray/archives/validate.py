"""Whether an archive keeps to its format; changes when a profile asks for more or less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rmsai_ray.archives import format as archive_format
from rmsai_ray.archives.hdf5 import open_archive
from rmsai_ray.archives.nodes import Group, UnreadableError
from rmsai_ray.archives.problems import problem
from rmsai_ray.archives.reader import ReadOptions, event_keys, read_archive
from rmsai_ray.archives.records import Problem
from rmsai_ray.errors import ArchiveError

Profile = Literal["lenient", "strict"]
Status = Literal["ok", "degraded", "fatal"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the validator thinks of an archive."""

    status: Status
    problems: tuple[Problem, ...]


def validate(raw: bytes, uri: str, profile: Profile = "lenient") -> Verdict:
    """Reads everything in an archive, and says how usable it is.

    ``lenient`` is the reader's own judgement: fatal where no event can be used, degraded where anything
    deviates. ``strict`` also demands every item that the original validator demands; one missing is fatal.
    """
    try:
        archive = read_archive(raw, uri, options=ReadOptions(waveforms=True))
        missing = _missing_items(raw) if profile == "strict" else []
    except ArchiveError as error:
        return Verdict(status="fatal", problems=(problem(error.reason, "", error.detail),))
    of_events = [found for event in archive.events for found in event.problems]
    problems = (*missing, *archive.problems, *of_events)
    if missing or not archive.events:
        return Verdict(status="fatal", problems=problems)
    return Verdict(status="degraded" if problems else "ok", problems=problems)


def _missing_items(raw: bytes) -> list[Problem]:
    with open_archive(raw) as root:
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
