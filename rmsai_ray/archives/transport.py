"""An archive as bytes between two processes: JSON and raw samples; changes with what an archive holds.

No pickle: the sender has met untrusted bytes, so the receiver checks every type and builds nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any, Final, TypeVar

import numpy as np

from rmsai_ray.archives.problems import PROBLEMS
from rmsai_ray.archives.records import Archive, Event, Problem, Signal, Vital

T = TypeVar("T")
SAMPLE_BYTES: Final = 8

ERRORS: Final = (AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What comes of bytes that are no archive."""


def to_parts(archive: Archive) -> tuple[dict[str, Any], list[bytes]]:
    """What JSON can say of an archive, and the samples of its signals, in order."""
    samples: list[bytes] = []

    def signal(found: Signal | None) -> list[Any] | None:
        if found is None:
            return None
        values = np.asarray(found.samples, "<f8")
        samples.append(values.tobytes())
        return [found.fs, found.unit, len(values)]

    head = {
        "archive_id": archive.archive_id,
        "stem": archive.stem,
        "patient_id": archive.patient_id,
        "period": archive.period,
        "variant": archive.variant,
        "metadata": archive.metadata,
        "problems": of_problems(archive.problems),
        "detour": archive.detour,
        "events": [
            {
                **{name: getattr(event, name) for name in _PLAIN_OF_EVENT},
                "leads": {name: signal(lead) for name, lead in event.leads.items()},
                "ppg": signal(event.ppg),
                "resp": signal(event.resp),
                "vitals": {name: asdict(vital) for name, vital in event.vitals.items()},
                "problems": of_problems(event.problems),
            }
            for event in archive.events
        ],
    }
    return head, samples


def from_parts(head: dict[str, Any], samples: memoryview) -> Archive:
    """The inverse of :func:`to_parts`.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: they are no archive.
    """
    content = _Samples(samples)
    rows: list[dict[str, Any]] = _checked(head["events"], list)
    events = tuple(_event(row, content) for row in rows)
    if content.left:
        raise ValueError(f"{content.left} bytes of samples belong to no signal")
    return Archive(
        **{name: _checked(head[name], str) for name in _PLAIN_OF_ARCHIVE},
        metadata=_checked(head["metadata"], dict),
        events=events,
        problems=to_problems(head["problems"]),
        detour=_optional(head["detour"], str),
    )


def of_problems(problems: Iterable[Problem]) -> list[list[str]]:
    """Code, place and detail of each."""
    return [[found.code, found.where, found.detail] for found in problems]


def to_problems(rows: list[list[str]]) -> tuple[Problem, ...]:
    """The inverse of :func:`of_problems`."""
    return tuple(
        Problem(
            code=code,
            severity=PROBLEMS[code].severity,
            where=_checked(where, str),
            detail=_checked(detail, str),
        )
        for code, where, detail in rows
    )


_PLAIN_OF_ARCHIVE: Final = ("archive_id", "stem", "patient_id", "period", "variant")
_PLAIN_OF_EVENT: Final = (
    "event_id", "uuid", "time_s", "condition", "heart_rate_bpm", "pacer_info", "pacer_offset", "ecg_extras",
)  # fmt: skip


class _Samples:
    """Hands out the samples in order."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._place = 0

    @property
    def left(self) -> int:
        """Bytes that nobody has asked for."""
        return len(self._content) - self._place

    def signal(self, row: list[Any] | None) -> Signal | None:
        """The next signal."""
        if row is None:
            return None
        fs, unit, length = row
        if type(length) is not int or not 0 <= length * SAMPLE_BYTES <= self.left:
            raise ValueError(f"a signal of {length!r} samples")
        start, self._place = self._place, self._place + length * SAMPLE_BYTES
        values = np.frombuffer(self._content[start : self._place], "<f8").copy()
        return Signal(samples=values, fs=_checked(fs, float), unit=_checked(unit, str))


def _event(row: dict[str, Any], samples: _Samples) -> Event:
    leads = {name: samples.signal(lead) for name, lead in row["leads"].items()}
    return Event(
        event_id=_checked(row["event_id"], str),
        uuid=_checked(row["uuid"], str),
        time_s=_optional(row["time_s"], float),
        condition=_checked(row["condition"], str),
        heart_rate_bpm=_optional(row["heart_rate_bpm"], float),
        leads={name: lead for name, lead in leads.items() if lead is not None},
        ppg=samples.signal(row["ppg"]),
        resp=samples.signal(row["resp"]),
        vitals={name: _vital(vital) for name, vital in row["vitals"].items()},
        pacer_info=_optional(row["pacer_info"], int),
        pacer_offset=_optional(row["pacer_offset"], int),
        ecg_extras=_checked(row["ecg_extras"], dict),
        problems=to_problems(row["problems"]),
    )


def _vital(row: dict[str, Any]) -> Vital:
    numbers = ("value", "time_s", "lower_threshold", "upper_threshold")
    return Vital(
        **{name: _optional(row[name], float) for name in numbers},
        units=_checked(row["units"], str),
        history=tuple((_checked(time_s, float), _checked(value, float)) for time_s, value in row["history"]),
        extras=_checked(row["extras"], dict),
    )


def _checked(value: Any, kind: Callable[..., T]) -> T:
    if type(value) is not kind:
        raise TypeError(f"{value!r:.50} is no {kind}")
    found: T = value
    return found


def _optional(value: Any, kind: Callable[..., T]) -> T | None:
    return None if value is None else _checked(value, kind)


def to_json(value: Any) -> bytes:
    """As bytes; lone surrogates and NaN come back as they were."""
    return json.dumps(value).encode()


def from_json(content: bytes | bytearray) -> Any:
    """The inverse of :func:`to_json`."""
    return json.loads(content)
