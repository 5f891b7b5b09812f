"""Takes secrets out of texts that are kept or shown: run records, logs, messages, what a terminal shows.

Known are the values of this process's environment, and the forms in which credentials travel in texts. The
rest of a text stays as it is.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

HIDDEN = "***"
LEAST_SECRET_CHARS = 6
"""A shorter value would be found in texts that have nothing to do with it."""

WORD = r"secret|token|passw(?:or)?d|credential|signature|private[_-]?key|access[_-]?key|api[_-]?key"
NAMES = re.compile(rf"(?i){WORD}|^RMSAI_\w*KEY$|^FSSPEC_S3_KEY$")
"""Names whose values are secret, of environment variables, options and JSON keys."""
PUBLIC_VALUES = frozenset({"true", "false", "disabled", "enabled"})

JOB_CONFIG_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Where Ray puts the runtime environment of a submitted job, which its dashboard shows."""

USER_IN_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,20}://)[^\s/?#'\"@]*@")
SIGNED_URI = re.compile(r"(?i)[?&](?:x-amz-|awsaccesskeyid=|signature=|sig=|token=)")
BEARER = re.compile(r"(?i)(\bbearer\s+)[\w.~+/=-]{6,}")
KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{12,}\b")
ANY_WORD = re.compile(rf"(?i){WORD}|awsaccesskeyid|\bsig=")
NAMED_VALUE = re.compile(
    rf"(?i)(?P<name>(?:{WORD}|awsaccesskeyid|\bsig)[\w-]{{0,40}}[\\\"']{{0,4}}\s*[=:]\s*[\\\"']{{0,4}})"
    r"[^\s&,;\\\"')}\]]+"
)


def scrub(text: str) -> str:
    """The text with every secret replaced by ``***``.

    That is ``s3://key:secret@bucket``, ``Bearer …``, AWS's key ids, ``?X-Amz-Signature=…``,
    ``aws_secret_key: …``, and whatever a variable of the environment holds whose name says that it is secret.
    """
    return _scrub(text, _secrets_of_environment())


def scrub_values(value: Any) -> Any:
    """The same for all texts in lists and mappings; what has a secret name is hidden whatever it is."""
    return _scrub_values(value, _secrets_of_environment())


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether the value of a variable, option or key of this name is secret."""
    return NAMES.search(name) is not None


def has_credentials(text: str) -> bool:
    """Whether a URI in it carries a user, a password or a signature."""
    return "://" in text and (USER_IN_URI.search(text) or SIGNED_URI.search(text)) is not None


def secrets_shown_by_ray() -> list[str]:
    """Names of secret variables that came with a submitted job, whose environment Ray's dashboard shows."""
    submitted = json.loads(os.environ.get(JOB_CONFIG_VARIABLE) or "{}")
    variables: Iterable[str] = (submitted.get("runtime_env") or {}).get("env_vars") or {}
    return sorted(name for name in variables if is_secret_name(name))


def _scrub(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    text = KEY_ID.sub(HIDDEN, BEARER.sub(rf"\g<1>{HIDDEN}", text))
    if "@" in text:
        text = USER_IN_URI.sub(rf"\g<scheme>{HIDDEN}@", text)
    if ANY_WORD.search(text):
        text = NAMED_VALUE.sub(rf"\g<name>{HIDDEN}", text)
    return text


def _scrub_values(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        return _scrub(value, secrets)
    if isinstance(value, Mapping):
        return {key: _scrub_item(str(key), item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_scrub_values(item, secrets) for item in value]
    return value


def _scrub_item(name: str, value: Any, secrets: Sequence[str]) -> Any:
    return HIDDEN if isinstance(value, str) and is_secret_name(name) else _scrub_values(value, secrets)


def _secrets_of_environment() -> list[str]:
    """Their values, also as a URI has them; the longest first, for one may contain another."""
    found = set()
    for name, value in os.environ.items():
        if len(value) >= LEAST_SECRET_CHARS and is_secret_name(name) and value.lower() not in PUBLIC_VALUES:
            found |= {value, quote(value, safe="")}
    return sorted(found, key=len, reverse=True)
