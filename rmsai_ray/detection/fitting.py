"""From the tables of a lake to the normal windows that detectors learn from, divided by patient.

Shapes: N windows.
"""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rmsai_ray.archives.format import ECG_SIGNALS
from rmsai_ray.archives.labels import NORMAL, normal_windows
from rmsai_ray.detection.measured import Measured
from rmsai_ray.detection.rows import MEASURED_COLUMNS, measured_of
from rmsai_ray.errors import ConfigError
from rmsai_ray.ids import digest
from rmsai_ray.tables.lake import Lake

VALIDATION_SHARE = 0.2
"""Of the patients that the model does not know."""

CANDIDATES = """
SELECT window_id, archive_id, event_id, patient_id, start_sample, start_sample + num_samples AS end_sample
FROM windows
WHERE condition = ? AND NOT list_has_any(quality_flags, ['flat', 'nan'])
ORDER BY archive_id, event_id, window_id
"""
ANNOTATED = """
SELECT archive_id, event_id, ecg_extras, list_contains(problems, 'odd_rate') AS is_odd
FROM events WHERE condition = ? AND contains(coalesce(ecg_extras, ''), '"annotations"')
"""
CHOSEN = f"""
SELECT window_id, patient_id, archive_id, {", ".join(MEASURED_COLUMNS)}
FROM windows SEMI JOIN (SELECT unnest(?) AS window_id) USING (window_id) ORDER BY window_id
"""


@dataclass(frozen=True, kw_only=True)
class NormalWindows:
    """Normal windows of one part of the patients."""

    measured: Measured
    patients_N: npt.NDArray[np.str_]
    archive_ids: frozenset[str]
    """Where they come from."""

    @property
    def patients(self) -> list[str]:
        """Sorted."""
        return sorted(set(self.patients_N.tolist()))

    @property
    def windows_by_lead(self) -> dict[str, int]:
        """Counts."""
        leads, counts = np.unique(self.measured.leads_N, return_counts=True)
        return dict(zip(leads.tolist(), counts.tolist(), strict=True))


def read_normal_windows(
    lake: Lake,
    splits: Mapping[str, Sequence[str]],
    sampling_rate_hz: float,
    *,
    max_windows: int,
    seed: int,
) -> dict[str, NormalWindows]:
    """Normal windows of the lake for ``train`` and ``validation``.

    A window is normal where its event was reported as Normal and no abnormal beat or rhythm is annotated in
    it; flat windows and those with gaps teach nothing. Windows of the model's test patients are not touched.

    Args:
        lake: one model's tables.
        splits: the model's patients by part; empty where nobody knows them.
        sampling_rate_hz: of the model, whose samples ``start_sample`` counts.
        max_windows: per part; beyond it a part is a random sample.
        seed: of the sample, and of the division of patients that the model does not know.

    Raises:
        ConfigError: a part is empty.
    """
    candidates = lake.table(CANDIDATES, [NORMAL])
    is_normal_N = _without_abnormal_beats(lake, candidates, sampling_rate_hz)
    patients_N = np.array(candidates["patient_id"].to_pylist(), np.str_)
    part_of = divide_patients(sorted(set(patients_N[is_normal_N].tolist())), splits, seed)
    ids_N = np.array(candidates["window_id"].to_pylist(), np.str_)
    found = {}
    for part in ("train", "validation"):
        of_part = np.array([part_of.get(patient) == part for patient in patients_N.tolist()], np.bool_)
        chosen = _sample(ids_N[is_normal_N & of_part], max_windows, seed)
        if not len(chosen):
            rule = f"has no normal window of patients for {part}; normal windows in all: {is_normal_N.sum()}"
            raise ConfigError("lake", lake.uri, rule, "Backfill archives of more patients into it.")
        found[part] = _read(lake, chosen)
    return found


def divide_patients(
    patients: Sequence[str], splits: Mapping[str, Sequence[str]], seed: int
) -> dict[str, str]:
    """The part of every patient: the model's own; of those that it does not know a fifth validates.

    Which fifth is decided by a hash of seed and patient; of two or more there is at least one.
    """
    part_of = {patient: part for part, members in splits.items() for patient in members}
    unknown = sorted(
        (patient for patient in patients if patient not in part_of), key=lambda p: _rank(seed, p)
    )
    num_validation = max(1, round(VALIDATION_SHARE * len(unknown))) if len(unknown) >= 2 else 0
    for place, patient in enumerate(unknown):
        part_of[patient] = "validation" if place < num_validation else "train"
    return {patient: part_of[patient] for patient in patients}


def data_hash(parts: Mapping[str, NormalWindows]) -> str:
    """Over the contents of the archives that the windows come from."""
    return digest(sorted(frozenset[str]().union(*(part.archive_ids for part in parts.values()))))


def _without_abnormal_beats(
    lake: Lake, candidates: pa.Table, sampling_rate_hz: float
) -> npt.NDArray[np.bool_]:
    """False for windows in which an annotation says that they are not normal.

    Annotations are kept in samples of the archive; where its rate is odd, their places are not known.
    """
    is_normal_N = np.ones(candidates.num_rows, np.bool_)
    starts_N, ends_N = (candidates[name].to_numpy() for name in ("start_sample", "end_sample"))
    rows_by_event = _rows_by_event(candidates)
    rate = max(item.fs for item in ECG_SIGNALS.values()) / sampling_rate_hz
    for event in lake.rows(ANNOTATED, [NORMAL]):
        rows = rows_by_event.get((event["archive_id"], event["event_id"]))
        if rows is None:
            continue
        if event["is_odd"]:
            is_normal_N[rows] = False
            continue
        extras = json.loads(event["ecg_extras"])
        is_normal_N[rows] = normal_windows(NORMAL, extras, starts_N[rows], ends_N[rows], rate)
    return is_normal_N


def _rows_by_event(candidates: pa.Table) -> dict[tuple[str, str], slice]:
    """Where the windows of each event lie; they are sorted by event."""
    keys = list(zip(candidates["archive_id"].to_pylist(), candidates["event_id"].to_pylist(), strict=True))
    changes = [place for place in range(len(keys)) if place == 0 or keys[place] != keys[place - 1]]
    ends = [*changes, len(keys)][1:]
    return {keys[start]: slice(start, end) for start, end in zip(changes, ends, strict=True)}


def _sample(ids_N: npt.NDArray[np.str_], most: int, seed: int) -> npt.NDArray[np.str_]:
    """At most so many of the ids, whatever order they came in."""
    ids_N = np.sort(ids_N)
    if len(ids_N) <= most:
        return ids_N
    return np.sort(np.random.default_rng(seed).choice(ids_N, most, replace=False))


def _read(lake: Lake, ids_N: npt.NDArray[np.str_]) -> NormalWindows:
    table = lake.table(CHOSEN, [ids_N.tolist()])
    return NormalWindows(
        measured=measured_of(table),
        patients_N=np.array(table["patient_id"].to_pylist(), np.str_),
        archive_ids=frozenset(table["archive_id"].unique().to_pylist()),
    )


def _rank(seed: int, patient: str) -> str:
    return hashlib.sha256(f"{seed}/{patient}".encode()).hexdigest()


def facts_of(parts: Mapping[str, NormalWindows], **more: Any) -> dict[str, Any]:
    """What a detector set says of the windows that it was fitted on."""
    return {
        "data_hash": data_hash(parts),
        "patients": {name: part.patients for name, part in parts.items()},
        "num_windows": {name: part.windows_by_lead for name, part in parts.items()},
        **more,
    }
