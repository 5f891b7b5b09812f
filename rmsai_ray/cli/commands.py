"""The subcommands of ``rmsai``: what each asks the lake, and which columns a terminal shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

import pandas as pd
import tyro

from rmsai_ray.cli.alerts import Alerts
from rmsai_ray.cli.card import Card
from rmsai_ray.cli.logs import Logs
from rmsai_ray.cli.models import Models
from rmsai_ray.cli.options import LakeOptions
from rmsai_ray.cli.output import Answer
from rmsai_ray.cli.thresholds import Thresholds
from rmsai_ray.cli.waveforms import Reconstruct, SignalFile
from rmsai_ray.errors import ConfigError
from rmsai_ray.tables import queries, search, usage
from rmsai_ray.tables.filters import WindowFilter
from rmsai_ray.tables.formats import embedding_formats
from rmsai_ray.tables.index_segments import index_state
from rmsai_ray.tables.lake import Lake

WINDOW_COLUMNS = (
    "window_id", "event_time", "condition", "heart_rate", "ecg_rate",
    "anomaly_score", "threshold", "scores", "anomaly_type", "quality_score",
)  # fmt: skip
EVENT_WINDOW_COLUMNS = (
    "window_id", "lead", "start_sample", "ecg_rate", "rr_irregularity", "anomaly_score", "threshold",
    "scores", "anomaly_status", "anomaly_type", "quality_score", "quality_flags",
)  # fmt: skip
VITAL_COLUMNS = ("name", "value", "units", "lower_threshold", "upper_threshold", "time")
VERDICT_COLUMNS = (
    "event", "event_time", "condition", "heart_rate", "verdict", "verdict_support", "num_windows",
    "num_anomalous", "windows_by_type",
)  # fmt: skip
SIMILAR_COLUMNS = (
    "rank", "similarity", "window_id", "event_time", "condition", "reconstruction_error", "anomaly_type",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Stats(LakeOptions):
    """Counts, rates and mean errors of a lake, by lead and by condition."""

    def answer(self) -> Answer:
        """Rates in percent of windows."""
        found = queries.stats(self.open())
        values = asdict(found)
        overview = {key: value for key, value in values.items() if not key.endswith("_statistics")}
        return Answer(
            data=values,
            rows=_by_group(found),
            tables={
                "Lake": pd.DataFrame({"field": overview.keys(), "value": overview.values()}),
                "By lead": pd.DataFrame(found.lead_statistics),
                "By condition": pd.DataFrame(found.condition_statistics),
            },
        )


@dataclass(frozen=True, kw_only=True)
class Anomalies(LakeOptions):
    """Anomalous windows, the highest anomaly score first; with what each detector says."""

    where: WindowFilter = field(default_factory=WindowFilter)
    limit: int = 100
    """How many windows at most."""

    def answer(self) -> Answer:
        """One row a window."""
        lake = self.open()
        return _rows("anomalies", lake, queries.anomalies(lake, self.where, limit=self.limit), WINDOW_COLUMNS)


@dataclass(frozen=True, kw_only=True)
class Event(LakeOptions):
    """One event with its windows."""

    event: tyro.conf.Positional[str]
    """PATIENT/EVENT, PATIENT_PERIOD/EVENT, that with @ARCHIVE, the event's uid or uuid, or its id alone."""

    def answer(self) -> Answer:
        """The event's row, and one row a window."""
        lake = self.open()
        view = queries.event(lake, self.event)
        hidden = ("vitals", "ecg_extras")
        shown = {key: value for key, value in view.event.items() if value is not None and key not in hidden}
        vitals = pd.DataFrame(view.event["vitals"], columns=list(VITAL_COLUMNS))
        return Answer(
            data={"model_id": lake.model_id, "event": view.event, "windows": view.windows},
            rows=view.windows,
            tables={
                view.event["event"]: pd.DataFrame({"field": shown.keys(), "value": shown.values()}),
                "Vital signs": vitals,
                "Windows": _for_people(view.windows, EVENT_WINDOW_COLUMNS),
            },
        )


@dataclass(frozen=True, kw_only=True)
class Verdicts(LakeOptions):
    """Events with their verdict and how many windows support it."""

    patient: str | None = None
    """Only this patient."""
    condition: str | None = None
    """Part of the condition that the monitor reported."""
    verdict: str | None = None
    """Only this verdict, e.g. Tachycardia."""
    limit: int = 100
    """How many events at most."""

    def answer(self) -> Answer:
        """One row an event."""
        lake = self.open()
        found = queries.verdicts(
            lake, patient=self.patient, condition=self.condition, verdict=self.verdict, limit=self.limit
        )
        return _rows("verdicts", lake, found, VERDICT_COLUMNS)


@dataclass(frozen=True, kw_only=True)
class Search(LakeOptions):
    """The windows most similar to one of the lake or to a signal, by the cosine of their embeddings."""

    window: tyro.conf.Positional[str | None] = None
    """Window id, chunk id or vector id; none where a signal is given."""
    signal: SignalFile = field(default_factory=SignalFile)
    k: int = 10
    """How many windows at most."""
    where: WindowFilter = field(default_factory=WindowFilter)
    min_similarity: float | None = None
    """Least cosine similarity, -1 to 1."""
    exact: bool = False
    """Compare with every window even where there is an index."""

    def answer(self) -> Answer:
        """One row a window."""
        if (self.window is None) == (self.signal.signal is None):
            raise ConfigError(
                "search", self.window, "needs one question", "Give a window id or --signal FILE."
            )
        lake = self.open()
        found = search.similar(
            lake,
            self.signal.embed(lake) if self.window is None else self.window,
            k=self.k,
            where=self.where,
            min_similarity=self.min_similarity,
            exact=self.exact,
        )
        return _rows("similar", lake, found, SIMILAR_COLUMNS)


@dataclass(frozen=True, kw_only=True)
class Storage(LakeOptions):
    """Bytes per row of every table, embeddings and the rest apart; the state of the vector index; and what
    embeddings of 16 or 8 bits would take, with the recall they would have."""

    def answer(self) -> Answer:
        """One row a store and table; the index on its own."""
        lake = self.open()
        found = usage.storage(lake)
        answer = _rows("storage", lake, found, tuple(found.columns))
        if "lancedb" not in set(found["store"]):
            return answer
        index = asdict(index_state(lake.vector_dataset()))
        formats = embedding_formats(lake)
        return replace(
            answer,
            data={**answer.data, "vector_index": index, "embedding_formats": formats.to_dict("records")},
            tables={
                **answer.tables,
                "vector index": pd.DataFrame([index]),
                "embeddings in other formats, from a sample": formats,
            },
        )


@dataclass(frozen=True, kw_only=True)
class Sql(LakeOptions):
    """A DuckDB query over the views windows, events, archives and rejects."""

    query: tyro.conf.Positional[str]
    """E.g. "SELECT lead, avg(reconstruction_error) FROM windows GROUP BY lead"."""

    def answer(self) -> Answer:
        """One row a row."""
        lake = self.open()
        found = queries.sql(lake, self.query)
        return _rows("rows", lake, found, tuple(found.columns))


Command = (
    Annotated[Stats, tyro.conf.subcommand("stats", prefix_name=False)]
    | Annotated[Anomalies, tyro.conf.subcommand("anomalies", prefix_name=False)]
    | Annotated[Event, tyro.conf.subcommand("event", prefix_name=False)]
    | Annotated[Verdicts, tyro.conf.subcommand("verdicts", prefix_name=False)]
    | Annotated[Search, tyro.conf.subcommand("search", prefix_name=False)]
    | Annotated[Reconstruct, tyro.conf.subcommand("reconstruct", prefix_name=False)]
    | Annotated[Storage, tyro.conf.subcommand("storage", prefix_name=False)]
    | Annotated[Sql, tyro.conf.subcommand("sql", prefix_name=False)]
    | Annotated[Card, tyro.conf.subcommand("card", prefix_name=False)]
    | Annotated[Logs, tyro.conf.subcommand("logs", prefix_name=False)]
    | Annotated[Models, tyro.conf.subcommand("models", prefix_name=False)]
    | Annotated[Thresholds, tyro.conf.subcommand("thresholds", prefix_name=False)]
    | Annotated[Alerts, tyro.conf.subcommand("alerts", prefix_name=False)]
)


def _rows(name: str, lake: Lake, frame: pd.DataFrame, columns: Sequence[str]) -> Answer:
    """An answer that is rows: all columns for programs, some for a terminal."""
    return Answer(
        data={"model_id": lake.model_id, name: frame},
        rows=frame,
        tables={f"{name} ({len(frame)})": _for_people(frame, columns)},
    )


def _for_people(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns; scores as ``knn 1.2, ensemble 0.9``."""
    shown = frame[list(columns)]
    return shown.assign(scores=shown["scores"].map(_scores_text)) if "scores" in shown else shown


def _scores_text(scores: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{pair['detector']} {pair['score']:.3g}" for pair in scores)


def _by_group(found: queries.LakeStats) -> pd.DataFrame:
    """Lead and condition statistics as rows of one table: ``group, name``, and the numbers."""
    groups = (("lead", found.lead_statistics), ("condition", found.condition_statistics))
    return pd.DataFrame(
        [{"group": group, "name": row[group]} | row for group, rows in groups for row in rows]
    ).drop(columns=[group for group, rows in groups if rows])
