"""From findings of a night to rows of alerts: a condition opens one alert, keeps it, and ends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from rmsai_ray.ids import digest
from rmsai_ray.tables.alerts import OPEN, RESOLVED, Alert

Level = Literal["firing", "between", "clear"]
Severity = Literal["warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("warning", "critical")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check of a night says of one subject."""

    kind: str
    subject: str = ""
    model_id: str | None = None
    level: Level
    """firing opens an alert or keeps it; between keeps it as it is; clear lets it end."""
    severity: Severity = "warning"
    value: float | None = None
    bound: float | None = None
    detail: str


def level_of(value: float, *, fires_above: float, clears_below: float | None = None) -> Level:
    """With hysteresis: a value that swings about the bound opens one alert, not one for each swing."""
    if value > fires_above:
        return "firing"
    return "clear" if value <= (0.8 * fires_above if clears_below is None else clears_below) else "between"


def apply_findings(
    rows: Sequence[Alert],
    findings: Sequence[Finding],
    *,
    night: str,
    time: datetime,
    run_id: str,
    resolve_after: int = 1,
) -> list[Alert]:
    """The alerts after a night. The same night again changes nothing; an earlier night changes no later one.

    Args:
        rows: as they are.
        findings: of this night; what was not checked is not among them, and stays as it is.
        night: YYYY-MM-DD.
        time: now.
        run_id: the night's.
        resolve_after: nights in a row without the condition that end an alert.
    """
    changed = [dict(row) for row in rows]
    for finding in findings:
        row = next((row for row in changed if _is_about(row, finding) and row["state"] != RESOLVED), None)
        if row is None:
            if finding.level == "firing" and not _was_settled(changed, finding, night):
                changed.append(_opened(finding, night, time, run_id))
        elif night > row["last_night"] and night > (row["clear_night"] or ""):
            row |= _seen(row, finding, night, time, run_id, resolve_after)
    return changed


def opened_in(rows: Sequence[Alert], night: str) -> list[Alert]:
    """The alerts that a night opened."""
    return [row for row in rows if row["opened_night"] == night]


def worst(rows: Sequence[Alert]) -> Severity | None:
    """The worst severity among some alerts."""
    found = {row["severity"] for row in rows}
    return next((severity for severity in reversed(SEVERITIES) if severity in found), None)


def alert_id(finding: Finding, night: str) -> str:
    """The same condition in the same night is the same alert, however often the night is run."""
    return digest([finding.kind, finding.subject, finding.model_id or "", night])


def _is_about(row: Alert, finding: Finding) -> bool:
    return (row["kind"], row["subject"], row["model_id"]) == (finding.kind, finding.subject, finding.model_id)


def _was_settled(rows: Sequence[Alert], finding: Finding, night: str) -> bool:
    """Whether this night, or a later one, has had its say on the condition already."""
    return any(_is_about(row, finding) and (row["clear_night"] or row["last_night"]) >= night for row in rows)


def _opened(finding: Finding, night: str, time: datetime, run_id: str) -> Alert:
    return {
        "alert_id": alert_id(finding, night),
        "kind": finding.kind,
        "subject": finding.subject,
        "model_id": finding.model_id,
        "opened_night": night,
        "last_night": night,
        "severity": finding.severity,
        "state": OPEN,
        "first_seen": time,
        "last_seen": time,
        "resolved_time": None,
        "count": 1,
        "num_clear": 0,
        "clear_night": None,
        "value": finding.value,
        "bound": finding.bound,
        "detail": finding.detail,
        "run_id": run_id,
        "notices": 1,
        "sent_webhook": 0,
        "sent_file": 0,
    }


def _seen(row: Alert, finding: Finding, night: str, time: datetime, run_id: str, resolve_after: int) -> Alert:
    """What a later night changes."""
    values: Alert = {
        "value": finding.value,
        "bound": finding.bound,
        "detail": finding.detail,
        "run_id": run_id,
    }
    if finding.level == "firing":
        is_worse = SEVERITIES.index(finding.severity) > SEVERITIES.index(row["severity"])
        return {
            **values,
            "last_night": night,
            "last_seen": time,
            "count": row["count"] + 1,
            "num_clear": 0,
            "clear_night": None,
            "severity": finding.severity if is_worse else row["severity"],
            "state": OPEN if is_worse else row["state"],
            "notices": row["notices"] + is_worse,
        }
    if finding.level == "between":
        return {}
    num_clear = row["num_clear"] + 1
    ended: Alert = {}
    if num_clear >= resolve_after:
        ended = {"state": RESOLVED, "resolved_time": time, "notices": row["notices"] + 1}
    return {**values, "num_clear": num_clear, "clear_night": night, **ended}
