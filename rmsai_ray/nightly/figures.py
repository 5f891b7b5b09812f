"""What a night brought, counted from the lake itself: archives, reasons of rejection, rates."""

from __future__ import annotations

from typing import Any

import numpy as np

from rmsai_ray.evaluation.bootstrap import draw_patients, interval
from rmsai_ray.monitoring.features import COMMITTED, Slice
from rmsai_ray.tables.lake import Lake

NORMAL, ALL = "Normal", "all"

BY_STATUS = (
    "SELECT status, count(*) AS num, sum(size)::BIGINT AS bytes FROM archives WHERE {condition} GROUP BY ALL"
)
REASONS = """
SELECT split_part(coalesce(error, 'unknown'), ':', 1) AS reason, count(*) AS num
FROM archives WHERE status = 'quarantined' AND {condition} GROUP BY ALL ORDER BY num DESC, reason
"""
COUNTS = f"""
SELECT patient_id, condition, count(*) AS windows, count(*) FILTER (is_anomaly) AS anomalies
FROM windows {COMMITTED} WHERE {{condition}} GROUP BY ALL
"""


def night_figures(lake: Lake, rows: Slice) -> dict[str, Any]:
    """Counts and rates of a slice; ``rates``: of all windows and by condition, patients drawn again."""
    condition, parameters = rows.sql("windows")
    by_status = {row["status"]: row for row in lake.rows(BY_STATUS.format(condition=condition), parameters)}
    counts = lake.rows(COUNTS.format(condition=condition), parameters)
    return {
        "archives": {status: row["num"] for status, row in by_status.items()},
        "archive_bytes": sum(row["bytes"] for row in by_status.values()),
        "quarantine_reasons": {
            row["reason"]: row["num"] for row in lake.rows(REASONS.format(condition=condition), parameters)
        },
        "patients": len({row["patient_id"] for row in counts}),
        "windows": sum(row["windows"] for row in counts),
        "rates": anomaly_rates(counts),
    }


def anomaly_rates(counts: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Condition, or ``all`` → share of anomalous windows, with the interval of patients drawn again."""
    groups = {ALL: counts}
    for row in counts:
        groups.setdefault(row["condition"], []).append(row)
    return {name: _rate(rows) for name, rows in sorted(groups.items(), key=_most_windows) if rows}


def _most_windows(group: tuple[str, list[dict[str, Any]]]) -> int:
    return -sum(int(row["windows"]) for row in group[1])


def _rate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    patients_N = np.array([row["patient_id"] for row in rows], np.str_)
    windows_N = np.array([row["windows"] for row in rows], np.float64)
    anomalies_N = np.array([row["anomalies"] for row in rows], np.float64)
    weights_DN = draw_patients(patients_N, seed=0).astype(np.float64)
    found = interval(
        float(anomalies_N.sum() / windows_N.sum()), (weights_DN @ anomalies_N) / (weights_DN @ windows_N)
    )
    return {
        **found.to_json(),
        "windows": int(windows_N.sum()),
        "patients": len(set(patients_N.tolist())),
    }
