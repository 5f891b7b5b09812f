"""A small JSON document that several writers change: every change is a numbered object, first writer wins.

Nothing is ever overwritten or removed: the document is what the highest number says, and the lower numbers
are its history. A writer that was overtaken reads again and applies its change to what it finds.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from typing import Any

from rmsai_ray.errors import StorageError
from rmsai_ray.storage import Store

Document = dict[str, Any]

NUMBERED = re.compile(r"(\d{8})\.json")
MAX_ATTEMPTS = 100
"""Each lost one is another writer's change that came through."""


class Revisions:
    """The document of one folder of a store."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._folder = store, folder

    def read(self, number: int | None = None) -> Document | None:
        """The document as it is now, or as revision ``number`` left it; None where there is no such thing.

        Raises:
            StorageError: the revision is no JSON object.
        """
        newest = self.newest()
        number = newest if number is None else number
        return self._read(number) if 1 <= number <= newest else None

    def change(self, apply: Callable[[Document | None], Document | None]) -> Document:
        """Applies a change to the present document, and returns what it became.

        Args:
            apply: makes the new document of the present one (None before the first), or None where there is
                nothing to change. May be called several times, and must not change what it is given.

        Raises:
            StorageError: other writers were faster a hundred times.
        """
        for _ in range(MAX_ATTEMPTS):
            number = self.newest()
            present = self._read(number) if number else None
            changed = apply(present)
            if changed is None:
                return present or {}
            if self._store.create(self._key(number + 1), _encode(changed)):
                return changed
        raise StorageError(
            f"{self._store.child_uri(self._folder)} changes too fast to be changed. Try again."
        )

    def newest(self) -> int:
        """The number of the last change; 0 before the first."""
        names = (info.key.removeprefix(f"{self._folder}/") for info in self._store.list(self._folder))
        return max((int(found[1]) for name in names if (found := NUMBERED.fullmatch(name))), default=0)

    def _read(self, number: int) -> Document:
        key = self._key(number)
        try:
            found = json.loads(self._store.get(key))["document"]
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{self._store.child_uri(key)} is no revision: {error!r}") from error
        if not isinstance(found, dict):
            raise StorageError(f"{self._store.child_uri(key)} holds no document")
        return found

    def _key(self, number: int) -> str:
        return f"{self._folder}/{number:08d}.json"


def _encode(document: Document) -> bytes:
    """With a mark of its own, so that two writers of the same change are two writers."""
    return json.dumps({"writer": uuid.uuid4().hex, "document": document}, indent=1).encode()
