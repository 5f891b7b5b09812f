"""Telling people: alerts go to a webhook and to a file, each change at least once; a failure loses nothing.

The table remembers how many changes each way has taken. A change is told and then remembered, so that a
crash between the two tells it again, under the same key.
"""

from __future__ import annotations

import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from rmsai_ray.errors import ConfigError, StorageError
from rmsai_ray.storage import Store
from rmsai_ray.tables.alerts import Alert, change_alerts, read_alerts

log = logging.getLogger(__name__)

SECRET_VARIABLE = "RMSAI_WEBHOOK_SECRET"
"""Goes into the header ``Authorization: Bearer …``; nothing else ever has it."""
ADDRESS_VARIABLE = "RMSAI_WEBHOOK_URL"
"""Where the address may be named instead of in a command line, which everybody sees."""
TIMEOUT_S = 10.0
ATTEMPTS, FIRST_PAUSE_S, LONGEST_PAUSE_S = 4, 0.5, 4.0
WORTH_ANOTHER_TRY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)

Way = Literal["webhook", "file"]


class NotDeliveredError(StorageError):
    """A message was not taken; the next run tries again."""


class Messenger(Protocol):
    """One way to tell somebody."""

    @property
    def way(self) -> Way:
        """Which one."""

    def send(self, message: dict[str, Any]) -> None:
        """Returns when the message was taken.

        Raises:
            NotDeliveredError: it was not.
        """


def deliver(store: Store, messengers: list[Messenger]) -> dict[str, int]:
    """Tells what has not been told yet; returns how many messages each way could not take."""
    return {messenger.way: _deliver(store, messenger) for messenger in messengers}


def message_of(row: Alert, lake: str) -> dict[str, Any]:
    """An alert as JSON; ``key`` is the same for the same change, whenever it is told."""
    hidden = ("notices", "sent_webhook", "sent_file")
    plain = {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in row.items()
        if name not in hidden
    }
    return {"key": f"{row['alert_id']}-{row['notices']}", "lake": lake, **plain}


def _deliver(store: Store, messenger: Messenger) -> int:
    column, failed = f"sent_{messenger.way}", 0
    for row in read_alerts(store):
        if row["notices"] <= row[column]:
            continue
        try:
            messenger.send(message_of(row, store.uri))
        except NotDeliveredError as error:
            failed += 1
            log.warning("%s; the next run tries again", error)
        else:
            _remember(store, row["alert_id"], column, row["notices"])
    return failed


def _remember(store: Store, alert_id: str, column: str, notices: int) -> None:
    def apply(rows: list[Alert]) -> list[Alert]:
        return [
            row | {column: max(row[column], notices)} if row["alert_id"] == alert_id else row for row in rows
        ]

    change_alerts(store, apply)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would take the secret to another host."""

    def redirect_request(self, *_args: Any, **_options: Any) -> None:
        return None


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """POSTs each change as JSON, with its key as ``Idempotency-Key``. An answer of 2xx means taken."""

    url: str
    sleep: Callable[[float], None] = time.sleep
    way: Way = "webhook"

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("webhook", parts.scheme, "is no http(s) address", "Write https://host/path.")
        if parts.username or parts.password:
            fix = f"Put the secret into the variable {SECRET_VARIABLE}."
            raise ConfigError("webhook", parts.hostname, "has a secret in its address", fix)

    def send(self, message: dict[str, Any]) -> None:
        """Tries again after 408, 429, 5xx, and where no answer came."""
        reason, pause_s = "", FIRST_PAUSE_S
        for attempt in range(ATTEMPTS):
            if attempt:
                self.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            try:
                with _opener().open(self._request(message), timeout=TIMEOUT_S):
                    return
            except urllib.error.HTTPError as error:
                reason = f"{error.code}"
                error.close()
                if error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code not in WORTH_ANOTHER_TRY:
                    break
            except OSError as error:  # refused, timed out, no such host
                reason = str(getattr(error, "reason", error))
        host = urlsplit(self.url).hostname  # the path of a webhook may be a secret of its own
        raise NotDeliveredError(f"the webhook at {host} did not take alert {message['key']}: {reason}")

    def _request(self, message: dict[str, Any]) -> urllib.request.Request:
        headers = {"Content-Type": "application/json", "Idempotency-Key": message["key"]}
        if secret := os.environ.get(SECRET_VARIABLE):
            headers["Authorization"] = f"Bearer {secret}"
        return urllib.request.Request(
            self.url, data=json.dumps(message).encode(), headers=headers, method="POST"
        )


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirects)


@dataclass(frozen=True, kw_only=True)
class AlertFile:
    """Appends each change to a local file, a line of JSON; one that is there already is not written again."""

    path: Path
    way: Way = "file"

    def send(self, message: dict[str, Any]) -> None:
        """Returns when it is on disk."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            content = self.path.read_bytes() if self.path.exists() else b""
            if any(_key_of(line) == message["key"] for line in content.splitlines()):
                return
            mended = (
                b"" if not content or content.endswith(b"\n") else b"\n"
            )  # after a line cut off by a crash
            with self.path.open("ab") as file:
                file.write(mended + json.dumps(message).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise NotDeliveredError(f"cannot write alerts to {self.path}: {error}") from error


def _key_of(line: bytes) -> str | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found.get("key") if isinstance(found, dict) else None
