"""Metrics for Prometheus, through Ray's own exporter; recorded by the driver as units are committed.

Ray adds ``ray_`` to every name, and labels of its own. Only the driver records: what it counts was committed,
each unit once however often a worker died, and a run has one series of each, not one a worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import ray
from ray.util import metrics as ray_metrics

from rmsai_ray import __version__

Kind = Literal["counter", "gauge", "histogram"]

EXPORTED_PREFIX = "ray_"
SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Bounds of histograms. Ray makes the sum of a histogram from their middles, so sums are counters here."""
BYTE_KINDS = {"read": "read", "parquet": "parquet", "lance": "lance", "read by HDF5's library": "detour"}
"""Of a unit's report, to the label ``kind``."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric: its name as Prometheus wants it, with the unit at the end; and what it may be split by."""

    name: str
    kind: Kind
    what: str
    labels: tuple[str, ...] = ()


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            name="rmsai_run_info",
            kind="gauge",
            what="1 for the run that is at work.",
            labels=("command", "run_id", "model_id", "version"),
        ),
        Metric(
            name="rmsai_runs_total",
            kind="counter",
            what="Runs that ended, by how.",
            labels=("command", "status"),
        ),
        Metric(
            name="rmsai_run_last_success_timestamp_seconds",
            kind="gauge",
            what="When a run ended well; until its driver leaves.",
            labels=("command",),
        ),
        Metric(
            name="rmsai_lease_renewed_timestamp_seconds",
            kind="gauge",
            what="When the lake's lease was renewed.",
        ),
        Metric(
            name="rmsai_watch_cycle_timestamp_seconds",
            kind="gauge",
            what="When a watching backfill last looked for archives.",
        ),
        Metric(
            name="rmsai_archives_total",
            kind="counter",
            what="Archives that are done, by what became of them.",
            labels=("status",),
        ),
        Metric(name="rmsai_events_total", kind="counter", what="Events committed."),
        Metric(name="rmsai_windows_total", kind="counter", what="Windows committed."),
        Metric(name="rmsai_anomalous_windows_total", kind="counter", what="Windows found anomalous."),
        Metric(
            name="rmsai_rejects_total",
            kind="counter",
            what="Archives, events and windows left out, by reason.",
            labels=("reason",),
        ),
        Metric(
            name="rmsai_units",
            kind="gauge",
            what="Units of work of the present run: waiting, under way and written.",
            labels=("state",),
        ),
        Metric(name="rmsai_units_total", kind="counter", what="Units written."),
        Metric(
            name="rmsai_stage_seconds_total",
            kind="counter",
            what="Worker seconds by stage.",
            labels=("stage",),
        ),
        Metric(
            name="rmsai_stage_duration_seconds",
            kind="histogram",
            what="Seconds that a stage took for one unit.",
            labels=("stage",),
        ),
        Metric(
            name="rmsai_bytes_total",
            kind="counter",
            what="Bytes: read, written as Parquet and as Lance, and read by HDF5's library.",
            labels=("kind",),
        ),
        Metric(
            name="rmsai_read_retries_total",
            kind="counter",
            what="Reads of objects after one that failed.",
        ),
        Metric(
            name="rmsai_commit_seconds_total",
            kind="counter",
            what="Seconds of the driver for folds: manifest and LanceDB.",
        ),
        Metric(name="rmsai_commit_duration_seconds", kind="histogram", what="Seconds of one fold."),
    )
}


class Instrument(Protocol):
    """Where one metric's values go."""

    def record(self, value: float, labels: Mapping[str, str]) -> None:
        """Adds to a counter, sets a gauge, counts in a histogram."""


class RayInstrument:
    """A metric of Ray's exporter. Without a Ray nothing is recorded."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._record: Callable[[float, dict[str, str]], None] | None = None

    def record(self, value: float, labels: Mapping[str, str]) -> None:
        """Hands the value to Ray, which sends it to the node's agent in its own time."""
        if not ray.is_initialized():
            return
        if self._record is None:
            self._record = self._open()
        self._record(value, dict(labels))

    def _open(self) -> Callable[[float, dict[str, str]], None]:
        metric = self._metric
        named: dict[str, Any] = {"name": metric.name, "description": metric.what, "tag_keys": metric.labels}
        made: Callable[[float, dict[str, str]], None]
        if metric.kind == "counter":
            made = ray_metrics.Counter(**named).inc
        elif metric.kind == "gauge":
            made = ray_metrics.Gauge(**named).set
        else:
            made = ray_metrics.Histogram(**named, boundaries=list(SECONDS)).observe
        return made


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Records the values of :data:`METRICS`."""

    make: Callable[[Metric], Instrument] = RayInstrument
    _made: dict[str, Instrument] = field(default_factory=dict)

    def record(self, name: str, value: float, **labels: str) -> None:
        """One value, with every label that the metric has.

        Raises:
            ValueError: the metric has other labels.
        """
        metric = METRICS[name]
        if set(labels) != set(metric.labels):
            raise ValueError(f"{name} has the labels {metric.labels}, not {tuple(labels)}")
        if metric.kind == "counter" and value <= 0:
            return  # Ray refuses 0
        if name not in self._made:
            self._made[name] = self.make(metric)
        self._made[name].record(value, labels)

    def unit(self, report: Mapping[str, Any]) -> None:
        """What became of a unit, from its report."""
        for status, count in report["archives"].items():
            self.record("rmsai_archives_total", count, status=status)
        for reason, count in report["rejects"].items():
            self.record("rmsai_rejects_total", count, reason=reason)
        self.record("rmsai_events_total", report["counts"]["events"])
        self.record("rmsai_windows_total", report["counts"]["windows"])
        self.record("rmsai_anomalous_windows_total", report["counts"]["anomalies"])
        for stage, seconds in report["seconds"].items():
            self.record("rmsai_stage_seconds_total", seconds, stage=stage)
            self.record("rmsai_stage_duration_seconds", seconds, stage=stage)
        for name, num_bytes in report["num_bytes"].items():
            self.record("rmsai_bytes_total", num_bytes, kind=BYTE_KINDS[name])
        self.record("rmsai_read_retries_total", report["retries"])
        self.record("rmsai_units_total", 1)

    def queue(self, *, planned: int, written: int, workers: int) -> None:
        """How many units wait, are under way, and are written."""
        under_way = min(workers, planned - written)
        states = {"waiting": planned - written - under_way, "under_way": under_way, "written": written}
        for state, count in states.items():
            self.record("rmsai_units", count, state=state)

    @contextmanager
    def commit(self) -> Iterator[None]:
        """Takes the time of a fold."""
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self.record("rmsai_commit_seconds_total", seconds)
        self.record("rmsai_commit_duration_seconds", seconds)

    def lease_renewed(self) -> None:
        """The lake is held for some minutes more."""
        self.record("rmsai_lease_renewed_timestamp_seconds", time.time())

    def cycle_ended(self) -> None:
        """A watching backfill has looked, and done what there was."""
        self.record("rmsai_watch_cycle_timestamp_seconds", time.time())

    def run_began(self, command: str, run_id: str, model_id: str) -> None:
        """Which run is at work."""
        named = {"command": command, "run_id": run_id, "model_id": model_id, "version": __version__}
        self.record("rmsai_run_info", 1, **named)

    def run_ended(self, command: str, status: str) -> None:
        """How a run ended: ``done``, or not."""
        self.record("rmsai_runs_total", 1, command=command, status=status)
        if status == "done":
            self.record("rmsai_run_last_success_timestamp_seconds", time.time(), command=command)


METER = Metrics()
"""Of this process."""
