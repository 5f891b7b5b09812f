"""Similar windows: nearest embeddings by cosine, of one model, among those that a filter lets through."""

from __future__ import annotations

from math import ceil

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rmsai_ray.errors import ConfigError
from rmsai_ray.tables.filters import WindowFilter
from rmsai_ray.tables.index_segments import COLUMN, METRIC, find_note
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
)

MEASURED_K = 10
"""An index was measured for so many nearest; more of them lie in more partitions."""


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
        where: only windows that it lets through; each of them is compared, so that ``k`` come back, the right
            ones.
        min_similarity: cosine similarity that a window must have, −1 to 1.
        exact: compare with every window even where there is an index.

    Returns:
        ``rank`` (from 1), ``similarity`` (1 − cosine distance), :data:`COLUMNS`, and ``model_id``.

    Raises:
        ConfigError: no such window, or several; or an embedding of another length or without direction.
        LakeError: nothing is published.
    """
    if k < 1:
        raise ConfigError("k", k, "asks for no window", "Give at least 1.")
    own_id, condition = None, where.lance() if where else None
    if isinstance(query, str):
        window = find_window(lake, query)
        own_id, query = window["window_id"], np.asarray(window["embedding"], np.float32)
    dataset = lake.vector_dataset()
    _check_embedding(query, dataset.schema.field(COLUMN).type.list_size)
    # What is nearest to a window of the lake is that window itself.
    wanted = k if own_id is None else k + 1
    # A filter may let through only what lies far from the query, whatever recall was measured without it.
    note = None if exact or condition is not None else find_note(dataset)
    how = {"use_index": False} if note is None else {"nprobes": note.probes * ceil(k / MEASURED_K)}
    found = dataset.to_table(
        columns=[*COLUMNS, "_distance"],
        filter=condition,
        prefilter=True,
        nearest={"column": COLUMN, "q": query, "k": wanted, "metric": METRIC, **how},
    )
    if own_id is not None:
        found = found.filter(pc.not_equal(found["window_id"], own_id)).slice(0, k)
    return _ranked(found, lake.model_id, min_similarity)


def _check_embedding(embedding_E: npt.NDArray[np.float32], dim: int) -> None:
    if embedding_E.shape != (dim,):
        raise ConfigError(
            "embedding", embedding_E.shape, f"is not ({dim},)", "Encode with the lake's own model."
        )
    if not np.isfinite(embedding_E).all() or not embedding_E.any():
        raise ConfigError("embedding", "…", "has no direction (zero or not finite)", "Check the signal.")


def _ranked(found: pa.Table, model_id: str, min_similarity: float | None) -> pd.DataFrame:
    """Lance's rows, nearest first, as a frame; made of Arrow, since pandas takes longer than the search."""
    found = found.sort_by([("_distance", "ascending"), ("window_id", "ascending")])
    similarity_N = 1.0 - found["_distance"].to_numpy().astype(float)
    columns = {
        "rank": pa.array(np.arange(1, len(found) + 1)),
        "similarity": pa.array(similarity_N),
        **{name: found[name] for name in COLUMNS},
        # A column of one value is slow to fetch from, and known.
        "model_id": pa.repeat(model_id, len(found)),
    }
    frame: pd.DataFrame = pa.table(columns).to_pandas()
    return frame if min_similarity is None else frame[frame["similarity"] >= min_similarity]
