"""The three Ray stages of a backfill. They hold no arithmetic: each wraps a plain class or function."""

from __future__ import annotations

import json

import pyarrow as pa

from rmsai_ray.backfill.read import ReadTask, UnitReader, unit_from_json
from rmsai_ray.backfill.report import unit_report
from rmsai_ray.backfill.score import Scoring, score_unit
from rmsai_ray.detection.shelf import load_shelved_detector_set
from rmsai_ray.encoding.encoder import WindowEncoder, limit_threads
from rmsai_ray.models.shelf import load_shelved_model
from rmsai_ray.storage import Store
from rmsai_ray.tables.blocks import UnitTables
from rmsai_ray.tables.units import write_unit
from rmsai_ray.tables.vectors import VectorTable


class ReadUnits:
    """Units → their rows and signals."""

    def __init__(self, task: ReadTask) -> None:
        self._reader = UnitReader(task)

    def __call__(self, block: pa.Table) -> pa.Table:
        """A block of unit descriptions to a block of unit tables."""
        units = (unit_from_json(text) for text in block["unit"].to_pylist())
        return pa.concat_tables(self._reader.read(unit).to_block() for unit in units)


class EncodeWindows:
    """Signals → embeddings, scores and verdicts; holds the model."""

    def __init__(
        self, lake_uri: str, model_id: str, device: str, batch_windows: int, scoring: Scoring
    ) -> None:
        limit_threads(1)
        bundle = load_shelved_model(Store(lake_uri), model_id)
        self._encoder = WindowEncoder(bundle, device=device, batch_windows=batch_windows)
        self._scoring = scoring
        self._detectors = (
            load_shelved_detector_set(Store(lake_uri), model_id, scoring.detector_set)
            if scoring.detector_set
            else None
        )

    def __call__(self, block: pa.Table) -> pa.Table:
        """A block of unit tables to a block of scored ones."""
        return pa.concat_tables(
            score_unit(unit, self._encoder, self._scoring, self._detectors).to_block()
            for unit in UnitTables.from_block(block)
        )


class WriteUnits:
    """Scored units → parts, fragments and ledger entries; passes on what became of each unit."""

    def __init__(self, lake_uri: str, run_id: str, model_id: str, embedding_dim: int) -> None:
        self._store = Store(lake_uri)
        self._vectors = VectorTable(self._store.uri, model_id, embedding_dim)
        self._run_id, self._model_id = run_id, model_id

    def __call__(self, block: pa.Table) -> pa.Table:
        """A block of scored units to one small report each."""
        return pa.table({"report": [self._write(unit) for unit in UnitTables.from_block(block)]})

    def _write(self, unit: UnitTables) -> str:
        entry = write_unit(self._store, self._vectors, unit, run_id=self._run_id, model_id=self._model_id)
        return json.dumps(unit_report(unit, entry.seconds, entry.num_bytes))
