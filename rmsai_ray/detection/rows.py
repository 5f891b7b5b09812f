"""Rows of the ``windows`` table as what detectors look at, and the scores back as a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rmsai_ray.detection.measured import Float32Array, Measured
from rmsai_ray.signals.rhythm import Rhythm
from rmsai_ray.tables import schemas

MEASURED_COLUMNS = (
    "embedding", "reconstruction_error", "worst_error", "mae", "lead",
    "num_beats", "ecg_rate", "rr_irregularity", "rr_sd", "signal_rms",
)  # fmt: skip
"""All that :func:`measured_of` needs."""


def measured_of(windows: pa.Table) -> Measured:
    """Rows with the columns :data:`MEASURED_COLUMNS`, as they were measured, to the bit."""
    embedding = windows["embedding"].combine_chunks()
    return Measured(
        embedding_NE=embedding.flatten().to_numpy().reshape(len(embedding), -1),
        mse_N=_floats(windows["reconstruction_error"]),
        worst_mse_N=_floats(windows["worst_error"]),
        mae_N=_floats(windows["mae"]),
        rhythm=rhythm_of(windows),
        leads_N=np.array(windows["lead"].to_pylist(), np.str_),
    )


def rhythm_of(windows: pa.Table) -> Rhythm:
    """The inverse of :func:`rhythm_columns`."""
    return Rhythm(
        num_beats_N=windows["num_beats"].to_numpy(),
        heart_rate_bpm_N=_floats(windows["ecg_rate"]),
        rr_irregularity_N=_floats(windows["rr_irregularity"]),
        rr_sd_s_N=_floats(windows["rr_sd"]),
        rms_N=_floats(windows["signal_rms"]),
    )


def rhythm_columns(rhythm: Rhythm) -> dict[str, Any]:
    """The rhythm's columns of the ``windows`` table; what is not known is null."""
    return {
        "num_beats": rhythm.num_beats_N,
        "ecg_rate": pa.array(rhythm.heart_rate_bpm_N, from_pandas=True),
        "rr_irregularity": pa.array(rhythm.rr_irregularity_N, from_pandas=True),
        "rr_sd": pa.array(rhythm.rr_sd_s_N, from_pandas=True),
        "signal_rms": rhythm.rms_N,
    }


def scores_column(scores: Mapping[str, Float32Array], num_windows: int) -> pa.Array:
    """One list per window: every detector's score of it, in the order given."""
    names = pa.array(list(scores), pa.string())
    which = np.tile(np.arange(len(scores)), num_windows)
    values = np.stack([*scores.values()], axis=1).ravel() if scores else np.zeros(0, np.float32)
    pairs = pa.StructArray.from_arrays(
        [names.take(pa.array(which)), pa.array(values, pa.float32())], fields=list(schemas.SCORE)
    )
    offsets = pa.array(len(scores) * np.arange(num_windows + 1), pa.int32())
    return pa.ListArray.from_arrays(offsets, pairs)


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """float32, NaN where null."""
    return np.asarray(column.to_numpy(), np.float32)
