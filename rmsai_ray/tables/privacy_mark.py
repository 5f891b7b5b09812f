"""Whether a lake has real names or pseudonyms, and under which key: never two of these in one lake."""

from __future__ import annotations

import json

from rmsai_ray.errors import ConfigError, LakeError
from rmsai_ray.storage import Store

KEY = "privacy.json"
FOLDERS_OF_ROWS = ("archives", "ledger", "windows", "events", "rejects")


def read_mark(lake: Store) -> str | None:
    """Fingerprint of the key of the lake's pseudonyms; None where it has real names, or nothing."""
    content = lake.find(KEY)
    return None if content is None else str(json.loads(content)["key_fingerprint"])


def check_mark(lake: Store, fingerprint: str | None) -> None:
    """Whether a run whose pseudonyms have this key may write; None is a run with real names.

    Raises:
        ConfigError: the lake holds rows of another kind.
    """
    found = read_mark(lake)
    if found == fingerprint:
        return
    fix = "Use another lake: rows with and without pseudonyms, or of two keys, would tell who is who."
    if fingerprint is None:
        raise ConfigError("pseudonymise", False, f"the lake has pseudonyms under the key {found}", fix)
    if found is not None:
        rule = f"the lake has pseudonyms under the key {found}, this one is {fingerprint}"
        raise ConfigError("pseudonymise", True, rule, fix)
    if any(True for folder in FOLDERS_OF_ROWS for _ in lake.list(folder)):
        raise ConfigError("pseudonymise", True, "the lake has rows with real names", fix)


def mark_lake(lake: Store, fingerprint: str | None) -> None:
    """Writes the mark before the first row; for the one run that holds the lake.

    Raises:
        ConfigError: as :func:`check_mark`.
        LakeError: another run was faster.
    """
    check_mark(lake, fingerprint)
    if fingerprint is None or read_mark(lake) == fingerprint:
        return
    content = json.dumps({"pseudonymised": True, "key_fingerprint": fingerprint}).encode()
    if not lake.create(KEY, content):
        raise LakeError(f"{lake.child_uri(KEY)} was written by another run at the same time: try again")
