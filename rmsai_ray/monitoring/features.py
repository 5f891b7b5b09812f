"""What drift is looked for in: values of windows and events by patient, read from a lake.

Shapes: N values, E embedding dimensions.
"""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rmsai_ray.errors import ConfigError
from rmsai_ray.tables.lake import Lake

WINDOWS_PER_PATIENT, MOST_PATIENTS = 200, 400
"""More are sampled, by a hash of their names, so that memory and time have a bound."""

WINDOW_FEATURES = {
    "anomaly_score": "anomaly_score",
    "anomalous": "is_anomaly::DOUBLE",
    "reconstruction_error": "reconstruction_error",
    "worst_error": "worst_error",
    "quality": "quality_score",
    "signal_rms": "signal_rms",
    "ecg_rate": "ecg_rate",
}
"""Name → SQL over a window. ``anomalous`` is the drift of decisions."""
VITALS = ("SpO2", "Systolic", "Diastolic", "RespRate", "Temp")
EVENT_FEATURES = ("heart_rate", *VITALS)
FEATURES = (*WINDOW_FEATURES, *EVENT_FEATURES)
EMBEDDING = "embedding"
BY_DETECTOR = frozenset({"anomaly_score", "anomalous"})
"""Mean nothing where another detector or threshold made them."""

COMMITTED = """
JOIN (SELECT archive_id, unit_id, committed_time FROM archives WHERE status = 'committed') AS archives
USING (archive_id, unit_id)
"""
CHOSEN = f"""
SELECT patient_id FROM (SELECT DISTINCT patient_id FROM events {COMMITTED} WHERE {{condition}})
ORDER BY md5(patient_id) LIMIT {MOST_PATIENTS}
"""
WINDOWS = f"""
SELECT patient_id, lead, {", ".join(f"{sql} AS {name}" for name, sql in WINDOW_FEATURES.items())},
       embedding, detector, coalesce(detector_set, '') AS detector_set,
       threshold_profile || ' ' || threshold_version AS thresholds
FROM windows {COMMITTED} WHERE {{condition}} AND patient_id IN (SELECT unnest($patients))
QUALIFY row_number() OVER (PARTITION BY patient_id ORDER BY md5(window_id)) <= {WINDOWS_PER_PATIENT}
"""
EVENTS = f"""
SELECT patient_id, heart_rate,
       {", ".join(f"list_filter(vitals, lambda v: v.name = '{name}')[1].value AS {name}" for name in VITALS)}
FROM events {COMMITTED} WHERE {{condition}} AND patient_id IN (SELECT unnest($patients))
QUALIFY row_number() OVER (PARTITION BY patient_id ORDER BY md5(event_uid)) <= {WINDOWS_PER_PATIENT}
"""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Which rows of a lake: committed, or recorded, after ``since`` and not after ``until``."""

    since: datetime | None = None
    until: datetime | None = None
    by: Literal["committed", "event"] = "committed"
    """The time that counts: when the archive was committed, or when the event happened."""
    period: str = ""
    """Only this month, YYYY-MM; or all."""

    def __post_init__(self) -> None:
        if self.period and not re.fullmatch(r"\d{4}-\d{2}", self.period):
            raise ConfigError("period", self.period, "is no month", "Write it as YYYY-MM.")

    def sql(self, table: str) -> tuple[str, dict[str, Any]]:
        """(condition on a join of ``windows`` or ``events`` with ``archives``, its parameters)."""
        time = "archives.committed_time" if self.by == "committed" else f"{table}.event_time"
        parts, values = ["true"], dict[str, Any]()
        for name, sign, value in (("since", ">", self.since), ("until", "<=", self.until)):
            if value is not None:
                parts.append(f"{time} {sign} ${name}")
                values[name] = value
        if self.period:
            parts.append(f"{table}.period = $period")
            values["period"] = self.period
        return " AND ".join(parts), values


@dataclass(frozen=True, kw_only=True)
class Values:
    """The rows of a slice, by patient."""

    patients: tuple[str, ...]
    """Sorted."""
    by_feature: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]
    """Feature → (place in ``patients`` of each value, values), both (N,); without what is unknown."""
    mean_embedding_PE: npt.NDArray[np.float64]
    """Of each patient: the mean over leads of the lead's mean, so that a missing lead moves little."""
    scored_by: str
    """Detector, its set and its thresholds, where all rows have the same; else "several"."""
    num_windows: int


def read_values(lake: Lake, rows: Slice, *, without: Collection[str] = ()) -> Values:
    """Values of the slice's windows and events.

    Args:
        lake: one model's tables.
        rows: which.
        without: patients that are left out, e.g. because the model was trained on them.
    """
    condition, parameters = rows.sql("events")
    if without:
        condition += " AND patient_id NOT IN (SELECT unnest($without))"
        parameters |= {"without": sorted(without)}
    patients = [row["patient_id"] for row in lake.rows(CHOSEN.format(condition=condition), parameters)]
    condition, parameters = rows.sql("windows")
    windows = lake.table(WINDOWS.format(condition=condition), {**parameters, "patients": patients})
    condition, parameters = rows.sql("events")
    events = lake.table(EVENTS.format(condition=condition), {**parameters, "patients": patients})
    return _values(windows, events)


def _values(windows: pa.Table, events: pa.Table) -> Values:
    patients = tuple(sorted(set(windows["patient_id"].to_pylist()) | set(events["patient_id"].to_pylist())))
    place_of = {patient: place for place, patient in enumerate(patients)}
    found = {}
    for table, names in ((windows, WINDOW_FEATURES), (events, EVENT_FEATURES)):
        place_N = np.array([place_of[patient] for patient in table["patient_id"].to_pylist()], np.int64)
        for name in names:
            value_N = table[name].to_numpy().astype(np.float64)
            known_N = np.isfinite(value_N)
            found[name] = (place_N[known_N], value_N[known_N])
    makers = {
        " / ".join(row.values())
        for row in windows.select(["detector", "detector_set", "thresholds"]).to_pylist()
    }
    return Values(
        patients=patients,
        by_feature=found,
        mean_embedding_PE=_mean_embeddings(windows, place_of),
        scored_by=makers.pop() if len(makers) == 1 else "several",
        num_windows=windows.num_rows,
    )


def _mean_embeddings(windows: pa.Table, place_of: dict[str, int]) -> npt.NDArray[np.float64]:
    """(P, E); NaN for a patient without windows."""
    width = windows.schema.field("embedding").type.list_size
    flat = windows["embedding"].combine_chunks().flatten()
    embedding_NE = flat.to_numpy(zero_copy_only=False).reshape(-1, width).astype(np.float64)
    place_N = np.array([place_of[patient] for patient in windows["patient_id"].to_pylist()], np.int64)
    lead_N = np.array(windows["lead"].to_pylist(), np.str_)
    mean_PE, num_leads_P = np.zeros((len(place_of), width)), np.zeros(len(place_of))
    for lead in np.unique(lead_N):
        of_lead = lead_N == lead
        sum_PE, num_P = np.zeros_like(mean_PE), np.bincount(place_N[of_lead], minlength=len(place_of))
        np.add.at(sum_PE, place_N[of_lead], embedding_NE[of_lead])
        mean_PE += sum_PE / np.maximum(num_P, 1)[:, None]
        num_leads_P += num_P > 0
    return np.where(num_leads_P[:, None] > 0, mean_PE / np.maximum(num_leads_P, 1)[:, None], np.nan)
