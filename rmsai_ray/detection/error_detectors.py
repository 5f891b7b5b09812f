"""Detectors of how badly a window was reconstructed."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from rmsai_ray.detection.measured import Float32Array, Measured
from rmsai_ray.detection.protocol import (
    DETECTORS,
    KeepsArrays,
    NeedsNoFit,
    check_fit,
    own_leads,
    places_of,
    rows_of,
)

BAND = (0.05, 0.5, 0.95)
"""Quantiles of the normal errors: lower edge, middle and upper edge of the band."""
SMALLEST_ERROR = 1e-9
"""A flat window has no error; its logarithm is taken of this."""
NARROWEST_BAND = 1e-3
"""In log space, on either side: where all normal errors are equal."""


@DETECTORS.register("reconstruction_error")
class ReconstructionError(NeedsNoFit):
    """The mean squared reconstruction error itself."""

    name = "reconstruction_error"

    def anomaly_score(self, measured: Measured) -> Float32Array:
        """``mse_N``."""
        return np.asarray(measured.mse_N, np.float32)


@DETECTORS.register("worst_error")
class WorstError(NeedsNoFit):
    """The mean squared reconstruction error of the window's worst part."""

    name = "worst_error"

    def anomaly_score(self, measured: Measured) -> Float32Array:
        """``worst_mse_N``."""
        return np.asarray(measured.worst_mse_N, np.float32)


@DETECTORS.register("error_contrast")
class ErrorContrast(NeedsNoFit):
    """The worst part's error over the whole window's: how far one beat stands out of its own window.

    It knows no patient: a trace that is noisy throughout has a large error everywhere, and little contrast.
    """

    name = "error_contrast"

    def anomaly_score(self, measured: Measured) -> Float32Array:
        """``worst_mse_N / mse_N``."""
        mse_N = np.maximum(measured.mse_N.astype(np.float64), SMALLEST_ERROR)
        return (measured.worst_mse_N / mse_N).astype(np.float32)


@DETECTORS.register("two_sided_error")
class TwoSidedError(KeepsArrays):
    """How far the error lies from that of normal windows of its lead, above or below.

    A rhythm of low energy is reconstructed suspiciously well. The score is the distance from the median of
    the normal log errors, in units of the distance of the band's edge (the 5 % or the 95 % quantile) on
    that side: 1 is the edge.
    """

    name = "two_sided_error"
    kept: ClassVar = {"leads": ("U", 1), "band_L3": ("f", 2)}

    def fit(self, normal: Measured, *, seed: int) -> None:
        """Finds the band of every lead."""
        check_fit(normal)
        leads, error_N = own_leads(normal.leads_N), _log_error(normal)
        bands = [np.quantile(error_N[rows_of(normal.leads_N, lead)], BAND) for lead in leads]
        self._learn(leads=leads, band_L3=np.stack(bands))

    def anomaly_score(self, measured: Measured) -> Float32Array:
        """Distance from the middle of the band; 1 at its edges."""
        learned = self.learned
        band_N3 = learned["band_L3"][places_of(measured.leads_N, learned["leads"])]
        return two_sided_distance(_log_error(measured), band_N3).astype(np.float32)


def two_sided_distance(
    x_N: npt.NDArray[np.float64], band_N3: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Distance of each value from the middle of its band (lower edge, middle, upper edge); 1 at the edges."""
    lower_N, middle_N, upper_N = band_N3.T
    above_N = (x_N - middle_N) / np.maximum(upper_N - middle_N, NARROWEST_BAND)
    below_N = (middle_N - x_N) / np.maximum(middle_N - lower_N, NARROWEST_BAND)
    return np.asarray(np.maximum(above_N, below_N))


def _log_error(measured: Measured) -> npt.NDArray[np.float64]:
    return np.log(np.maximum(measured.mse_N.astype(np.float64), SMALLEST_ERROR))
