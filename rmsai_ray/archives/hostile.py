"""Archives that were made to do harm, one for each way that is known: for tests, fuzzing and measurements."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from rmsai_ray.archives.hostile_bytes import BYTES
from rmsai_ray.archives.hostile_hdf5 import HDF5, LINKS
from rmsai_ray.archives.hostile_packs import PACKED, PACKS
from rmsai_ray.archives.packs import SUFFIX
from rmsai_ray.archives.simulator import DEFAULT_PERIOD, archive_name

FIRST_PATIENT_INDEX = 9500


@dataclass(frozen=True, kw_only=True)
class HostileFile:
    """A file, and what becomes of it."""

    file_name: str
    content: bytes
    reason: str | None
    """Why it is quarantined (:data:`~rmsai_ray.archives.problems.PROBLEMS`); None where it is read, without
    harm. A pack counts as what its members are."""


def hostile_reasons() -> dict[str, str | None]:
    """What each kind is quarantined for, as :attr:`HostileFile.reason`."""
    return {kind: reason for kind, (reason, _) in (BYTES | HDF5 | PACKED | PACKS | LINKS).items()}


def hostile_files(outside: str = "/etc/hostname") -> dict[str, HostileFile]:
    """One file per kind, by kind. ``outside`` is a file that links and external storage lead to."""
    links = {kind: make(outside) for kind, (_, make) in LINKS.items()}
    makers = {kind: make for kind, (_, make) in (BYTES | HDF5 | PACKED | PACKS).items()} | links
    found = {}
    for index, (kind, reason) in enumerate(hostile_reasons().items()):
        name = archive_name(FIRST_PATIENT_INDEX + index, DEFAULT_PERIOD)
        if kind in PACKS:
            name = str(PurePosixPath(name).with_suffix(SUFFIX))
        if kind == "no_patient_in_the_name":
            name = "export.h5"
        found[kind] = HostileFile(file_name=name, content=makers[kind](), reason=reason)
    return found
