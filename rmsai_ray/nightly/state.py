"""What a night has finished, in the lake, so that the same command goes on where a killed one stopped.

<lake>/nights/<YYYY-MM-DD>/begin.json     what was fixed when the night first began
<lake>/nights/<YYYY-MM-DD>/<step>.json    written when the step had ended well
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from rmsai_ray.storage import Store

FOLDER = "nights"
BEGIN, LAST_STEP = "begin", "report"
KEY = re.compile(rf"{FOLDER}/(\d{{4}}-\d\d-\d\d)/([a-z]+)\.json")

Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class NightState:
    """One night of a lake."""

    store: Store
    night: str
    """YYYY-MM-DD."""

    def find(self, step: str) -> Result | None:
        """What a finished step has said; None where it is not finished."""
        content = self.store.find(self._key(step))
        return None if content is None else json.loads(content)

    def put(self, step: str, result: Result) -> None:
        """The step is finished."""
        self.store.put(self._key(step), json.dumps(result, indent=1, default=str).encode())

    def forget(self, steps: tuple[str, ...]) -> None:
        """They are to be done again."""
        self.store.delete(self._key(step) for step in steps)

    def key(self, name: str) -> str:
        """Of a file of the night."""
        return f"{FOLDER}/{self.night}/{name}"

    def _key(self, step: str) -> str:
        return self.key(f"{step}.json")


def finished_steps(store: Store) -> dict[str, set[str]]:
    """Night → steps that it has finished."""
    found: dict[str, set[str]] = {}
    for info in store.list(FOLDER):
        if match := KEY.fullmatch(info.key):
            found.setdefault(match[1], set()).add(match[2])
    return found


def previous_night(store: Store, night: str) -> NightState | None:
    """The latest earlier night whose backfill ended."""
    earlier = [name for name, steps in finished_steps(store).items() if name < night and "backfill" in steps]
    return NightState(store=store, night=max(earlier)) if earlier else None


def due_nights(store: Store, last: date, *, most: int) -> list[date]:
    """The nights to do: unfinished ones and those that were missed, up to ``last``, in order."""
    steps = finished_steps(store)
    done = {night for night, found in steps.items() if LAST_STEP in found}
    if last.isoformat() in done:
        return []
    before = [night for night in done if night < last.isoformat()]
    if not before:
        begun = [night for night in steps if night <= last.isoformat()]
        first = date.fromisoformat(min(begun)) if begun else last
    else:
        first = date.fromisoformat(max(before)) + timedelta(days=1)
    first = max(first, last - timedelta(days=most - 1))
    return [first + timedelta(days=day) for day in range((last - first).days + 1)]


def results_before(store: Store, night: str, step: str, *, most: int) -> dict[str, Result]:
    """What a step said in the latest nights before this one, in order."""
    names = sorted(name for name, steps in finished_steps(store).items() if name < night and step in steps)
    return {
        name: NightState(store=store, night=name).find(step) or {}
        for name in names[max(0, len(names) - most) :]
    }


def time_of(text: str | None) -> datetime | None:
    """The inverse of ``isoformat``."""
    return None if text is None else datetime.fromisoformat(text)
