"""Which windows a question is about: one set of conditions, for DuckDB and for LanceDB alike."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from lancedb.expr import lit

from rmsai_ray.errors import ConfigError
from rmsai_ray.signals.leads import select_leads

COLUMNS: dict[str, tuple[str, str]] = {
    "since": ("event_time", ">="),
    "until": ("event_time", "<"),
    "patient": ("patient_id", "="),
    "not_patient": ("patient_id", "!="),
    "not_window": ("window_id", "!="),
    "lead": ("lead", "="),
    "condition": ("condition", "contains"),
    "min_score": ("anomaly_score", ">="),
    "max_score": ("anomaly_score", "<="),
    "min_error": ("reconstruction_error", ">="),
    "max_error": ("reconstruction_error", "<="),
}
"""Filter → column of ``windows`` and comparison. ``contains`` ignores case."""


@dataclass(frozen=True, kw_only=True)
class WindowFilter:
    """Conditions that must all hold; None asks for nothing.

    A window without event time is in no time range.
    """

    since: datetime | None = None
    """Event time or later; UTC unless it says otherwise."""
    until: datetime | None = None
    """Before this event time."""
    patient: str | None = None
    """Only this patient."""
    not_patient: str | None = None
    """Anybody but this patient."""
    not_window: str | None = None
    """Any window but this one, by window id."""
    lead: str | None = None
    """ECG1, ECG2, ECG3, aVR, aVL, aVF or vVX."""
    condition: str | None = None
    """Part of the condition that the monitor reported."""
    min_score: float | None = None
    """Least anomaly score."""
    max_score: float | None = None
    """Greatest anomaly score."""
    min_error: float | None = None
    """Least reconstruction error."""
    max_error: float | None = None
    """Greatest reconstruction error."""

    def __post_init__(self) -> None:
        if self.lead is not None:
            select_leads([self.lead])

    def sql(self) -> tuple[str, dict[str, Any]]:
        """A DuckDB condition over ``windows``, and the parameters it names."""
        given = self._given()
        clauses = [_clause(name) for name in given]
        return " AND ".join(clauses) or "true", given

    def lance(self) -> str | None:
        """The same condition for LanceDB; None where everything is asked for."""
        return " AND ".join(_term(name, value) for name, value in self._given().items()) or None

    def _given(self) -> dict[str, Any]:
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in named.items() if value is not None}


def _clause(name: str) -> str:
    column, comparison = COLUMNS[name]
    if comparison == "contains":
        return f"contains(lower({column}), lower(${name}))"
    return f"{column} {comparison} ${name}"


def _term(name: str, value: Any) -> str:
    column, comparison = COLUMNS[name]
    if comparison == "contains":
        return f"contains(lower(`{column}`), {quoted(value.lower())})"
    written = quoted(value) if isinstance(value, str) else lit(value).to_sql()
    return f"`{column}` {comparison} {written}"


def quoted(text: str) -> str:
    r"""The text as a literal of LanceDB's SQL, where a backslash is a character as any other.

    LanceDB's own expressions do not double a quote that follows a backslash or a quote, so that ``\' OR 1=1``
    would end the literal.

    Raises:
        ConfigError: it cannot be written down.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError("filter", text, "is no text", "Give characters, not halves of them.") from error
    return "'" + text.replace("'", "''") + "'"
