"""What is measured of windows: all that a detector may look at."""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rmsai_ray.signals.rhythm import Rhythm

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """N windows as a model and the rhythm see them."""

    embedding_NE: Float32Array
    mse_N: Float32Array
    """Mean squared reconstruction error, normalised units."""
    worst_mse_N: Float32Array
    """Mean squared reconstruction error of the worst part of the window, normalised units."""
    mae_N: Float32Array
    """Mean absolute reconstruction error, normalised units."""
    rhythm: Rhythm
    leads_N: npt.NDArray[np.str_]
    """Lead names; a lead that was not there in fitting is taken for an average one."""

    def __len__(self) -> int:
        return len(self.mse_N)

    def take(self, rows: Any) -> Measured:
        """The windows that a mask, a slice or an index array selects."""
        return Measured(
            embedding_NE=self.embedding_NE[rows],
            mse_N=self.mse_N[rows],
            worst_mse_N=self.worst_mse_N[rows],
            mae_N=self.mae_N[rows],
            rhythm=self.rhythm.take(rows),
            leads_N=self.leads_N[rows],
        )
