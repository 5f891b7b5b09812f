"""Values that somebody else wrote, made safe: numbers, times, JSON; changes when another oddity turns up."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from rmsai_ray.archives.limits import Budget
from rmsai_ray.archives.nodes import Group
from rmsai_ray.archives.problems import problem
from rmsai_ray.archives.records import Problem

LATEST_EPOCH_S: Final = 7_258_118_400.0
"""The year 2200. Later times are milliseconds, or nonsense."""

DEEPEST_NESTING: Final = 20
LONGEST_LABEL: Final = 512


_AS_IT_IS: Final = {bool, int, str, type(None)}
"""What JSON can always say."""


def finite(value: object) -> float | None:
    """The value as a float, if it is a finite number; a flag is none."""
    if type(value) is float or type(value) is int:
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None
    return None


def epoch_s(value: object) -> float | None:
    """The value as seconds since 1970, UTC, if it can be such a time."""
    number = finite(value)
    return number if number is not None and 0 < number < LATEST_EPOCH_S else None


def text(value: object) -> str | None:
    """The value as a non-empty string without blanks around it."""
    return (value.strip() or None) if isinstance(value, str) else None


def label(value: object) -> str | None:
    """The value as a short text, as names, units and conditions are: they are repeated in many rows."""
    found = text(value)
    return found if found is not None and len(found) <= LONGEST_LABEL else None


def read_extras(group: Group, problems: list[Problem]) -> dict[str, Any]:
    """The JSON object in a group's ``extras``; empty where there is none, or none that can be used."""
    if "extras" not in group:
        return {}
    content = parse_json(group.scalar("extras"), group.budget)
    if isinstance(content, dict):
        return content
    problems.append(problem("bad_json", f"{group.path}/extras", "not a text that holds a JSON object"))
    return {}


def parse_json(content: object, budget: Budget | None = None) -> Any:
    """What a JSON text says; None where it is no text, no JSON, or nested absurdly deep.

    Raises:
        ArchiveError: it would become more than the archive may still need.
    """
    if not isinstance(content, str):
        return None
    if budget is not None:
        budget.charge_json(content, "its JSON")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def writable(value: Any, depth: int = 0) -> Any:
    """The value with null for what JSON cannot say: NaN, infinities, and what is nested absurdly deep."""
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, dict | list) and depth == DEEPEST_NESTING:
        return None
    if isinstance(value, dict):
        return {name: writable(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        if {*map(type, value)} <= _AS_IT_IS:
            return value.copy()
        return [writable(item, depth + 1) for item in value]
    return value
