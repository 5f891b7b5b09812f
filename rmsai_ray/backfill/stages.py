"""What Ray runs of a backfill. The callables hold no arithmetic: each wraps a plain class or function."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pyarrow as pa
import ray

from rmsai_ray.backfill.plan import Unit
from rmsai_ray.backfill.read import ReadTask, UnitReader, unit_from_json
from rmsai_ray.backfill.report import unit_report
from rmsai_ray.backfill.score import Scoring, score_unit
from rmsai_ray.detection.shelf import load_shelved_detector_set
from rmsai_ray.encoding.encoder import WindowEncoder, limit_threads
from rmsai_ray.logs import WorkerLog
from rmsai_ray.models.shelf import load_shelved_frozen
from rmsai_ray.privacy import quiet_errors
from rmsai_ray.storage import Store
from rmsai_ray.tables.blocks import UnitTables
from rmsai_ray.tables.units import write_unit
from rmsai_ray.tables.vectors import VectorTable


@dataclass(frozen=True, kw_only=True)
class EncodeTask:
    """What every encoder of a run needs to know."""

    lake_uri: str
    model_id: str
    device: str
    batch_windows: int | None
    scoring: Scoring


@dataclass(frozen=True, kw_only=True)
class WriteTask:
    """What every writer of a run needs to know."""

    lake_uri: str
    run_id: str
    model_id: str
    embedding_dim: int
    epoch: int = 0
    """Of the driver's lease."""


@dataclass(frozen=True, kw_only=True)
class LogTask:
    """Where every worker of a run leaves its log."""

    lake_uri: str
    run_id: str
    prefix: str

    def open(self, stage: str) -> WorkerLog:
        """The log of one worker."""
        return WorkerLog(Store(self.lake_uri), self.run_id, self.prefix, stage)


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """What the workers of a run need to know; small, and the same for all of them."""

    log: LogTask
    read: ReadTask
    encode: EncodeTask
    write: WriteTask


class UnitScorer:
    """Signals → embeddings, scores and verdicts; holds the model."""

    def __init__(self, task: EncodeTask) -> None:
        limit_threads(1)
        store = Store(task.lake_uri)
        model = load_shelved_frozen(store, task.model_id)
        self._encoder = WindowEncoder(model, device=task.device, batch_windows=task.batch_windows)
        self._scoring = task.scoring
        set_id = task.scoring.detector_set
        self._detectors = load_shelved_detector_set(store, task.model_id, set_id) if set_id else None

    def score(self, unit: UnitTables) -> UnitTables:
        """The unit with its scores, without its signals."""
        return score_unit(unit, self._encoder, self._scoring, self._detectors)


class UnitWriter:
    """Scored units → parts, fragments and ledger entries."""

    def __init__(self, task: WriteTask) -> None:
        self._task = task
        self._store = Store(task.lake_uri)
        self._vectors = VectorTable(self._store.uri, task.model_id, task.embedding_dim)

    def write(self, unit: UnitTables, log: WorkerLog) -> str:
        """Writes it, with its log; returns its report, as JSON."""
        task = self._task
        entry = write_unit(
            self._store,
            self._vectors,
            unit,
            run_id=task.run_id,
            model_id=task.model_id,
            before_record=lambda entry: log.write(unit.lines),
            epoch=task.epoch,
        )
        unit = passed(unit, "write")
        return json.dumps(unit_report(unit, entry.seconds, entry.num_bytes))


class ProcessUnits:
    """All three stages in one process: on CPUs nothing is gained by handing a unit from core to core."""

    def __init__(self, tasks: Tasks) -> None:
        self._log = tasks.log.open("unit")
        self._reader = UnitReader(tasks.read)
        self._scorer = UnitScorer(tasks.encode)
        self._writer = UnitWriter(tasks.write)
        self._is_quiet = tasks.read.pseudonyms is not None

    def __call__(self, block: pa.Table) -> pa.Table:
        """A block of unit descriptions to one small report each."""
        units = (unit_from_json(text) for text in block["unit"].to_pylist())
        return pa.table({"report": [self._process(unit) for unit in units]})

    def _process(self, unit: Unit) -> str:
        with self._log.unit(unit.unit_id), quiet_errors(self._is_quiet):
            read = passed(self._reader.read(unit), "read")
            return self._writer.write(passed(self._scorer.score(read), "encode"), self._log)


class ReadUnits:
    """Units → their rows and signals."""

    def __init__(self, task: ReadTask, log: LogTask) -> None:
        self._log, self._reader = log.open("read"), UnitReader(task)

    def __call__(self, block: pa.Table) -> pa.Table:
        """A block of unit descriptions to a block of unit tables."""
        units = (unit_from_json(text) for text in block["unit"].to_pylist())
        return pa.concat_tables(self._read(unit).to_block() for unit in units)

    def _read(self, unit: Unit) -> UnitTables:
        with self._log.unit(unit.unit_id):
            return passed(self._reader.read(unit), "read")


class EncodeWindows:
    """Signals → embeddings, scores and verdicts, on a GPU."""

    def __init__(self, task: EncodeTask, log: LogTask) -> None:
        self._log, self._scorer = log.open("encode"), UnitScorer(task)

    def __call__(self, block: pa.Table) -> pa.Table:
        """A block of unit tables to a block of scored ones."""
        return pa.concat_tables(self._score(unit).to_block() for unit in UnitTables.from_block(block))

    def _score(self, unit: UnitTables) -> UnitTables:
        with self._log.unit(unit.unit_id):
            return passed(self._scorer.score(unit), "encode")


class WriteUnits:
    """Scored units → the lake; passes on what became of each unit."""

    def __init__(self, task: WriteTask, log: LogTask) -> None:
        self._log, self._writer = log.open("write"), UnitWriter(task)

    def __call__(self, block: pa.Table) -> pa.Table:
        """A block of scored units to one small report each."""
        return pa.table({"report": [self._write(unit) for unit in UnitTables.from_block(block)]})

    def _write(self, unit: UnitTables) -> str:
        with self._log.unit(unit.unit_id):
            return self._writer.write(unit, self._log)


def passed(unit: UnitTables, stage: str) -> UnitTables:
    """The unit, which now also tells on which node it went through the stage; outside of Ray on none."""
    if not ray.is_initialized():
        return unit
    return replace(unit, nodes={**unit.nodes, stage: ray.get_runtime_context().get_node_id()})
