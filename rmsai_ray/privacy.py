"""Pseudonyms: what stands for a person, a day or a file, as pure functions of a secret key.

A stand-in is the start of an HMAC-SHA-256 (RFC 2104) of the real name. Each kind of name has a key of its
own, derived from the secret, so that equal texts of two kinds have nothing in common. Nobody without the key
finds a name by trying all of them, as one could with a plain hash. Decision 0021 says what stays unprotected.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn

from rmsai_ray.errors import ConfigError, LakeError, RejectLimitError, RmsaiError

ENVIRONMENT_VARIABLE: Final = "RMSAI_PSEUDONYM_KEY"
JOB_CONFIG_VARIABLE: Final = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Where Ray puts a submitted job's runtime environment, which its dashboard shows."""

LEAST_KEY_BYTES: Final = 32
LEAST_DISTINCT_BYTES: Final = 12
"""32 random bytes have some 30 different values; fewer than this is a pattern that somebody typed."""

DAY_S: Final = 86_400
LEAST_SHIFT_DAYS, SHIFT_RANGE_DAYS = 36_525, 36_525
"""A century and up to another one: nobody takes a shifted date for a real one, and 2025 stays before 2262."""
UNKNOWN_PERIOD: Final = "unknown"
PERIOD: Final = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")
MIDDLE_OF_MONTH: Final = 15
WITHHELD: Final = "(withheld: --pseudonymise)"
_ABOUT_A_KEY: Final = re.compile(rf"{ENVIRONMENT_VARIABLE}='{re.escape(WITHHELD)}': [ -~]{{1,300}}")
"""What is wrong with a key, as :func:`_bad_key` says it; it quotes nothing."""
SPEAKS_OF_OPTIONS_ALONE: Final = (ConfigError, LakeError, RejectLimitError)
"""Errors whose text has nothing from an archive in it."""


class Pseudonymiser:
    """Stand-ins under one key. It cannot be pickled, so the key stays in the process that read it."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.fingerprint = self._hex("fingerprint", "", 16)
        """Says which key it was, and nothing about it."""

    @classmethod
    def from_environment(cls, fingerprint: str | None = None) -> Pseudonymiser:
        """Under the key of this process's environment.

        Args:
            fingerprint: of the key that it has to be, where that is known.

        Raises:
            ConfigError: there is no key, it is too short, it is another one, or it came in the submission of
                a job, where Ray's dashboard shows it.
        """
        if ENVIRONMENT_VARIABLE in os.environ.get(JOB_CONFIG_VARIABLE, ""):
            raise _bad_key(
                "came with the submitted job, whose environment Ray's dashboard shows",
                "Make a new key, and give it to the nodes, as their S3 credentials.",
            )
        one = cls(parse_key(os.environ.get(ENVIRONMENT_VARIABLE, "")))
        if fingerprint is not None and fingerprint != one.fingerprint:
            raise _bad_key(
                f"is on this machine the key {one.fingerprint}, the run's is {fingerprint}",
                "Give every node the same key.",
            )
        return one

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not sent to another process, which reads it from its own environment")

    def __repr__(self) -> str:
        return f"Pseudonymiser({self.fingerprint})"

    def patient(self, patient_id: str) -> str:
        """``P`` and 96 bits, as hex digits."""
        return "P" + self._hex("patient", patient_id, 24)

    def content(self, archive_id: str) -> str:
        """For a content hash: the plain one would tie lakes of two keys together."""
        return self._hex("content", archive_id, 32)

    def etag(self, etag: str) -> str:
        """For an object's etag, which is often a hash of its content."""
        return self._hex("etag", etag, 32) if etag else ""

    def file(self, uri: str) -> str:
        """For the name of an object or of a pack's member."""
        return self._hex("file", uri, 32)

    def uuid(self, uuid: str) -> str:
        """``U`` and 128 bits, as hex digits."""
        return "U" + self._hex("uuid", uuid, 32)

    def number(self, text: str, num_digits: int) -> str:
        """So many decimal digits, the first of them no zero."""
        low = 10 ** (num_digits - 1)
        return str(low + int(self._hex("number", text, 32), 16) % (9 * low))

    def shift_days(self, patient_id: str) -> int:
        """By how many days everything of a patient lies later: whole ones, so the time of day stays."""
        return LEAST_SHIFT_DAYS + int(self._hex("days", patient_id, 32), 16) % SHIFT_RANGE_DAYS

    def shift_s(self, patient_id: str) -> float:
        """The same in seconds."""
        return float(self.shift_days(patient_id) * DAY_S)

    def period(self, patient_id: str, period: str) -> str:
        """The month into which the middle of ``period`` (YYYY-MM) shifts; what is no month is ``unknown``."""
        found = PERIOD.fullmatch(period)
        if found is None or int(found[1]) == 0:
            return UNKNOWN_PERIOD
        middle = datetime(int(found[1]), int(found[2]), MIDDLE_OF_MONTH, tzinfo=UTC)
        try:
            return (middle + timedelta(days=self.shift_days(patient_id))).strftime("%Y-%m")
        except OverflowError:
            return UNKNOWN_PERIOD

    def modified(self, uri: str, modified: datetime) -> datetime:
        """When an object was written, shifted by an amount of its own, so that only the order of versions of
        one object is left of it."""
        shift_s = int(self._hex("modified", uri, 32), 16) % (SHIFT_RANGE_DAYS * DAY_S)
        return modified + timedelta(days=LEAST_SHIFT_DAYS, seconds=shift_s)

    def _hex(self, kind: str, text: str, num_digits: int) -> str:
        kind_key = hmac.digest(self._key, f"rmsai/{kind}".encode(), hashlib.sha256)
        return hmac.digest(kind_key, text.encode(errors="surrogatepass"), hashlib.sha256).hex()[:num_digits]


def parse_key(text: str) -> bytes:
    """The key that hex digits or base64 stand for.

    Raises:
        ConfigError: nothing, less than 32 bytes, or no random bytes; the text is not quoted.
    """
    text = text.strip()
    make = "python -c 'import secrets; print(secrets.token_hex(32))' makes one; keep it as you keep the data."
    if not text:
        raise _bad_key("is not set", make)
    try:
        key = bytes.fromhex(text)
    except ValueError:
        try:
            padded = text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)
            key = base64.b64decode(padded, validate=True)
        except (binascii.Error, ValueError):
            raise _bad_key("is neither hex digits nor base64", make) from None
    if len(key) < LEAST_KEY_BYTES:
        raise _bad_key(f"has {len(key)} bytes, fewer than {LEAST_KEY_BYTES}", make)
    if len(set(key)) < LEAST_DISTINCT_BYTES:
        raise _bad_key("is a pattern, not random bytes", make)
    return key


class quiet_errors:  # noqa: N801 - used as a statement
    """Within it, and where ``active``, an error tells its kind and place, and not its text, which may quote
    an archive or its name. Errors about options pass."""

    def __init__(self, active: bool) -> None:
        self._active = active

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if not self._active or not isinstance(error, Exception) or isinstance(error, SPEAKS_OF_OPTIONS_ALONE):
            return
        if isinstance(error, QuietError):
            return
        raise QuietError(_describe(error)) from None


class QuietError(RmsaiError):
    """Something failed while pseudonyms were asked for; kind and place of the error, without its text."""


def describe_error(error: BaseException, *, quiet: bool) -> str:
    """For a run's record."""
    return repr(error) if not quiet or isinstance(error, QuietError | RejectLimitError) else _describe(error)


def _describe(error: BaseException) -> str:
    complaint = _ABOUT_A_KEY.search(str(error))
    if complaint:  # of a worker, inside an error of Ray's
        return complaint[0]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place} {WITHHELD}"


def _bad_key(rule: str, fix: str) -> ConfigError:
    return ConfigError(ENVIRONMENT_VARIABLE, WITHHELD, rule, fix)
