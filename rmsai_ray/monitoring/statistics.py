"""Distances between two groups of patients, and how often chance alone makes them as large.

A patient is the unit: the windows of one patient are no independent evidence, so that every patient counts
alike, whatever the number of windows, and chance is what comes of dealing whole patients to the groups anew.

Shapes: P rows (a patient in one group; one who is in both has two), F features, B bins of a feature,
D deals, T tests.
"""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NUM_GROUPS = 10
"""Of the population stability index; ten is its usual number."""
LEAST_SHARE = 1e-3
"""Of a group, so that an empty one has a logarithm."""
BLOCK_DEALS = 512

Array = npt.NDArray[np.float64]


def deal_patients(
    patients_P: Sequence[str], is_recent_P: npt.NDArray[np.bool_], *, num_deals: int, seed: int
) -> npt.NDArray[np.bool_]:
    """Which rows are recent, (D + 1, P): as it is in the first row, then dealt anew.

    Patients of one group change places with others; of a patient with a row in both, the two rows do or do
    not. Where nothing has changed from one group to the other, every such deal is as likely as what is.
    """
    rng = np.random.default_rng(seed)
    rows_of: dict[str, list[int]] = {}
    for row, patient in enumerate(patients_P):
        rows_of.setdefault(patient, []).append(row)
    single_S = np.array([rows[0] for rows in rows_of.values() if len(rows) == 1], int)
    pair_Q2 = np.array([rows for rows in rows_of.values() if len(rows) == 2], int).reshape(-1, 2)
    dealt_DP = np.tile(is_recent_P, (num_deals + 1, 1))
    dealt_DP[1:, single_S] = rng.permuted(dealt_DP[1:, single_S], axis=1)
    swapped_DQ = rng.random((num_deals, len(pair_Q2))) < 0.5
    dealt_DP[1:, pair_Q2[:, 0]] ^= swapped_DQ
    dealt_DP[1:, pair_Q2[:, 1]] ^= swapped_DQ
    return dealt_DP


@dataclass(frozen=True, kw_only=True)
class Distances:
    """Of one feature, in every deal; the first is what was found."""

    psi_D: Array
    ks_D: Array


def histogram_distances(shares_PB: Array, dealt_DP: npt.NDArray[np.bool_]) -> Distances:
    """Population stability index and Kolmogorov–Smirnov distance between recent rows and the others.

    PSI = Σ (r − q) ln(r / q) over ten groups of bins (Siddiqi, Credit Risk Scorecards, 2006), where r and q
    are the mean shares of both groups' patients; the groups hold equal parts of both together, so that they
    do not favour a side. KS = max |R − Q| of the cumulated shares.

    Args:
        shares_PB: of a patient's values in each bin; a row of NaN where a patient has none.
        dealt_DP: from :func:`deal_patients`.
    """
    known_P = np.isfinite(shares_PB[:, 0])
    shares_PB, dealt_DP = shares_PB[known_P], dealt_DP[:, known_P]
    group_B = _groups(shares_PB.mean(axis=0))
    into_BG = (group_B[:, None] == np.arange(NUM_GROUPS)).astype(np.float64)
    psi, ks = [], []
    for start in range(0, len(dealt_DP), BLOCK_DEALS):
        recent_DB, others_DB = _means(shares_PB, dealt_DP[start : start + BLOCK_DEALS])
        ks.append(np.abs(np.cumsum(recent_DB - others_DB, axis=1)).max(axis=1))
        psi.append(_psi(recent_DB @ into_BG, others_DB @ into_BG))
    return Distances(psi_D=np.concatenate(psi), ks_D=np.concatenate(ks))


def energy_distances(points_PE: Array, dealt_DP: npt.NDArray[np.bool_]) -> Array:
    """How far the two groups' points lie apart, 0 to 1, in every deal.

    (2 E|X − Y| − E|X − X'| − E|Y − Y'|) / (2 E|X − Y|), which is 0 only for equal distributions (Székely and
    Rizzo, Energy statistics, Journal of Statistical Planning and Inference 143, 2013).
    """
    known_P = np.isfinite(points_PE[:, 0])
    points_PE, dealt_DP = points_PE[known_P], dealt_DP[:, known_P]
    squares_P = (points_PE**2).sum(axis=1)
    squared_PP = squares_P[:, None] + squares_P - 2 * points_PE @ points_PE.T
    apart_PP = np.sqrt(np.maximum(squared_PP, 0))
    np.fill_diagonal(apart_PP, 0)
    found = []
    for start in range(0, len(dealt_DP), BLOCK_DEALS):
        block_DP = dealt_DP[start : start + BLOCK_DEALS]
        recent_DP = block_DP / np.maximum(block_DP.sum(axis=1, keepdims=True), 1)
        others_DP = ~block_DP / np.maximum((~block_DP).sum(axis=1, keepdims=True), 1)
        to_recent_DP = recent_DP @ apart_PP
        between_D = 2 * (to_recent_DP * others_DP).sum(axis=1)
        within_D = (to_recent_DP * recent_DP).sum(axis=1) + ((others_DP @ apart_PP) * others_DP).sum(axis=1)
        found.append(
            np.divide(between_D - within_D, between_D, out=np.zeros_like(between_D), where=between_D > 0)
        )
    return np.concatenate(found)


def adjusted_p_values(distances_TD: Array) -> tuple[Array, Array]:
    """(p of each test alone, p adjusted for all of them), each (T,).

    p = (1 + deals at least as far) / (1 + deals) (Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010).
    Adjusted: the share of deals in which any test has so small a p (min-P of Westfall and Young,
    Resampling-Based Multiple Testing, 1993), so that the chance of any false alarm is at most the level,
    however the tests depend on each other.
    """
    num = distances_TD.shape[1]
    p_TD = np.empty_like(distances_TD)
    for test, distance_D in enumerate(distances_TD):
        sorted_D = np.sort(distance_D)
        p_TD[test] = (num - np.searchsorted(sorted_D, distance_D - 1e-12, side="left")) / num
    smallest_D = np.sort(p_TD.min(axis=0))
    adjusted_T = np.searchsorted(smallest_D, p_TD[:, 0] + 1e-12, side="right") / num
    return p_TD[:, 0], adjusted_T


def _means(shares_PB: Array, dealt_DP: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """Mean shares of the recent rows and of the others, in every deal."""
    num_recent_D = dealt_DP.sum(axis=1, keepdims=True)
    sum_DB = dealt_DP.astype(np.float64) @ shares_PB
    others_DB = shares_PB.sum(axis=0) - sum_DB
    return sum_DB / np.maximum(num_recent_D, 1), others_DB / np.maximum(len(shares_PB) - num_recent_D, 1)


def _groups(share_B: Array) -> npt.NDArray[np.int64]:
    """The group of each bin: tenths of the whole, as near as whole bins allow."""
    middle_B = np.cumsum(share_B) - share_B / 2
    return np.minimum((middle_B * NUM_GROUPS).astype(np.int64), NUM_GROUPS - 1)


def _psi(recent_DG: Array, others_DG: Array) -> Array:
    used_G = (recent_DG + others_DG).sum(axis=0) > 0
    r_DG, q_DG = (np.maximum(shares[:, used_G], LEAST_SHARE) for shares in (recent_DG, others_DG))
    found: Array = ((r_DG - q_DG) * np.log(r_DG / q_DG)).sum(axis=1)
    return found
