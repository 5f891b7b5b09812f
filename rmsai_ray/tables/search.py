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


def similar_to_window(
    lake: Lake,
    reference: str,
    *,
    k: int = 10,
    where: WindowFilter | None = None,
    min_similarity: float | None = None,
    exact: bool = False,
) -> pd.DataFrame:
    """The ``k`` windows most similar to one of the lake, which is itself left out.

    ``reference`` is its window id, chunk id, vector id or seed chunk id; the rest as
    :func:`similar_to_embedding`.

    Raises:
        ConfigError: no such window, or several, which are then listed.
    """
    window = find_window(lake, reference)
    others = replace(where or WindowFilter(), not_window=window["window_id"])
    embedding_E = np.asarray(window["embedding"], np.float32)
    return similar_to_embedding(
        lake, embedding_E, k=k, where=others, min_similarity=min_similarity, exact=exact
    )


def similar_to_embedding(
    lake: Lake,
    embedding_E: npt.NDArray[np.float32],
    *,
    k: int = 10,
    where: WindowFilter | None = None,
    min_similarity: float | None = None,
    exact: bool = False,
) -> pd.DataFrame:
    """The ``k`` windows most similar to an embedding, the most similar first.

    Args:
        lake: one model's tables.
        embedding_E: float32, made by the lake's model.
        k: how many at most.
        where: only windows that it lets through; applied before the search, so that ``k`` of them come back.
        min_similarity: cosine similarity that a window must have, −1 to 1.
        exact: compare with every window even where there is an index.

    Returns:
        ``rank`` (from 1), ``similarity`` (1 − cosine distance), and :data:`COLUMNS`.

    Raises:
        ConfigError: the embedding's length is not the model's, or it has no direction.
        LakeError: nothing is published.
    """
    if k < 1:
        raise ConfigError("k", k, "asks for no window", "Give at least 1.")
    table = lake.vectors()
    _check_embedding(embedding_E, table.schema.field("embedding").type.list_size)
    query = table.search(embedding_E, vector_column_name="embedding").distance_type("cosine")
    query = query.bypass_vector_index() if exact else query.nprobes(NUM_PROBES).refine_factor(REFINE_FACTOR)
    condition = (where or WindowFilter()).lance()
    if condition is not None:
        query = query.where(condition, prefilter=True)
    return _ranked(query.limit(k).select([*COLUMNS, "_distance"]).to_arrow(), min_similarity)


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
