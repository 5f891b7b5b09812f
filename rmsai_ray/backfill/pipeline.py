"""The backfill's units on Ray: one actor per core on CPUs, a stage each around GPUs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, Dataset

from rmsai_ray.backfill.plan import Unit
from rmsai_ray.backfill.read import unit_to_json
from rmsai_ray.backfill.stages import EncodeWindows, ProcessUnits, ReadUnits, Tasks, WriteUnits
from rmsai_ray.compute import StageResources

MAX_BLOCK_BYTES = 1 << 30
"""A unit is one block; Ray must not split it."""
MAX_TASK_RETRIES = 3
"""Of a unit whose worker died; then the run ends, and the next one goes on."""

FAULTS: dict[str, Any] = {"max_restarts": -1, "max_task_retries": MAX_TASK_RETRIES}
WHOLE_UNITS: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": None}


def run_units(units: list[Unit], tasks: Tasks, stages: StageResources) -> Iterator[dict[str, Any]]:
    """Units → read → encode → write → one report each, in the order they finish."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = MAX_BLOCK_BYTES
    waiting = ray.data.from_arrow([pa.table({"unit": [unit_to_json(unit)]}) for unit in units])
    flow = _on_gpus if stages.encoder_num_gpus else _on_cpus
    done = flow(waiting, tasks, stages, len(units))
    for block in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from (json.loads(report) for report in block["report"].to_pylist())


def _on_cpus(waiting: Dataset, tasks: Tasks, stages: StageResources, num_units: int) -> Dataset:
    """One actor a core, which takes a unit from its objects to its ledger entry."""
    actors = ActorPoolStrategy(size=min(stages.num_encoders, num_units))
    return waiting.map_batches(
        ProcessUnits,
        fn_constructor_args=(tasks,),
        compute=actors,
        num_cpus=stages.encoder_num_cpus,
        **WHOLE_UNITS,
        **FAULTS,
    )


def _on_gpus(waiting: Dataset, tasks: Tasks, stages: StageResources, num_units: int) -> Dataset:
    """A stage each for reading, encoding and writing, so that the GPUs always find a unit in memory."""
    feeders: dict[str, Any] = {"num_cpus": stages.feeder_num_cpus, **WHOLE_UNITS, **FAULTS}
    return (
        waiting.map_batches(
            ReadUnits,
            fn_constructor_args=(tasks.read, tasks.log),
            compute=ActorPoolStrategy(size=min(stages.num_readers, num_units)),
            **feeders,
        )
        .map_batches(
            EncodeWindows,
            fn_constructor_args=(tasks.encode, tasks.log),
            compute=ActorPoolStrategy(size=min(stages.num_encoders, num_units)),
            num_gpus=stages.encoder_num_gpus,
            batch_size=1,  # of a GPU stage Ray demands a number; a unit is one row
            batch_format="pyarrow",
            **FAULTS,
        )
        .map_batches(
            WriteUnits,
            fn_constructor_args=(tasks.write, tasks.log),
            compute=ActorPoolStrategy(size=min(stages.num_writers, num_units)),
            **feeders,
        )
    )
