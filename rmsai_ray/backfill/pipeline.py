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
from rmsai_ray.compute import ENCODERS_ONLY, StageResources

MAX_BLOCK_BYTES = 1 << 30
"""A unit is one block; Ray must not split it."""
MAX_TASK_RETRIES = 3
"""Of a unit whose worker died; then the run ends, and the next one goes on."""

NODE_ID = "ray.io/node-id"
"""Ray's own label of every node."""

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
    return waiting.map_batches(
        ProcessUnits,
        fn_constructor_args=(tasks,),
        compute=_pool(stages.num_encoders, stages, num_units),
        num_cpus=stages.encoder_num_cpus,
        **WHOLE_UNITS,
        **FAULTS,
    )


def _on_gpus(waiting: Dataset, tasks: Tasks, stages: StageResources, num_units: int) -> Dataset:
    """A stage each for reading, encoding and writing, so that the GPUs always find a unit in memory."""
    feeders: dict[str, Any] = {
        "num_cpus": stages.feeder_num_cpus,
        "label_selector": _beside_gpus(stages),
        **WHOLE_UNITS,
        **FAULTS,
    }
    return (
        waiting.map_batches(
            ReadUnits,
            fn_constructor_args=(tasks.read, tasks.log),
            compute=_pool(stages.num_readers, stages, num_units),
            **feeders,
        )
        .map_batches(
            EncodeWindows,
            fn_constructor_args=(tasks.encode, tasks.log),
            compute=_pool(stages.num_encoders, stages, num_units),
            num_cpus=stages.encoder_num_cpus,  # not named, it is 1
            num_gpus=stages.encoder_num_gpus,
            batch_size=1,  # of a GPU stage Ray demands a number; a unit is one row
            batch_format="pyarrow",
            **FAULTS,
        )
        .map_batches(
            WriteUnits,
            fn_constructor_args=(tasks.write, tasks.log),
            compute=_pool(stages.num_writers, stages, num_units),
            **feeders,
        )
    )


def _pool(size: int, stages: StageResources, num_units: int) -> ActorPoolStrategy:
    """As many actors as fit now, and where nothing else is asked for more as soon as nodes join.

    One is enough to go on with: a node that leaves takes its actors along.
    """
    size = min(size, num_units)
    if not stages.elastic:
        return ActorPoolStrategy(size=size)
    return ActorPoolStrategy(min_size=1, initial_size=size, max_size=num_units)


def _beside_gpus(stages: StageResources) -> dict[str, str]:
    """Where readers and writers may run; a node without the label passes."""
    selector = {"pool": f"!{ENCODERS_ONLY}"}
    if stages.feeders_avoid:
        selector[NODE_ID] = f"!in({', '.join(stages.feeders_avoid)})"
    return selector
