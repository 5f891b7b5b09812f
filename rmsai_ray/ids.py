"""Identities of archives, events, windows, units, runs and configurations: pure functions of content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

ARCHIVE_ID_LENGTH = 32


def archive_id(content: bytes) -> str:
    """Identity of an archive: the first 128 bits of the SHA-256 of its bytes, as 32 hex digits."""
    return hashlib.sha256(content).hexdigest()[:ARCHIVE_ID_LENGTH]


def event_uid(archive_id: str, event_id: str) -> str:
    """Key of an event. Event ids restart in every archive, so the archive is part of the key."""
    return f"{archive_id}/{event_id}"


def window_id(
    patient_id: str, period: str, event_id: str, lead: str, start_sample: int, archive_id: str
) -> str:
    """Key of a window: ``<patient>_<period>/<event>/<lead>/<start>@<archive>``.

    The first 48 bits of the archive id make it unique where the same patient and month lie in two archives.
    """
    before, after = window_id_around_start(patient_id, period, event_id, lead, archive_id)
    return f"{before}{start_sample}{after}"


def window_id_around_start(
    patient_id: str, period: str, event_id: str, lead: str, archive_id: str
) -> tuple[str, str]:
    """What the windows of one lead of one event share: the text before and after the start sample."""
    return f"{patient_id}_{period}/{event_id}/{lead}/", f"@{archive_id[:12]}"


def chunk_id(stem: str, event_id: str, lead_number: int, start_sample: int) -> str:
    """The source documents' name of a window: ``chunk_<file stem>_<event><lead number>_<start>``."""
    return f"{chunk_id_before_start(stem, event_id, lead_number)}{start_sample}"


def chunk_id_before_start(stem: str, event_id: str, lead_number: int) -> str:
    """What the windows of one lead of one event share of their chunk ids."""
    return f"chunk_{stem}_{event_digits(event_id)}{lead_number}_"


def seed_chunk_id(event_id: str, lead_number: int) -> str:
    """The first document's short form, ``chunk_<event><lead number>``: unique only inside one archive."""
    return f"chunk_{event_digits(event_id)}{lead_number}"


def event_digits(event_id: str) -> str:
    """``event_1001`` → ``1001``; a name without digits stays as it is."""
    return event_id.rpartition("_")[2] or event_id


def digest(parts: Iterable[str]) -> str:
    """16 hex digits over an ordered sequence of strings; the boundaries between them count."""
    h = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        h.update(len(encoded).to_bytes(8, "little"))
        h.update(encoded)
    return h.hexdigest()[:16]


def config_hash(options: dict[str, Any]) -> str:
    """16 hex digits over the options that can change a result; independent of their order."""
    return digest([json.dumps(options, sort_keys=True, separators=(",", ":"))])


def run_id(job: str, options: dict[str, Any]) -> str:
    """The job's name and the hash of every option that can change a result."""
    return f"{job}-{config_hash(options)}"
