"""The audit table of adaptive thresholds: one row per threshold and round, applied or not.

<lake>/threshold_audit/model=<scorer>/<profile>-<time>.parquet
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from rmsai_ray.storage import Store, arrow_filesystem
from rmsai_ray.tables.parts import SUFFIX, model_folder, to_parquet
from rmsai_ray.tables.schemas import TIME

TABLE = "threshold_audit"

METHODS = pa.struct([pa.field(name, pa.float64()) for name in ("percentile", "youden", "max_f1", "gmm")])

SCHEMA = pa.schema(
    [
        pa.field("time", TIME, nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("scorer", pa.string(), nullable=False),  # detector set, or the model where there was none
        pa.field("detector", pa.string(), nullable=False),
        pa.field("profile", pa.string(), nullable=False),
        pa.field("lead", pa.string(), nullable=False),
        pa.field("condition", pa.string(), nullable=False),  # base, or a condition class
        pa.field("samples", pa.string(), nullable=False),  # reported | unlabelled
        pa.field("num_samples", pa.int32(), nullable=False),
        pa.field("num_normal", pa.int32(), nullable=False),  # labelled, for youden and max_f1
        pa.field("num_abnormal", pa.int32(), nullable=False),
        pa.field("methods", METHODS, nullable=False),  # threshold by method; null where it does not apply
        pa.field("target", pa.float64()),  # weighted mean of the methods
        pa.field("confidence", pa.float64()),  # 0-1
        pa.field("old_threshold", pa.float64(), nullable=False),
        pa.field("new_threshold", pa.float64(), nullable=False),  # in force only where applied
        pa.field("applied", pa.bool_(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("old_version", pa.string(), nullable=False),
        pa.field("new_version", pa.string(), nullable=False),  # the old one where nothing was applied
    ],
    metadata={"rmsai_schema": f"{TABLE}/1"},
)


def scorer_folder(table: str, scorer: str) -> str:
    """Where a table of one model or detector set lies; without the plus sign of a set's id, which object
    stores write in different ways."""
    return model_folder(table, scorer.replace("+", "_"))


def write_audit(
    lake: Store, scorer: str, profile: str, time: datetime, rows: Sequence[dict[str, Any]]
) -> str:
    """Writes the rows of one round, and returns their key."""
    key = f"{scorer_folder(TABLE, scorer)}/{profile}-{time:%Y%m%dT%H%M%S%fZ}{SUFFIX}"
    lake.put(key, to_parquet(pa.Table.from_pylist(list(rows), SCHEMA)))
    return key


def read_audit(lake_uri: str, scorer: str) -> pa.Table:
    """Every row of one scorer, the oldest first; none where nothing was ever adapted."""
    folder = scorer_folder(TABLE, scorer)
    keys = sorted(info.key for info in Store(lake_uri).list(folder) if info.key.endswith(SUFFIX))
    if not keys:
        return SCHEMA.empty_table()
    filesystem, root = arrow_filesystem(lake_uri)
    files = [f"{root}/{key}" for key in keys]
    table: pa.Table = pads.dataset(files, filesystem=filesystem, format="parquet", schema=SCHEMA).to_table()
    return table
