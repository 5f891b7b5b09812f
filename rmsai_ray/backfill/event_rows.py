"""Events → columns of the ``events`` table: what is known of them before a model has seen their windows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rmsai_ray import ids
from rmsai_ray.archives.records import Archive, Event, Vital
from rmsai_ray.tables import schemas

SCORED_EVENT_COLUMNS = (
    "num_anomalous", "num_anomalous_condition", "verdict", "verdict_support", "verdict_rule",
)  # fmt: skip
"""Columns of the final table that scoring adds."""

LAST_EPOCH_S = 253_402_300_800.0
"""The year 10000."""

HISTORY = schemas.VITAL.field("history").type


class EventRows:
    """Collects the events of one unit. It holds on to their vital signs, not to their signals."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._vitals: list[dict[str, Vital]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, archive: Archive, event: Event, archive_codes: Sequence[str], num_windows: int) -> None:
        """Adds an event; ``archive_codes`` are the problems of its archive."""
        pacer = event.pacer_info
        self._vitals.append(event.vitals)
        self._rows.append(
            {
                "event_uid": ids.event_uid(archive.archive_id, event.event_id),
                "archive_id": archive.archive_id,
                "patient_id": archive.patient_id,
                "event_id": event.event_id,
                "event_uuid": event.uuid,
                "event_time": event.time_s,
                "condition": event.condition,
                "heart_rate": event.heart_rate_bpm,
                "leads": list(event.leads),
                "pacer_type": None if pacer is None else pacer & 0xFF,
                "pacer_rate": None if pacer is None else pacer >> 8 & 0xFF,
                "pacer_amplitude": None if pacer is None else pacer >> 16 & 0xFF,
                "pacer_flags": None if pacer is None else pacer >> 24 & 0xFF,
                "pacer_offset": event.pacer_offset,
                "ecg_extras": json.dumps(event.ecg_extras) if event.ecg_extras else None,
                "problems": sorted({*archive_codes, *(problem.code for problem in event.problems)}),
                "quality_score": None,
                "num_windows": num_windows,
            }
        )

    def table(self, common: dict[str, str]) -> pa.Table:
        """The rows, with the columns that are the same for all of them."""
        columns: dict[str, Any] = {name: pa.repeat(value, len(self)) for name, value in common.items()}
        for name in self._rows[0] if self._rows else ():
            columns[name] = [row[name] for row in self._rows]
        columns["event_time"] = times(columns.get("event_time", []))
        columns["vitals"] = _vitals_column(self._vitals)
        schema = read_events_schema()
        return pa.table({name: columns.get(name, []) for name in schema.names}, schema=schema)


def read_events_schema() -> pa.Schema:
    """Columns of ``events`` that are known before encoding."""
    return pa.schema([field for field in schemas.EVENTS if field.name not in SCORED_EVENT_COLUMNS])


def times(epoch_s: Sequence[float | None] | npt.NDArray[np.float64]) -> pa.Array:
    """Epoch seconds as Arrow's timestamps; null for None and for what is no date."""
    seconds = np.array(epoch_s, np.float64)  # None becomes NaN
    is_date = np.abs(seconds) < LAST_EPOCH_S
    microseconds = np.rint(np.where(is_date, seconds, 0.0) * 1e6).astype(np.int64)
    return pa.array(microseconds, mask=~is_date).cast(schemas.TIME)


def _vitals_column(events: Sequence[dict[str, Vital]]) -> pa.Array:
    """One list of vital signs per event."""
    vitals = [vital for event in events for vital in event.values()]
    columns = {
        "name": list(chain.from_iterable(events)),
        "value": [vital.value for vital in vitals],
        "units": [vital.units for vital in vitals],
        "time": times([vital.time_s for vital in vitals]),
        "lower_threshold": [vital.lower_threshold for vital in vitals],
        "upper_threshold": [vital.upper_threshold for vital in vitals],
        "history": _history_column(vitals),
        "extras": [json.dumps(vital.extras) if vital.extras else None for vital in vitals],
    }
    fields = list(schemas.VITAL)
    structs = pa.StructArray.from_arrays(
        [_as_array(columns[field.name], field.type) for field in fields], fields=fields
    )
    return pa.ListArray.from_arrays(_offsets([len(event) for event in events]), structs)


def _history_column(vitals: Sequence[Vital]) -> pa.Array:
    """One list of (time, value) per vital sign."""
    histories = [vital.history for vital in vitals]
    numbers = np.fromiter(chain.from_iterable(chain.from_iterable(histories)), np.float64)
    pairs = pa.StructArray.from_arrays(
        [times(numbers[::2]), pa.array(numbers[1::2])], fields=list(HISTORY.value_type)
    )
    return pa.ListArray.from_arrays(_offsets([len(history) for history in histories]), pairs)


def _as_array(values: Any, kind: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, kind)


def _offsets(lengths: Sequence[int]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int32)]), pa.int32())
