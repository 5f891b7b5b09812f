"""Every way to deviate from the archive format, as data; changes when another one is told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from rmsai_ray.archives.records import Problem, Severity

Cost = Literal["archive", "event", "item", "nothing"]


@dataclass(frozen=True, kw_only=True)
class ProblemKind:
    """What one code stands for."""

    costs: Cost
    """What cannot be used: the archive, the event, one item of it (lead, vital, field), or nothing."""
    meaning: str

    @property
    def severity(self) -> Severity:
        """A problem that costs an event or more is fatal for it."""
        return "fatal" if self.costs in ("archive", "event") else "degraded"


def _table(**meanings: dict[str, str]) -> dict[str, ProblemKind]:
    costs: tuple[Cost, ...] = ("archive", "event", "item", "nothing")
    return {
        code: ProblemKind(costs=cost, meaning=meaning)
        for cost in costs
        for code, meaning in meanings[cost].items()
    }


PROBLEMS: Final = _table(
    archive={
        "empty_object": "The object has no bytes.",
        "not_hdf5": "The object does not carry HDF5's signature.",
        "truncated": "The file ends early, or is still being written.",
        "corrupt": "HDF5 cannot open the file, or its end was never written.",
        "external_data": "The file points elsewhere: soft or external link, virtual or external storage.",
        "oversized": "The file declares far more data than its size can honestly hold.",
        "too_large": "Reading the file needs more memory than one archive may have.",
        "too_slow": "Reading the file takes more time than one archive may have.",
        "too_deep": "The file's groups lie deeper than the format's.",
        "too_many": "The file has more members, attributes, events or sampling rates than are allowed.",
        "parser_died": "HDF5's library crashed on the file, in a process of its own.",
        "no_patient": "Neither the metadata nor the file name give a usable patient id.",
        "no_events": "The file has no event group.",
        "storage_error": "The object could not be fetched, after all retries.",
        "permission_denied": "The object may not be read, also a while later.",
        "missing_item": "The strict profile requires an item that is absent or unreadable.",
    },
    event={
        "unreadable_event": "The event is not a group, or cannot be opened.",
        "no_leads": "The event has no readable ECG lead.",
    },
    item={
        "missing_metadata": "Metadata are absent or unreadable; the format's sampling rates are assumed.",
        "missing_lead": "One of the seven leads is absent.",
        "unreadable_lead": "A lead is there but cannot be read; it is left out.",
        "empty_signal": "A signal holds no finite sample; it is left out.",
        "missing_waveform": "The event has no PPG.",
        "unreadable_waveform": "PPG or RESP is there but cannot be read; it is left out.",
        "unknown_dataset": "The ecg group holds a dataset that is no lead; it is not read.",
        "missing_vitals": "Vital signs are absent or unreadable.",
        "incomplete_vital": "A vital sign lacks a usable value, unit or time.",
        "bad_json": "Extras are not a JSON object; they are ignored.",
        "bad_history": "History entries without usable time and value are ignored.",
        "bad_pacer": "The pacer word or offset is not an integer in range; it is null.",
        "missing_condition": "The monitor reported no condition; it is Unknown.",
        "missing_time": "The event has no usable time of its own.",
    },
    nothing={
        "patient_mismatch": "Metadata and file name give different patients; the metadata count.",
        "short_signal": "A signal is shorter than the event; what is there is kept.",
        "nan_samples": "A signal has samples that are not finite numbers; they are NaN.",
        "odd_rate": "A sampling rate is not the format's, or no rate at all (then the format's is assumed).",
        "unit_raw": "The ECG is in converter counts of unknown gain, not in mV.",
        "synthetic_history": "A converter invented the history of vital signs; it is marked.",
        "missing_heart_rate": "The event has no heart rate of its own; its vital sign stands in, if any.",
        "missing_uuid": "The event has no uuid; patient and event id stand in.",
    },
)
"""By code. Codes are stable: they land in tables, and are the reasons of ``ArchiveError``."""


LONGEST: Final = 1000
"""Characters of what is said about a problem."""


def problem(code: str, where: str, detail: str) -> Problem:
    """A problem with the severity of its kind. ``code`` is a key of :data:`PROBLEMS`."""
    return Problem(
        code=code, severity=PROBLEMS[code].severity, where=where[:LONGEST], detail=detail[:LONGEST]
    )
