"""From the bytes of an archive to its events; changes when another variant of the format turns up.

Nothing is lost silently: what deviates from the format is a problem with a code, of the archive or of the
event, and what makes the whole archive useless is an error with a reason.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Final

from rmsai_ray.archives import format as archive_format
from rmsai_ray.archives.direct import NOT_DIRECT, open_direct
from rmsai_ray.archives.events import EventReader
from rmsai_ray.archives.guard import read_guarded
from rmsai_ray.archives.hdf5 import open_archive
from rmsai_ray.archives.limits import Budget
from rmsai_ray.archives.nodes import Group, Scalar, UnreadableError
from rmsai_ray.archives.packed import PackedArchive, content_id, is_packed
from rmsai_ray.archives.packs import archive_name
from rmsai_ray.archives.problems import problem
from rmsai_ray.archives.records import Archive, Event, Problem
from rmsai_ray.archives.values import text, writable
from rmsai_ray.archives.waveforms import WaveformReader
from rmsai_ray.errors import ArchiveError

LONGEST_PATIENT_ID: Final = 128


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What to read, and how."""

    gain_mv_per_count: float | None = None
    """Millivolts per count of ECGs that are stored as integers; None leaves them in counts, unit ``raw``."""
    vitals: bool = True
    """Whether to read vital signs."""
    waveforms: bool = False
    """Whether to read PPG and RESP."""


DEFAULTS: Final = ReadOptions()


def read_archive(
    raw: bytes,
    uri: str,
    *,
    options: ReadOptions = DEFAULTS,
    archive_id: str | None = None,
    budget: Budget | None = None,
) -> Archive:
    """Reads one archive of any variant.

    Args:
        raw: the whole object, or a packed archive.
        uri: where it came from; its file name may tell patient and month (``PT1234_2025-09.h5``).
        options: what to read.
        archive_id: :func:`~rmsai_ray.archives.packed.content_id` of the bytes, where the caller has it
            already.
        budget: what it may cost, and then has cost; of the usual limits where none is given.

    What is unusual is read by HDF5's library, in a process of its own. An event that cannot be used is absent
    from ``events``, and has a fatal problem in ``problems``.

    Raises:
        ArchiveError: nothing of it can be used; ``reason`` is a code of
            :data:`~rmsai_ray.archives.problems.PROBLEMS`.
    """
    archive_id = archive_id or content_id(raw)
    budget = budget or Budget(len(raw))
    if is_packed(raw):
        return _read(PackedArchive(raw, budget).root, uri, options, archive_id, detour=None)
    try:
        return _read(open_direct(raw, budget), uri, options, archive_id, detour=None)
    except NOT_DIRECT as error:
        detour = str(error)
    return read_guarded(
        raw, uri, options=asdict(options), archive_id=archive_id, detour=detour, budget=budget
    )


def read_by_library(
    raw: bytes,
    uri: str,
    *,
    options: ReadOptions,
    archive_id: str,
    detour: str | None = None,
    budget: Budget | None = None,
) -> Archive:
    """As :func:`read_archive`, with HDF5's library: the way for every file of another layout, or damaged.

    In this process; :func:`read_archive` never lets it come so far. Slower, and the judge of what damage
    costs. ``detour`` is the reason for it, and becomes the archive's.
    """
    with open_archive(raw, budget or Budget(len(raw))) as root:
        return _read(root, uri, options, archive_id, detour)


def _read(root: Group, uri: str, options: ReadOptions, archive_id: str, detour: str | None) -> Archive:
    stem = PurePosixPath(archive_name(uri)).stem
    keys = event_keys(root)
    root.budget.count_events(len(keys))
    if not keys:
        raise ArchiveError("no_events", "no group is named event_<number>")
    problems: list[Problem] = []
    metadata, attributes = _read_metadata(root, problems)
    patient_id = _patient_id(metadata, stem, problems)
    variant = _variant(keys[0], metadata)
    signals = WaveformReader(metadata, options.gain_mv_per_count)
    reader = EventReader(
        signals,
        first_key=keys[0],
        patient_id=patient_id,
        is_vdx=variant == "vdx",
        metadata=metadata,
        attributes=attributes,
        with_vitals=options.vitals,
        with_waveforms=options.waveforms,
    )
    events = [event for key in keys if (event := reader.read(root, key, problems)) is not None]
    return Archive(
        archive_id=archive_id,
        stem=stem,
        patient_id=patient_id,
        period=_period(stem, events),
        variant=variant,
        metadata=writable(attributes | metadata),
        events=tuple(events),
        problems=tuple(signals.problems + problems),
        detour=detour,
    )


def event_keys(root: Group) -> list[str]:
    """Names of the event groups, by number."""
    matches = [match for match in map(archive_format.EVENT_KEY.fullmatch, root.names) if match]
    return [match[0] for match in sorted(matches, key=lambda match: (int(match[1]), match[0]))]


def _read_metadata(root: Group, problems: list[Problem]) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
    """The scalar datasets of the metadata group, and its attributes."""
    metadata: dict[str, Scalar] = {}
    attributes: dict[str, Scalar] = {}
    try:
        group = root.group("metadata")
    except UnreadableError:
        group = None
    if group is not None:
        values = {name: group.scalar(name) for name in group.names}
        metadata = {name: value for name, value in values.items() if value is not None}
        attributes = group.attributes()
    fields = [item.path.removeprefix("metadata/") for item in archive_format.METADATA if item.lenient]
    missing = [name for name in fields if name not in metadata]
    if missing:
        problems.append(problem("missing_metadata", "metadata", ", ".join(missing)))
    return metadata, attributes


def _patient_id(metadata: dict[str, Scalar], stem: str, problems: list[Problem]) -> str:
    match = archive_format.FILE_STEM.fullmatch(stem)
    from_name = match["patient"] if match else None
    from_metadata = text(metadata.get("patient_id"))
    patient_id = from_metadata or from_name
    if patient_id is None or not patient_id.isprintable() or len(patient_id) > LONGEST_PATIENT_ID:
        raise ArchiveError("no_patient", f"metadata say {from_metadata!r}, the file name {from_name!r}")
    if from_name not in (None, patient_id):
        detail = f"{patient_id}, but the file is named {stem}"
        problems.append(problem("patient_mismatch", "metadata/patient_id", detail))
    return patient_id


def _variant(first_key: str, metadata: dict[str, Scalar]) -> str:
    if archive_format.VDX_METADATA & metadata.keys():
        return "vdx"
    if "max_vital_history" in metadata:
        return "v3"
    if len(first_key) <= len("event_001"):
        return "vdx"
    return "v2" if "sampling_rate_resp" in metadata else "v1"


def _period(stem: str, events: list[Event]) -> str:
    match = archive_format.FILE_STEM.fullmatch(stem)
    if match:
        return match["period"]
    times = (event.time_s for event in events if event.time_s is not None)
    first = next(times, None)
    return "unknown" if first is None else datetime.fromtimestamp(first, UTC).strftime("%Y-%m")
