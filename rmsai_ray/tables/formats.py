"""What an embedding would take in fewer bits, and what that would cost: measured on a sample of the lake.

Shapes: N embeddings of the sample, Q of them asked for their neighbours, E dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from rmsai_ray.tables.lake import Lake
from rmsai_ray.tables.parts import to_parquet

SAMPLE, QUERIES, K = 20_000, 500, 10
MOST_PARTS = 20

FloatArray = npt.NDArray[np.float32]


def embedding_formats(lake: Lake) -> pd.DataFrame:
    """One row per format: ``format, value_bytes_per_row, parquet_bytes_per_row, recall_at_10``.

    The recall is that of an exact search by cosine among the embeddings as they come back from the format,
    against one among the float32 values. No row where the lake has not more windows than neighbours.
    """
    names = ["format", "value_bytes_per_row", "parquet_bytes_per_row", "recall_at_10"]
    x_NE = _sample(lake)
    if len(x_NE) <= K:
        return pd.DataFrame([], columns=names)
    truth_QK = nearest(x_NE)
    rows = []
    for name, (encode, decode) in FORMATS.items():
        stored_NE, back_NE = encode(x_NE), decode(encode(x_NE), x_NE)
        parquet = len(to_parquet(_as_table(stored_NE))) / len(x_NE)
        rows.append((name, stored_NE[0].nbytes, parquet, shared(truth_QK, nearest(back_NE))))
    return pd.DataFrame(rows, columns=names)


def _sample(lake: Lake) -> FloatArray:
    """Embeddings from the beginnings of some parts, from the first to the last."""
    fragments = list(lake.dataset("windows").get_fragments())
    chosen = fragments[:: -(-len(fragments) // MOST_PARTS) or 1]
    tables = [part.head(-(-SAMPLE // len(chosen)), columns=["embedding"]) for part in chosen]
    columns = [chunk for table in tables for chunk in table["embedding"].chunks if len(chunk)]
    if not columns:
        return np.empty((0, 1), np.float32)
    x_NE: FloatArray = np.concatenate([chunk.flatten().to_numpy() for chunk in columns])
    return x_NE.reshape(-1, columns[0].type.list_size)


def nearest(x_NE: FloatArray) -> npt.NDArray[np.int64]:
    """The ``K`` nearest by cosine of the first ``QUERIES`` embeddings, themselves left out; (Q, K)."""
    unit_NE = x_NE / np.linalg.norm(x_NE, axis=1, keepdims=True).clip(min=np.finfo(np.float32).tiny)
    similarity_QN = unit_NE[:QUERIES] @ unit_NE.T
    np.fill_diagonal(similarity_QN, -np.inf)
    return np.argpartition(-similarity_QN, K - 1, axis=1)[:, :K]


def shared(truth_QK: npt.NDArray[np.int64], found_QK: npt.NDArray[np.int64]) -> float:
    """Recall: the share of the true neighbours that were found."""
    pairs = zip(truth_QK.tolist(), found_QK.tolist(), strict=True)
    return float(np.mean([len(set(truth) & set(found)) / K for truth, found in pairs]))


def _to_int8(x_NE: FloatArray) -> npt.NDArray[np.int8]:
    """127 steps to the largest value of each dimension."""
    stored_NE: npt.NDArray[np.int8] = np.rint(x_NE / _steps(x_NE)).astype(np.int8)
    return stored_NE


def _steps(x_NE: FloatArray) -> FloatArray:
    largest_E = np.abs(x_NE).max(axis=0)
    return np.where(largest_E > 0, largest_E / 127, 1).astype(np.float32)


Stored = npt.NDArray[Any]

FORMATS: dict[str, tuple[Callable[[FloatArray], Stored], Callable[[Stored, FloatArray], FloatArray]]] = {
    "float32": (lambda x_NE: x_NE, lambda stored_NE, x_NE: stored_NE),
    "float16": (lambda x_NE: x_NE.astype(np.float16), lambda stored_NE, x_NE: stored_NE.astype(np.float32)),
    "int8": (_to_int8, lambda stored_NE, x_NE: stored_NE.astype(np.float32) * _steps(x_NE)),
}
"""Name → (values as stored, values as they come back; the sample gives the scale)."""


def _as_table(stored_NE: Stored) -> pa.Table:
    """As a column of fixed-size lists."""
    values = pa.array(stored_NE.ravel())
    return pa.table({"embedding": pa.FixedSizeListArray.from_arrays(values, stored_NE.shape[1])})
