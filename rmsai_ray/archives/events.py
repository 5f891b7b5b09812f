"""From an event's group to an event; changes when another place or spelling of its facts turns up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from rmsai_ray.archives import format as archive_format
from rmsai_ray.archives.nodes import Group, Scalar, UnreadableError
from rmsai_ray.archives.problems import problem
from rmsai_ray.archives.records import Event, Problem, Signal, Vital
from rmsai_ray.archives.values import epoch_s, finite, label, parse_json, read_extras, writable
from rmsai_ray.archives.vitals import read_vitals
from rmsai_ray.archives.waveforms import WaveformReader

PACER_RANGES: Final = {"pacer_info": (-(1 << 31), (1 << 32) - 1), "pacer_offset": (0, (1 << 31) - 1)}
"""The pacer word has 32 bits, and the older generations store them as a signed integer."""


class EventReader:
    """Reads the events of one archive, knowing what the archive says about all of them."""

    def __init__(
        self,
        signals: WaveformReader,
        *,
        first_key: str,
        patient_id: str,
        is_vdx: bool,
        metadata: dict[str, Scalar],
        attributes: dict[str, Scalar],
        with_vitals: bool,
        with_waveforms: bool,
    ) -> None:
        self._signals = signals
        self._first_key = first_key
        self._patient_id = patient_id
        self._is_vdx = is_vdx
        self._usual_condition = _first_text(map(attributes.get, archive_format.CONDITION_FALLBACKS))
        self._alarm_time_s = epoch_s(metadata.get("alarm_time_epoch"))
        self._with_vitals = with_vitals
        self._with_waveforms = with_waveforms

    def read(self, root: Group, key: str, archive_problems: list[Problem]) -> Event | None:
        """One event; None, and a problem of the archive, where it has no readable lead."""
        try:
            group = root.group(key)
            ecg = None if group is None else group.group("ecg")
        except UnreadableError as error:
            archive_problems.append(problem("unreadable_event", key, str(error)))
            return None
        problems: list[Problem] = []
        leads = {} if ecg is None else self._signals.leads(ecg, problems)
        if group is None or ecg is None or not leads:
            detail = "; ".join(p.detail for p in problems) or "there is no ecg group"
            archive_problems.append(problem("no_leads", key, detail))
            return None
        return self._event(key, group, ecg, leads, problems)

    def _event(
        self, key: str, group: Group, ecg: Group, leads: dict[str, Signal], problems: list[Problem]
    ) -> Event:
        extras = _ecg_extras(ecg, problems)
        vitals = read_vitals(group, is_vdx=self._is_vdx, problems=problems) if self._with_vitals else {}
        waveforms = self._with_waveforms
        return Event(
            event_id=key,
            uuid=self._uuid(key, group, problems),
            time_s=self._time_s(key, group, problems),
            condition=self._condition(group, problems),
            heart_rate_bpm=self._heart_rate_bpm(group, vitals, problems),
            leads=leads,
            ppg=self._signals.waveform(group, archive_format.PPG, problems) if waveforms else None,
            resp=self._signals.waveform(group, archive_format.RESP, problems) if waveforms else None,
            vitals=vitals,
            pacer_info=_pacer_number("pacer_info", extras, problems, ecg.path),
            pacer_offset=_pacer_number("pacer_offset", extras, problems, ecg.path),
            ecg_extras={name: writable(value) for name, value in extras.items() if name not in PACER_RANGES},
            problems=tuple(problems),
        )

    def _uuid(self, key: str, group: Group, problems: list[Problem]) -> str:
        uuid = label(group.attribute("uuid")) or label(group.scalar("uuid"))
        if uuid is None:
            uuid = f"{self._patient_id}_{key}"
            problems.append(problem("missing_uuid", group.path, f"named {uuid} instead"))
        return uuid

    def _time_s(self, key: str, group: Group, problems: list[Problem]) -> float | None:
        time_s = epoch_s(group.attribute("event_timestamp")) or epoch_s(group.scalar("timestamp"))
        if time_s is None:
            # The archive's alarm time is that of its first event, and says nothing about the others.
            time_s = self._alarm_time_s if key == self._first_key else None
            problems.append(problem("missing_time", group.path, f"{time_s} from the archive's alarm time"))
        return time_s

    def _condition(self, group: Group, problems: list[Problem]) -> str:
        names = archive_format.CONDITION_NAMES
        condition = (
            _first_text(map(group.attribute, names))
            or _first_text(map(group.scalar, names))
            or self._usual_condition
        )
        if condition is None:
            problems.append(problem("missing_condition", group.path, f"none of {', '.join(names)}"))
        return condition or archive_format.UNKNOWN_CONDITION

    def _heart_rate_bpm(
        self, group: Group, vitals: dict[str, Vital], problems: list[Problem]
    ) -> float | None:
        for read in (group.attribute, group.scalar):
            rate_bpm = finite(read("heart_rate"))
            if rate_bpm is not None and (rate_bpm > 0 or (rate_bpm == 0 and not self._is_vdx)):
                return rate_bpm
        rates_bpm = (vitals[name].value for name in ("HR", "Pulse") if name in vitals)
        derived_bpm = next((rate_bpm for rate_bpm in rates_bpm if rate_bpm is not None), None)
        problems.append(problem("missing_heart_rate", group.path, f"{derived_bpm} from the vital signs"))
        return derived_bpm


def _first_text(values: Iterable[Scalar | None]) -> str | None:
    return next(filter(None, map(label, values)), None)


def _ecg_extras(ecg: Group, problems: list[Problem]) -> dict[str, Any]:
    """The extras, and scalars that lie beside them instead of in them; the extras count where both exist."""
    beside: dict[str, Any] = {}
    for name in ecg.names:
        if name in archive_format.ECG_SIGNALS or name == "extras":
            continue
        value = ecg.scalar(name)
        if value is None:
            problems.append(problem("unknown_dataset", f"{ecg.path}/{name}", "neither a lead nor a scalar"))
        else:
            parsed = parse_json(value, ecg.budget)
            beside[name] = value if parsed is None else parsed
    extras = read_extras(ecg, problems)
    return beside | {name: value for name, value in extras.items() if value is not None}


def _pacer_number(name: str, extras: dict[str, Any], problems: list[Problem], where: str) -> int | None:
    """``pacer_info`` or ``pacer_offset`` as a non-negative integer; None where there is none."""
    if name not in extras:
        return None
    number = finite(extras[name])
    lowest, highest = PACER_RANGES[name]
    if number is None or number % 1 or not lowest <= number <= highest:
        problems.append(problem("bad_pacer", where, f"{name} is {extras[name]!r}"))
        return None
    return int(number) % (1 << 32)
