"""The door between archives and everything else: what names a person stays outside, if that is asked for.

Texts pass by an allow-list: what the format or medicine has a word for. All else is dropped, without a look
at what it might be, because nobody can list the ways to write a name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from rmsai_ray.archives import format as archive_format
from rmsai_ray.archives import packs, vocabulary
from rmsai_ray.archives.labels import RHYTHMS
from rmsai_ray.archives.problems import PROBLEMS
from rmsai_ray.archives.records import Archive, Event, Problem, Signal, Vital
from rmsai_ray.archives.sources import SOURCES, ArchiveSource
from rmsai_ray.errors import ArchiveError, ConfigError
from rmsai_ray.privacy import UNKNOWN_PERIOD, WITHHELD, Pseudonymiser

SCHEME: Final = "pseudonym"
SUFFIX: Final = ".h5"
LONGEST_EVENT_NUMBER: Final = 6
"""Digits. Monitors count from 1001; a longer number may be a record's or a time."""
STAND_IN_DIGITS: Final = 12
LARGEST_VITAL: Final = 1e4
"""No vital sign in any unit is larger; a larger number may be a time or a record's."""
LARGEST_PLACE: Final = 10_000_000
"""Samples: half a day at 200 Hz."""
_WORD = re.compile(r"[A-Za-z]+")
_BETWEEN_WORDS = re.compile(r"[\s()/,:;.+-]*")
VARIANTS: Final = frozenset({"v1", "v2", "v3", "vdx"})


class Door:
    """Passes archives, names and errors on: as they are, or with stand-ins."""

    def __init__(self, pseudonyms: Pseudonymiser | None) -> None:
        self._pseudonyms = pseudonyms

    @staticmethod
    def under(fingerprint: str | None) -> Door:
        """The door of a run: with stand-ins under the environment's key where it has a fingerprint.

        Raises:
            ConfigError: this process has not that key.
        """
        return Door(None if fingerprint is None else Pseudonymiser.from_environment(fingerprint))

    @property
    def is_closed(self) -> bool:
        """Whether names stay outside."""
        return self._pseudonyms is not None

    def archive_id(self, archive_id: str) -> str:
        """The identity of a content inside."""
        return self._pseudonyms.content(archive_id) if self._pseudonyms else archive_id

    def archive(self, archive: Archive) -> Archive:
        """An archive as it may be known inside. Its ``archive_id`` is one of inside already."""
        return pseudonymise(archive, self._pseudonyms) if self._pseudonyms else archive

    def error(self, error: ArchiveError) -> ArchiveError:
        """What may be said of a useless archive: the reason, and what it means."""
        return ArchiveError(*_meaning(error.reason)) if self._pseudonyms else error

    def uri(self, uri: str) -> str:
        """The name of an archive inside. Members of one pack stay members of one pack."""
        if self._pseudonyms is None:
            return uri
        if not packs.is_member(uri):
            suffix = packs.SUFFIX if uri.endswith(packs.SUFFIX) else SUFFIX
            return f"{SCHEME}://{self._pseudonyms.file(uri)}{suffix}"
        pack = self.uri(packs.object_uri(uri))
        return packs.member_uri(pack, self._pseudonyms.file(uri) + SUFFIX)

    def etag(self, etag: str) -> str:
        """What tells versions of an object apart inside."""
        return self._pseudonyms.etag(etag) if self._pseudonyms else etag

    def modified(self, uri: str, modified: datetime) -> datetime:
        """When an object was written, as inside has it: only the order of its versions is kept."""
        return self._pseudonyms.modified(uri, modified) if self._pseudonyms else modified

    def problems(self, problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
        """What may be said of problems: their codes, and places that the format has itself."""
        return _problems(problems, self._pseudonyms) if self._pseudonyms else problems

    def period_in_name(self, period: str, uri: str) -> str:
        """The month inside, of an archive whose name says patient and month; a guess, for packing alone."""
        if self._pseudonyms is None:
            return period
        stem = packs.archive_name(uri).rpartition("/")[2].removesuffix(SUFFIX)
        named = archive_format.FILE_STEM.fullmatch(stem)
        return self._pseudonyms.period(named["patient"], period) if named else UNKNOWN_PERIOD


@SOURCES.register(SCHEME)
def _nowhere(uri: str) -> ArchiveSource:
    """No source: that is what a stand-in is for."""
    raise ConfigError(
        "uri",
        uri,
        "stands for an archive whose name this lake does not know",
        "Ask a lake that was made without --pseudonymise.",
    )


def pseudonymise(archive: Archive, pseudonyms: Pseudonymiser) -> Archive:
    """An archive without what names its patient, its days or its files, and without free text.

    Kept are waveforms, rates, vital signs, the time of day and all distances in time, event ids, and texts
    that are in :mod:`~rmsai_ray.archives.vocabulary`.
    """
    patient = pseudonyms.patient(archive.patient_id)
    period = pseudonyms.period(archive.patient_id, archive.period)
    shift_s = pseudonyms.shift_s(archive.patient_id)
    return Archive(
        archive_id=archive.archive_id,
        stem=f"{patient}_{period}",
        patient_id=patient,
        period=period,
        variant=_one_of(VARIANTS, archive.variant, UNKNOWN_PERIOD),
        metadata={},
        events=tuple(_event(event, shift_s, pseudonyms) for event in archive.events),
        problems=_problems(archive.problems, pseudonyms),
        detour=None if archive.detour is None else WITHHELD,
    )


def _event(event: Event, shift_s: float, pseudonyms: Pseudonymiser) -> Event:
    return Event(
        event_id=_event_id(event.event_id, pseudonyms),
        uuid=pseudonyms.uuid(event.uuid),
        time_s=_later(event.time_s, shift_s),
        condition=_condition(event.condition),
        heart_rate_bpm=_bounded(event.heart_rate_bpm),
        leads={
            lead: _signal(signal)
            for lead, signal in event.leads.items()
            if lead in archive_format.ECG_SIGNALS
        },
        ppg=event.ppg and _signal(event.ppg),
        resp=event.resp and _signal(event.resp),
        vitals={
            name: _vital(vital, shift_s)
            for name, vital in event.vitals.items()
            if name in archive_format.VITALS
        },
        pacer_info=event.pacer_info,
        pacer_offset=event.pacer_offset if event.pacer_offset in range(LARGEST_PLACE) else None,
        ecg_extras=_ecg_extras(event.ecg_extras),
        problems=_problems(event.problems, pseudonyms),
    )


def _event_id(event_id: str, pseudonyms: Pseudonymiser) -> str:
    found = archive_format.EVENT_KEY.fullmatch(event_id)
    if found is not None and len(found[1]) <= LONGEST_EVENT_NUMBER:
        return event_id
    return f"event_{pseudonyms.number(event_id, STAND_IN_DIGITS)}"


def _condition(condition: str) -> str:
    """As it was where every word of it is one of medicine's; else Unknown."""
    if condition in vocabulary.KNOWN_CONDITIONS:
        return condition
    words = {word.lower() for word in _WORD.findall(condition)}
    rest = _WORD.sub("", condition)
    is_known = bool(words) and words <= vocabulary.CONDITION_WORDS and _BETWEEN_WORDS.fullmatch(rest)
    return condition if is_known else archive_format.UNKNOWN_CONDITION


def _signal(signal: Signal) -> Signal:
    return replace(signal, unit=_one_of(vocabulary.SIGNAL_UNITS, signal.unit, "raw"))


def _vital(vital: Vital, shift_s: float) -> Vital:
    source = vital.extras.get("history_source")
    extras = {
        name: number
        for name, value in vital.extras.items()
        if name in vocabulary.VITAL_EXTRAS and (number := _count(value)) is not None
    }
    return Vital(
        value=_bounded(vital.value),
        units=_one_of(vocabulary.UNITS, vital.units, ""),
        time_s=_later(vital.time_s, shift_s),
        lower_threshold=_bounded(vital.lower_threshold),
        upper_threshold=_bounded(vital.upper_threshold),
        history=tuple(
            (time_s + shift_s, value) for time_s, value in vital.history if _bounded(value) is not None
        ),
        extras=extras | ({"history_source": source} if source in vocabulary.HISTORY_SOURCES else {}),
    )


def _ecg_extras(extras: Mapping[str, Any]) -> dict[str, Any]:
    """Places of waves, annotations by known symbols, and statements by known codes."""
    kept = {
        "fiducials": _by_name(extras.get("fiducials"), vocabulary.WAVES, _places),
        "annotations": _annotations(extras.get("annotations")),
        "source": _source(extras.get("source")),
    }
    return {name: value for name, value in kept.items() if value}


def _annotations(found: Any) -> dict[str, Any]:
    """Those of the import: ``samples`` and ``symbols`` of one length, ``rhythms`` as [sample, code]."""
    if not isinstance(found, dict):
        return {}
    samples, symbols = _places(found.get("samples")), found.get("symbols")
    if not isinstance(symbols, list) or len(symbols) != len(samples):
        return {}
    marks = [
        (sample, symbol)
        for sample, symbol in zip(samples, symbols, strict=True)
        if sample is not None and isinstance(symbol, str) and symbol in vocabulary.ANNOTATION_SYMBOLS
    ]
    rhythms = found.get("rhythms")
    changes = rhythms if isinstance(rhythms, list) else []
    pairs = [change for change in changes if isinstance(change, list) and len(change) == 2]
    return {
        "samples": [sample for sample, _ in marks],
        "symbols": [symbol for _, symbol in marks],
        "rhythms": [
            [sample, _one_of(frozenset(RHYTHMS), code, "")]
            for sample, code in ((_count(at), code) for at, code in pairs)
            if sample is not None
        ],
    }


def _source(found: Any) -> dict[str, Any]:
    codes = (
        _by_name(found.get("scp_codes"), vocabulary.SCP_CODES, _bounded) if isinstance(found, dict) else {}
    )
    return {"scp_codes": codes} if codes else {}


def _by_name(found: Any, names: frozenset[str], keep: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        return {}
    return {name: keep(value) for name, value in found.items() if name in names}


def _places(found: Any) -> list[int | None]:
    return [_count(value) for value in found] if isinstance(found, list) else []


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < LARGEST_PLACE else None


def _bounded(value: Any) -> float | None:
    is_number = type(value) is int or type(value) is float
    return value if is_number and abs(value) < LARGEST_VITAL else None


def _later(time_s: float | None, shift_s: float) -> float | None:
    return None if time_s is None else time_s + shift_s


def _one_of(known: frozenset[str], text: Any, otherwise: str) -> str:
    return text if isinstance(text, str) and text in known else otherwise


def _problems(problems: tuple[Problem, ...], pseudonyms: Pseudonymiser) -> tuple[Problem, ...]:
    kept = []
    for found in problems:
        code, meaning = _meaning(found.code)
        where = _place(found.where, pseudonyms)
        kept.append(Problem(code=code, severity=found.severity, where=where, detail=meaning))
    return tuple(kept)


def _meaning(code: str) -> tuple[str, str]:
    """A code and what it means, instead of a detail that may quote the archive."""
    return (code, PROBLEMS[code].meaning) if code in PROBLEMS else ("withheld", WITHHELD)


def _place(where: str, pseudonyms: Pseudonymiser) -> str:
    """The path with a dash for every name that the format does not have."""
    parts = []
    for part in filter(None, where.split("/")):
        is_event = archive_format.EVENT_KEY.fullmatch(part) is not None
        known = part if part in vocabulary.PLACES else "-"
        parts.append(_event_id(part, pseudonyms) if is_event else known)
    return "/".join(parts)
