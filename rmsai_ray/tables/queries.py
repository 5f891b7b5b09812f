"""Analysts' questions to a lake: statistics, anomalies, one event, verdicts, free SQL.

Every answer is about one model. Events are keyed by archive and event id: the event ids of an archive start
at 1001 again, so an event id alone names nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import pandas as pd

from rmsai_ray.errors import ConfigError
from rmsai_ray.signals.leads import LEADS
from rmsai_ray.tables.filters import WindowFilter
from rmsai_ray.tables.lake import Lake, list_models

CUBE = """
CREATE OR REPLACE TEMP TABLE cube AS
SELECT lead, lead_number, condition, anomaly_status, anomaly_type,
       count(*) AS num, sum(reconstruction_error::DOUBLE) AS error
FROM windows GROUP BY ALL
"""
"""Everything that :func:`stats` counts, from one scan of the windows."""

GROUP_COLUMNS = """
    coalesce(sum(num), 0)::BIGINT AS num_chunks,
    coalesce(sum(num) FILTER (anomaly_status = 'anomaly'), 0)::BIGINT AS num_anomalies,
    100.0 * num_anomalies / nullif(num_chunks, 0) AS anomaly_rate,
    sum(error) / nullif(num_chunks, 0) AS avg_error_score
"""

EVENT_NAME = "patient_id || '_' || period || '/' || event_id || '@' || archive_id[1:12]"
"""An event as the first half of its windows' ids: ``<patient>_<period>/<event>@<archive>``."""

MAX_CANDIDATES = 20

HINTS = {
    "event": "`rmsai verdicts` lists the events.",
    "window": "`rmsai event` lists the windows of an event.",
}


@dataclass(frozen=True, kw_only=True)
class LakeStats:
    """Counts over all windows of one model. Rates are percentages of windows; errors are mean squared errors
    in the model's normalised units; an anomaly is a window whose ``anomaly_status`` says so.
    """

    model_id: str
    models: tuple[str, ...]
    """Every model of the lake; the numbers are about ``model_id`` alone."""
    total_chunks: int
    total_anomalies: int
    anomaly_rate: float | None
    """Percent; None where there are no windows."""
    anomaly_counts: dict[str, int]
    """By anomaly status."""
    anomaly_types: dict[str, int]
    """Windows by anomaly type; those without one are not counted here."""
    avg_error_score: float | None
    files_processed: int
    files_by_status: dict[str, int]
    total_events: int
    total_patients: int
    rejects_by_reason: dict[str, int]
    available_leads: tuple[str, ...]
    leads_processed: tuple[str, ...]
    chunks_per_lead: dict[str, int]
    conditions_detected: tuple[str, ...]
    lead_statistics: list[dict[str, Any]]
    """``lead, num_chunks, num_anomalies, anomaly_rate, avg_error_score``, by lead number."""
    condition_statistics: list[dict[str, Any]]
    """The same by the condition that the monitor reported."""
    last_updated: datetime | None
    """When the latest archive was committed, UTC."""


@dataclass(frozen=True, kw_only=True)
class EventView:
    """One event."""

    event: dict[str, Any]
    """The row of ``events``, and ``event`` (its name), ``period``, ``uris`` (of the archive)."""
    windows: pd.DataFrame
    """Its windows by lead number and start, without the embeddings."""


def stats(lake: Lake) -> LakeStats:
    """Counts and means over the lake, the fields of the source documents' statistics."""
    lake.rows(CUBE)
    [total] = lake.rows(f"SELECT {GROUP_COLUMNS} FROM cube")
    leads = lake.rows(
        f"SELECT lead, {GROUP_COLUMNS} FROM cube GROUP BY lead, lead_number ORDER BY lead_number"
    )
    conditions = lake.rows(
        f"SELECT condition, {GROUP_COLUMNS} FROM cube GROUP BY condition ORDER BY condition"
    )
    [events] = lake.rows(
        "SELECT count(*) AS num_events, count(DISTINCT patient_id) AS num_patients FROM events"
    )
    [updated] = lake.rows("SELECT max(committed_time) AS last_updated FROM archives")
    files_by_status = _counts(lake, "archives", "status")
    return LakeStats(
        model_id=lake.model_id,
        models=tuple(list_models(lake.uri)),
        total_chunks=total["num_chunks"],
        total_anomalies=total["num_anomalies"],
        anomaly_rate=total["anomaly_rate"],
        anomaly_counts=_counts(lake, "cube", "anomaly_status", "sum(num)"),
        anomaly_types=_counts(lake, "cube", "anomaly_type", "sum(num)"),
        avg_error_score=total["avg_error_score"],
        files_processed=files_by_status.get("committed", 0),
        files_by_status=files_by_status,
        total_events=events["num_events"],
        total_patients=events["num_patients"],
        rejects_by_reason=_counts(lake, "rejects", "reason"),
        available_leads=LEADS,
        leads_processed=tuple(row["lead"] for row in leads),
        chunks_per_lead={row["lead"]: row["num_chunks"] for row in leads},
        conditions_detected=tuple(row["condition"] for row in conditions),
        lead_statistics=leads,
        condition_statistics=conditions,
        last_updated=updated["last_updated"],
    )


def anomalies(lake: Lake, where: WindowFilter | None = None, *, limit: int = 100) -> pd.DataFrame:
    """Anomalous windows, the highest anomaly score first; one row a window, without the embeddings."""
    condition, parameters = (where or WindowFilter()).sql()
    return lake.frame(
        f"""
        SELECT {EVENT_NAME} AS event, * EXCLUDE (embedding)
        FROM windows WHERE anomaly_status = 'anomaly' AND {condition}
        ORDER BY anomaly_score DESC, window_id LIMIT {_checked_limit(limit)}
        """,
        parameters,
    )


def event(lake: Lake, reference: str) -> EventView:
    """One event with its windows.

    Args:
        lake: where to look.
        reference: ``<patient>/<event>``, ``<patient>_<period>/<event>``, that with ``@<archive>``,
            the event's uid or uuid, or a bare event id where only one archive has it.

    Raises:
        ConfigError: no such event, or several, which are then listed.
    """
    uid = find_event(lake, reference)
    [row] = lake.rows(
        f"""
        SELECT {EVENT_NAME} AS event, *,
               (SELECT list(uri ORDER BY uri) FROM archives a WHERE a.archive_id = e.archive_id) AS uris
        FROM events e WHERE event_uid = ?
        """,
        [uid],
    )
    windows = lake.frame(
        """
        SELECT * EXCLUDE (embedding) FROM windows WHERE archive_id = ? AND event_id = ?
        ORDER BY lead_number, start_sample
        """,
        [row["archive_id"], row["event_id"]],
    )
    return EventView(event=row, windows=windows)


def find_event(lake: Lake, reference: str) -> str:
    """The ``event_uid`` that a reference stands for; forms and errors as in :func:`event`."""
    found = lake.rows(
        f"""
        SELECT event_uid, {EVENT_NAME} AS name FROM events
        WHERE $reference IN (event_uid, event_uuid, event_id, patient_id || '/' || event_id,
                             patient_id || '_' || period || '/' || event_id, {EVENT_NAME})
        ORDER BY name
        """,
        {"reference": reference},
    )
    return str(only("event", reference, found)["event_uid"])


def find_window(lake: Lake, reference: str) -> dict[str, Any]:
    """The row of ``windows``, embedding included, that a reference names.

    Args:
        lake: where to look.
        reference: window id, with or without its ``@<archive>``, chunk id, vector id or seed chunk id.

    Raises:
        ConfigError: no such window, or several, which are then listed.
    """
    found = lake.rows(
        """
        SELECT window_id AS name, unit_id FROM windows
        WHERE $reference IN (window_id, split_part(window_id, '@', 1), chunk_id, vector_id, seed_chunk_id)
        ORDER BY name LIMIT 100
        """,
        {"reference": reference},
    )
    chosen = only("window", reference, found)
    # With its unit only one part is read for the wide columns.
    [row] = lake.rows("FROM windows WHERE unit_id = ? AND window_id = ?", [chosen["unit_id"], chosen["name"]])
    return row


def only(kind: str, reference: str, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The one row found; each row has a ``name`` to choose it by.

    Raises:
        ConfigError: none, or several, which are then listed.
    """
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(kind, reference, "is not in this lake", HINTS[kind])
    names = [row["name"] for row in found[:MAX_CANDIDATES]]
    more = f" and {len(found) - len(names)} more" if len(found) > len(names) else ""
    raise ConfigError(
        kind,
        reference,
        f"is ambiguous, it names {len(found)} {kind}s",
        f"Choose one of {', '.join(names)}{more}.",
    )


def verdicts(
    lake: Lake,
    *,
    patient: str | None = None,
    condition: str | None = None,
    verdict: str | None = None,
    limit: int = 100,
) -> pd.DataFrame:
    """Events with their verdict, most anomalous windows first.

    ``verdict_support`` windows of ``num_windows`` carry the verdict; ``windows_by_type`` counts them all.
    ``condition`` is part of what the monitor reported and is never replaced by the verdict.
    """
    return lake.frame(
        f"""
        WITH types AS (
            SELECT archive_id, event_id, histogram(coalesce(anomaly_type, 'Normal')) AS windows_by_type
            FROM windows GROUP BY ALL
        )
        SELECT {EVENT_NAME} AS event, patient_id, period, event_id, event_time, condition, heart_rate,
               verdict, verdict_support, num_windows, verdict_rule, num_anomalous, num_anomalous_condition,
               quality_score, windows_by_type, event_uid
        FROM events LEFT JOIN types USING (archive_id, event_id)
        WHERE ($patient IS NULL OR patient_id = $patient)
          AND ($condition IS NULL OR contains(lower(condition), lower($condition)))
          AND ($verdict IS NULL OR lower(verdict) = lower($verdict))
        ORDER BY num_anomalous DESC, event LIMIT {_checked_limit(limit)}
        """,
        {"patient": patient, "condition": condition, "verdict": verdict},
    )


def sql(lake: Lake, query: str) -> pd.DataFrame:
    """The answer to an analyst's own SELECT over ``windows``, ``events``, ``archives`` and ``rejects``.

    Raises:
        ConfigError: DuckDB refuses the query.
    """
    try:
        return lake.frame(query)
    except duckdb.Error as error:
        raise ConfigError("sql", query, f"is refused by DuckDB: {error}", "Correct the query.") from error


def _checked_limit(limit: int) -> int:
    if limit < 1:
        raise ConfigError("limit", limit, "asks for no row", "Give at least 1.")
    return int(limit)


def _counts(lake: Lake, table: str, column: str, count: str = "count(*)") -> dict[str, int]:
    """Rows by the value of a column, where it has one. All arguments are our own words, never data."""
    rows = lake.rows(f"SELECT {column} AS name, {count} AS num FROM {table} GROUP BY ALL ORDER BY name")
    return {row["name"]: int(row["num"]) for row in rows if row["name"] is not None}
