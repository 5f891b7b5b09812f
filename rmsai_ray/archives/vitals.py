"""From the groups below ``vitals`` to vital signs; changes when another way of writing them turns up."""

from __future__ import annotations

import math
from typing import Any

from rmsai_ray.archives import format as archive_format
from rmsai_ray.archives.nodes import Group, UnreadableError
from rmsai_ray.archives.problems import problem
from rmsai_ray.archives.records import Problem, Vital
from rmsai_ray.archives.values import LATEST_EPOCH_S, epoch_s, finite, label, read_extras, writable

_READ_ELSEWHERE = frozenset(
    {"value", "units", "timestamp", "extras", "lower_threshold", "upper_threshold", "history"}
)
_ENTRY_REFUND_BYTES = 240
"""What an entry of a history was charged as JSON, and no longer takes."""
_OTHER_NAMES = {"time_since_change": "time_since_posture_change"}
"""Keys of the VDX converter and the original ones."""


def read_vitals(event: Group, *, is_vdx: bool, problems: list[Problem]) -> dict[str, Vital]:
    """All vital signs of an event by name, the format's first; deviations are added to ``problems``.

    With ``is_vdx``, a value of 0 and thresholds of 0 and 100 are the converter's way to say unknown.
    """
    where = f"{event.path}/vitals"
    try:
        group = event.group("vitals")
    except UnreadableError as error:
        problems.append(problem("missing_vitals", where, str(error)))
        return {}
    present = [] if group is None else group.names
    vitals = {}
    for name in [*archive_format.VITALS, *(name for name in present if name not in archive_format.VITALS)]:
        vital = None if group is None else _read_vital(group, name, is_vdx, problems)
        if vital is not None:
            vitals[name] = vital
    missing = [name for name in archive_format.VITALS if name not in vitals]
    if missing:
        problems.append(problem("missing_vitals", where, ", ".join(missing)))
    if any("history_source" in vital.extras for vital in vitals.values()):
        problems.append(problem("synthetic_history", where, "the converter invented the history"))
    return vitals


def _read_vital(vitals: Group, name: str, is_vdx: bool, problems: list[Problem]) -> Vital | None:
    try:
        group = vitals.group(name)
    except UnreadableError:
        return None
    if group is None:
        return None
    extras, history = _extras_and_history(group, problems)
    lower, upper = _thresholds(group, extras, is_vdx)
    value, units, time_s = (
        finite(group.scalar("value")),
        _units(group, name),
        epoch_s(group.scalar("timestamp")),
    )
    if value is None or units is None or time_s is None:
        found = f"value {value}, units {units}, time {time_s}"
        problems.append(problem("incomplete_vital", group.path, found))
    return Vital(
        value=None if is_vdx and value == 0 and _zero_is_missing(name) else value,
        units=units or "",
        time_s=time_s,
        lower_threshold=lower,
        upper_threshold=upper,
        history=history,
        extras={
            _OTHER_NAMES.get(key, key): writable(content)
            for key, content in extras.items()
            if key not in _READ_ELSEWHERE
        },
    )


def _extras_and_history(
    group: Group, problems: list[Problem]
) -> tuple[dict[str, Any], tuple[tuple[float, float], ...]]:
    parsed = None if "generated_by" in group else group.parsed_extras()
    if parsed is not None:
        return _scalars(group) | parsed[0], parsed[1]
    extras = _scalars(group) | read_extras(group, problems)
    history = _history(group, extras, problems)
    group.budget.refund(_ENTRY_REFUND_BYTES * len(history))
    return extras, history


def _scalars(group: Group) -> dict[str, Any]:
    """Scalar datasets that are no part of every vital: step_count and the like in the older generations."""
    values = {name: group.scalar(name) for name in group.names if name not in _READ_ELSEWHERE}
    return {name: value for name, value in values.items() if value is not None}


def _zero_is_missing(name: str) -> bool:
    return name in archive_format.VITALS and archive_format.VITALS[name].zero_is_missing


def _units(group: Group, name: str) -> str | None:
    units = label(group.scalar("units"))
    if units is None:
        return None
    return archive_format.VITAL_UNITS.get((name, units)) or archive_format.UNITS.get(units, units)


def _thresholds(group: Group, extras: dict[str, Any], is_vdx: bool) -> tuple[float | None, float | None]:
    lower, upper = (
        finite(extras[name] if name in extras else group.scalar(name))
        for name in ("lower_threshold", "upper_threshold")
    )
    return (
        (None, None) if is_vdx and (lower, upper) == archive_format.VDX_DEFAULT_THRESHOLDS else (lower, upper)
    )


def _history(
    group: Group, extras: dict[str, Any], problems: list[Problem]
) -> tuple[tuple[float, float], ...]:
    """(epoch seconds, value), oldest first. Marks an invented history in ``extras``."""
    entries = extras.get("history", [])
    if not isinstance(entries, list):
        problems.append(problem("bad_history", f"{group.path}/extras", "history is not a list"))
        return ()
    usable = plain_history(entries)
    is_plain = usable is not None
    if usable is None:
        usable = _odd_history(entries)
    if len(usable) < len(entries):
        detail = f"{len(entries) - len(usable)} of {len(entries)} entries lack a usable time or value"
        problems.append(problem("bad_history", f"{group.path}/extras", detail))
    if "generated_by" in extras or (
        not is_plain and any(isinstance(entry, dict) and "generated_by" in entry for entry in entries)
    ):
        extras["history_source"] = "synthetic"
    return tuple(sorted(usable))


def plain_history(entries: list[Any]) -> list[tuple[float, float]] | None:
    """That of entries which are nothing but a usable time and value each; None where one is more or less."""
    try:
        times_s = [entry["timestamp"] for entry in entries]
        values = [entry["value"] for entry in entries]
        sums = sum(times_s), sum(values)  # finite only where all of them are
        if not times_s or {*map(len, entries)} != {2} or not {*map(type, times_s + values)} <= {int, float}:
            return None
        if not (all(map(math.isfinite, sums)) and min(times_s) > 0 and max(times_s) < LATEST_EPOCH_S):
            return None
        return list(zip(map(float, times_s), map(float, values), strict=True))
    except (KeyError, OverflowError, TypeError):
        return None


def _odd_history(entries: list[Any]) -> list[tuple[float, float]]:
    """Whatever can be used of any entries."""
    usable = []
    for entry in entries:
        if isinstance(entry, dict):
            time_s, value = epoch_s(entry.get("timestamp")), finite(entry.get("value"))
            if time_s is not None and value is not None:
                usable.append((time_s, value))
    return usable
