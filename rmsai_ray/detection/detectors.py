"""Detectors by name: each turns what the encoder measured of a window into one anomaly score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rmsai_ray.plugins import Registry

FloatArray = npt.NDArray[np.floating[Any]]


class Detector(Protocol):
    """Scores windows; higher is more anomalous, always. A score depends on its own window alone."""

    name: str

    def anomaly_score(
        self, embedding_NE: FloatArray, mse_N: FloatArray, mae_N: FloatArray
    ) -> npt.NDArray[np.float32]:
        """Anomaly scores, shape (N,).

        Args:
            embedding_NE: embeddings.
            mse_N: mean squared reconstruction error of each window, normalised units.
            mae_N: mean absolute reconstruction error of each window, normalised units.
        """


DETECTORS: Registry[Callable[[], Detector]] = Registry("detector")
"""What makes a detector, by name: ``DETECTORS.get("reconstruction_error")()``."""


@DETECTORS.register("reconstruction_error")
class ReconstructionError:
    """The mean squared reconstruction error itself, in the metric that the thresholds are made for."""

    name = "reconstruction_error"

    def anomaly_score(
        self, embedding_NE: FloatArray, mse_N: FloatArray, mae_N: FloatArray
    ) -> npt.NDArray[np.float32]:
        """``mse_N``, as float32."""
        return np.asarray(mse_N, dtype=np.float32)
