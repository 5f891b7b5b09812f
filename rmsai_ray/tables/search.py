"""Similar windows: nearest embeddings by cosine, of one model, among those that a filter lets through."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rmsai_ray.errors import ConfigError
from rmsai_ray.tables.filters import WindowFilter
from rmsai_ray.tables.lake import Lake
from rmsai_ray.tables.queries import find_window

COLUMNS = (
    "window_id",
    "patient_id",
    "event_id",
    "event_time",
    "lead",
    "start_sample",
    "condition",
    "heart_rate",
    "reconstruction_error",
    "anomaly_score",
    "anomaly_status",
    "anomaly_type",
    "archive_id",
    "model_id",
)

NUM_PROBES, REFINE_FACTOR = 32, 20
"""Of an index: partitions looked at, and candidates ranked by exact distance per row asked for."""


def similar(
    lake: Lake,
    query: str | npt.NDArray[np.float32],
    *,
    k: int = 10,
    where: WindowFilter | None = None,
    min_similarity: float | None = None,
    exact: bool = False,
) -> pd.DataFrame:
    """The ``k`` windows most similar to a window or an embedding, the most similar first.

    Args:
        lake: one model's tables.
        query: a window of the lake by a name that :func:`~rmsai_ray.tables.queries.find_window` knows, itself
            left out; or a float32 embedding (E,) that the lake's model made.
        k: how many at most.
        where: only windows that it lets through; applied before the search, so that ``k`` of them come back.
        min_similarity: cosine similarity that a window must have, −1 to 1.
        exact: compare with every window even where there is an index.

    Returns:
        ``rank`` (from 1), ``similarity`` (1 − cosine distance), and :data:`COLUMNS`.

    Raises:
        ConfigError: no such window, or several; or an embedding of another length or without direction.
        LakeError: nothing is published.
    """
    if k < 1:
        raise ConfigError("k", k, "asks for no window", "Give at least 1.")
    where = where or WindowFilter()
    if isinstance(query, str):
        window = find_window(lake, query)
        query, where = (
            np.asarray(window["embedding"], np.float32),
            replace(where, not_window=window["window_id"]),
        )
    table = lake.vectors()
    _check_embedding(query, table.schema.field("embedding").type.list_size)
    found = table.search(query, vector_column_name="embedding").distance_type("cosine")
    found = found.bypass_vector_index() if exact else found.nprobes(NUM_PROBES).refine_factor(REFINE_FACTOR)
    condition = where.lance()
    if condition is not None:
        found = found.where(condition, prefilter=True)
    return _ranked(found.limit(k).select([*COLUMNS, "_distance"]).to_arrow(), min_similarity)


def _check_embedding(embedding_E: npt.NDArray[np.float32], dim: int) -> None:
    if embedding_E.shape != (dim,):
        raise ConfigError(
            "embedding", embedding_E.shape, f"is not ({dim},)", "Encode with the lake's own model."
        )
    if not np.isfinite(embedding_E).all() or not embedding_E.any():
        raise ConfigError("embedding", "…", "has no direction (zero or not finite)", "Check the signal.")


def _ranked(found: Any, min_similarity: float | None) -> pd.DataFrame:
    """LanceDB's rows with ``rank`` (from 1) and ``similarity`` (1 − cosine distance) in front."""
    frame: pd.DataFrame = found.to_pandas().sort_values(["_distance", "window_id"], ignore_index=True)
    frame.insert(0, "similarity", 1.0 - frame.pop("_distance").astype(float))
    frame.insert(0, "rank", np.arange(1, len(frame) + 1))
    return frame if min_similarity is None else frame[frame["similarity"] >= min_similarity]
