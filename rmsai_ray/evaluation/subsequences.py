"""Baselines on pieces of the raw signal, without any learned network: Sub-PCA, kNN and k-Shape.

Each is fitted on pieces of normal training windows; a window's score is that of its strangest piece, so that
a short abnormal beat counts. Sizes are bounded: a protocol takes minutes on one core, not hours.

Shapes: N windows, P pieces of a window, L samples of a piece, C cluster centres.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from rmsai_ray.evaluation.k_shape import correlations, k_shape_centres, spectra

FloatArray = npt.NDArray[np.float32]

PIECE_HZ = 50.0
"""Rate that pieces are thinned to: an ECG's shape, without its muscle noise."""
PIECE_S, STEP_S = 1.0, 0.5
CLUSTER_PIECE_S = 2.0
"""Long enough to hold a beat wherever it begins."""
VARIANCE_KEPT = 0.95
NUM_NEIGHBOURS = 5
MOST_REFERENCE_PIECES = 5000
MOST_CLUSTERED_PIECES = 600
WINDOWS_AT_ONCE = 1024
SMALLEST_STD = 1e-6

PieceScore = Callable[[FloatArray], FloatArray]
"""Pieces (n, L) → how strange each is (n,)."""


def subsequence_scores(
    normal_NT: FloatArray,
    normal_samples_N: npt.NDArray[np.int32],
    asked: Mapping[str, tuple[FloatArray, npt.NDArray[np.int32]]],
    fs: float,
    *,
    seed: int,
) -> dict[str, dict[str, FloatArray]]:
    """Scores by baseline and part, fitted once on the normal windows.

    Args:
        normal_NT: normal training windows in any unit.
        normal_samples_N: real samples of each.
        asked: windows and their real samples, by part.
        fs: sampling rate in Hz.
        seed: of the choice of pieces and of the clusters' start.
    """
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(normal_NT))[:MOST_REFERENCE_PIECES])
    found: dict[str, dict[str, FloatArray]] = {}
    for name, piece_s, fit in (
        ("sub_pca", PIECE_S, _fit_pca),
        ("knn_raw", PIECE_S, _fit_neighbours),
        ("k_shape", CLUSTER_PIECE_S, _fit_shapes),
    ):
        pieces_NPL, is_real_NP = cut_pieces(normal_NT[chosen], normal_samples_N[chosen], fs, piece_s)
        score = fit(pieces_NPL[is_real_NP], rng)
        found[name] = {
            part: _strangest(score, x_NT, samples_N, fs, piece_s) for part, (x_NT, samples_N) in asked.items()
        }
    return found


def cut_pieces(
    x_NT: FloatArray, num_samples_N: npt.NDArray[np.int32], fs: float, piece_s: float
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """(pieces (N, P, L) of the thinned and standardised windows, which of them are real (N, P))."""
    thin = max(1, round(fs / PIECE_HZ))
    length_T = x_NT.shape[1] // thin
    is_real_NT = np.arange(length_T) < (num_samples_N // thin)[:, None]
    thinned_NT = x_NT[:, : length_T * thin].reshape(len(x_NT), length_T, thin).mean(2)
    z_NT = _standardised(thinned_NT, is_real_NT)
    piece, step = (max(1, min(length_T, round(seconds * fs / thin))) for seconds in (piece_s, STEP_S))
    starts = np.arange(0, length_T - piece + 1, step)
    pieces_NPL = np.lib.stride_tricks.sliding_window_view(z_NT, piece, axis=1)[:, starts]
    is_real_NP = (starts + piece)[None] <= (num_samples_N // thin)[:, None]
    is_real_NP[:, 0] = True  # a window shorter than a piece still has one
    return pieces_NPL, is_real_NP


def _standardised(x_NT: FloatArray, is_real_NT: npt.NDArray[np.bool_]) -> FloatArray:
    count_N1 = np.maximum(is_real_NT.sum(1, keepdims=True), 1)
    centred_NT = (x_NT - (x_NT * is_real_NT).sum(1, keepdims=True) / count_N1) * is_real_NT
    std_N1 = np.sqrt((centred_NT**2).sum(1, keepdims=True) / count_N1)
    return np.asarray(centred_NT / np.maximum(std_N1, SMALLEST_STD), np.float32)


def _strangest(
    score: PieceScore, x_NT: FloatArray, num_samples_N: npt.NDArray[np.int32], fs: float, piece_s: float
) -> FloatArray:
    worst = [np.zeros(0, np.float32)]
    for first in range(0, len(x_NT), WINDOWS_AT_ONCE):
        rows = slice(first, first + WINDOWS_AT_ONCE)
        pieces_NPL, is_real_NP = cut_pieces(x_NT[rows], num_samples_N[rows], fs, piece_s)
        scores_NP = np.full(is_real_NP.shape, -np.inf, np.float32)
        scores_NP[is_real_NP] = score(pieces_NPL[is_real_NP])
        worst.append(scores_NP.max(1))
    return np.concatenate(worst)


def _fit_pca(pieces_nL: FloatArray, rng: np.random.Generator) -> PieceScore:
    """Error of the reconstruction from the components that hold 95 % of the variance."""
    pca = PCA(n_components=VARIANCE_KEPT, svd_solver="full").fit(_some(pieces_nL, MOST_REFERENCE_PIECES, rng))

    def score(asked_nL: FloatArray) -> FloatArray:
        rebuilt_nL = pca.inverse_transform(pca.transform(asked_nL))
        return np.asarray(((asked_nL - rebuilt_nL) ** 2).mean(1), np.float32)

    return score


def _fit_neighbours(pieces_nL: FloatArray, rng: np.random.Generator) -> PieceScore:
    """Euclidean distance to the fifth-nearest normal piece."""
    reference_nL = _some(pieces_nL, MOST_REFERENCE_PIECES, rng)
    index = NearestNeighbors(n_neighbors=min(NUM_NEIGHBOURS, len(reference_nL)), algorithm="brute")
    index.fit(reference_nL)

    def score(asked_nL: FloatArray) -> FloatArray:
        return np.asarray(index.kneighbors(asked_nL)[0][:, -1], np.float32)

    return score


def _fit_shapes(pieces_nL: FloatArray, rng: np.random.Generator) -> PieceScore:
    """Shape-based distance to the nearest of the k-Shape centres (Paparrizos and Gravano, SIGMOD 2015)."""
    some_nL = _some(pieces_nL, MOST_CLUSTERED_PIECES, rng)
    spectra_CF = spectra(k_shape_centres(some_nL, rng)).conj()

    def score(asked_nL: FloatArray) -> FloatArray:
        asked_nF = spectra(asked_nL)
        length = asked_nL.shape[1]
        best_n = np.full(len(asked_nL), -np.inf)
        for spectrum_F in spectra_CF:
            best_n = np.maximum(best_n, correlations(asked_nF, spectrum_F, length).max(1))
        return np.asarray(1 - best_n, np.float32)

    return score


def _some(pieces_nL: FloatArray, most: int, rng: np.random.Generator) -> FloatArray:
    return pieces_nL[np.sort(rng.permutation(len(pieces_nL))[:most])]
