"""k-Shape: clusters series by their shape, wherever in them it lies (Paparrizos and Gravano, SIGMOD 2015).

``tslearn`` has it too, and compiles for half a minute in every process before the first result.

Shapes: n series of L samples, C cluster centres, F frequencies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

NUM_CLUSTERS, MOST_ITERATIONS = 6, 30
SMALLEST_NORM = 1e-9


def k_shape_centres(
    series_nL: npt.NDArray[Any],
    rng: np.random.Generator,
    *,
    num_clusters: int = NUM_CLUSTERS,
    iterations: int = MOST_ITERATIONS,
) -> Array:
    """Cluster centres (C, L) of mean 0 and norm 1, from a random start; stops when no series moves."""
    x_nL = _of_unit_norm(series_nL)
    num_clusters = min(num_clusters, len(x_nL))
    cluster_n = rng.permutation(np.arange(len(x_nL)) % num_clusters)
    centres_CL = x_nL[rng.permutation(len(x_nL))[:num_clusters]]
    for _ in range(iterations):
        centres_CL = np.stack([_centre(x_nL[cluster_n == c], centres_CL[c]) for c in range(num_clusters)])
        moved_n = _similarities(x_nL, centres_CL).argmax(1)
        if (moved_n == cluster_n).all():
            break
        cluster_n = moved_n
    return centres_CL


def spectra(series_nL: npt.NDArray[Any]) -> npt.NDArray[np.complex128]:
    """Spectra (n, F) of series of mean 0 and norm 1, padded so that correlations do not wrap around."""
    return np.fft.rfft(_of_unit_norm(series_nL), _num_points(series_nL.shape[1]))


def correlations(
    spectra_nF: npt.NDArray[np.complex128], conjugate_F: npt.NDArray[np.complex128], length: int
) -> Array:
    """Correlation with one series at every shift, (n, shifts); 1 is the same shape, shifted."""
    return np.fft.irfft(spectra_nF * conjugate_F, _num_points(length))


def _similarities(x_nL: Array, centres_CL: Array) -> Array:
    """Largest correlation over all shifts, (n, C)."""
    x_nF, centres_CF = spectra(x_nL), spectra(centres_CL).conj()
    return np.stack([correlations(x_nF, c_F, x_nL.shape[1]).max(1) for c_F in centres_CF], 1)


def _centre(members_nL: Array, centre_L: Array) -> Array:
    """The shape that correlates best with all members, shifted to the old centre: a first eigenvector."""
    if not len(members_nL):
        return centre_L
    aligned_nL = _of_unit_norm(_aligned(members_nL, centre_L))
    length = aligned_nL.shape[1]
    centring_LL = np.eye(length) - 1 / length
    _, vectors_LL = np.linalg.eigh(centring_LL @ (aligned_nL.T @ aligned_nL) @ centring_LL)
    best_L = vectors_LL[:, -1]
    centre: Array = _of_unit_norm((best_L if (aligned_nL @ best_L).sum() >= 0 else -best_L)[None])[0]
    return centre


def _aligned(members_nL: Array, centre_L: Array) -> Array:
    """Each member moved to where it fits the centre best; what it leaves is filled with zeros."""
    length, num_points = len(centre_L), _num_points(len(centre_L))
    shift_n = correlations(spectra(members_nL), spectra(centre_L[None])[0].conj(), length).argmax(1)
    shift_n = np.where(shift_n > num_points // 2, shift_n - num_points, shift_n)
    places_nL = np.arange(length) + shift_n[:, None]
    inside_nL = (places_nL >= 0) & (places_nL < length)
    taken_nL = np.take_along_axis(members_nL, np.clip(places_nL, 0, length - 1), axis=1)
    return np.where(inside_nL, taken_nL, 0.0)


def _num_points(length: int) -> int:
    return int(2 ** np.ceil(np.log2(2 * length)))


def _of_unit_norm(x_nL: npt.NDArray[Any]) -> Array:
    centred_nL = np.asarray(x_nL, np.float64) - x_nL.mean(1, keepdims=True)
    return np.asarray(
        centred_nL / np.maximum(np.linalg.norm(centred_nL, axis=1, keepdims=True), SMALLEST_NORM)
    )
