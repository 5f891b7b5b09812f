"""How well embeddings know a patient again: identification and verification, without I/O.

An ECG identifies its owner (Biel et al., IEEE TIM 2001); an embedding may do so too. The measure is that of
biometrics (ISO/IEC 19795-1): a gallery of windows whose patients are known, and probes of the same people,
recorded at other times. A patient's likeness to a probe is that of the nearest of the patient's gallery
windows, by cosine.

Shapes: N windows, G of the gallery, Q probes, P patients of the gallery, R of
them with probes, E dimensions of the embedding, D draws.
"""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rmsai_ray.evaluation.bootstrap import Interval, interval

FALSE_ACCEPTS = 1e-3
LEAST_IMPOSTORS = 1_000
"""Comparisons of different people, without which 1 in 1,000 is no rate."""
LEAST_PATIENTS = 2
PROBES_AT_ONCE = 4_096

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Recordings:
    """Windows of one lead that do not overlap with each other."""

    embedding_NE: FloatArray
    patient_N: npt.NDArray[np.str_]
    session_N: npt.NDArray[np.str_]
    """What was recorded apart: archives, or months."""
    start_s_N: npt.NDArray[np.float64]
    """Of the window; any zero within a patient."""
    end_s_N: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.patient_N)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What an attacker with a labelled recording of everybody would know."""

    num_patients: int
    """With windows in the gallery."""
    num_probed: int
    """Of these, with probes; the figures are about them."""
    num_gallery: int
    num_probes: int
    rank_1: Interval
    """Share of probes whose most similar patient is the right one; each patient counts alike."""
    rank_1_all_probes: Interval
    """Share of patients that their probes together find: a recording of minutes, not of seconds."""
    true_accepts: Interval | None
    """Share of probes that pass for their own patient where 1 of 1,000 passes for another; None where
    comparisons are too few to tell."""
    chance: float
    """Of rank 1, by guessing among the gallery's patients."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        intervals = {
            name: None if value is None else value.to_json()
            for name in ("rank_1", "rank_1_all_probes", "true_accepts")
            for value in (getattr(self, name),)
        }
        return {**asdict(self), **intervals}


def divide_in_time(found: Recordings, *, most_windows: int, seed: int) -> tuple[IntArray, IntArray]:
    """Rows of the gallery and of the probes: the earlier and the later half of every patient's windows.

    A window of the later half that begins before the earlier one has ended is in neither. Who has windows
    for the gallery alone is among those that a probe can be taken for. Of each patient and half at most
    ``most_windows`` are drawn.
    """
    return _divide(found, _halves, most_windows, seed)


def divide_by_session(found: Recordings, *, most_windows: int, seed: int) -> tuple[IntArray, IntArray]:
    """As :func:`divide_in_time`, by sessions: each patient's first one against the others."""
    return _divide(found, _first_session, most_windows, seed)


def _divide(found: Recordings, split: Any, most_windows: int, seed: int) -> tuple[IntArray, IntArray]:
    random = np.random.default_rng(seed)
    gallery, probes = list[IntArray](), list[IntArray]()
    for patient in np.unique(found.patient_N):
        rows = np.flatnonzero(found.patient_N == patient)
        early, late = split(found, rows[np.argsort(found.start_s_N[rows], kind="stable")])
        for rows_of, chosen in ((early, gallery), (late, probes)):
            chosen.append(np.sort(random.permutation(rows_of)[:most_windows]))
    empty = [np.zeros(0, np.int64)]
    return np.concatenate(gallery or empty), np.concatenate(probes or empty)


def _halves(found: Recordings, rows: IntArray) -> tuple[IntArray, IntArray]:
    middle = max(1, len(rows) // 2)
    early, late = rows[:middle], rows[middle:]
    ended = found.end_s_N[early].max(initial=-np.inf)
    return early, late[found.start_s_N[late] >= ended]


def _first_session(found: Recordings, rows: IntArray) -> tuple[IntArray, IntArray]:
    is_first = found.session_N[rows] == found.session_N[rows[0]]
    return rows[is_first], rows[~is_first]


def measure(
    found: Recordings, gallery: IntArray, probes: IntArray, *, seed: int, num_draws: int
) -> Figures | None:
    """The figures of one division; None where fewer than two patients are in its gallery or have probes.

    Intervals are of the probed patients drawn again; the gallery and the threshold stay as they are.
    """
    patients, gallery_P = np.unique(found.patient_N[gallery], return_inverse=True)
    probed, own_Q = np.unique(found.patient_N[probes], return_inverse=True)
    if min(len(patients), len(probed)) < LEAST_PATIENTS:
        return None
    place_R = np.searchsorted(patients, probed)
    likeness_QP = _likeness(found.embedding_NE, gallery, gallery_P, probes, len(patients))
    draws_DR = np.random.default_rng(seed).integers(len(probed), size=(num_draws, len(probed)))

    def over_patients(of_patient_R: npt.NDArray[np.float64]) -> Interval:
        return interval(float(of_patient_R.mean()), of_patient_R[draws_DR].mean(1))

    is_right_Q = likeness_QP.argmax(1) == place_R[own_Q]
    means_RP = np.stack([likeness_QP[own_Q == patient].mean(0) for patient in range(len(probed))])
    is_own_QP = place_R[own_Q][:, None] == np.arange(len(patients))
    threshold = _threshold(likeness_QP[~is_own_QP])
    return Figures(
        num_patients=len(patients),
        num_probed=len(probed),
        num_gallery=len(gallery),
        num_probes=len(probes),
        rank_1=over_patients(_by_patient(is_right_Q, own_Q)),
        rank_1_all_probes=over_patients((means_RP.argmax(1) == place_R).astype(np.float64)),
        true_accepts=None
        if threshold is None
        else over_patients(_by_patient(likeness_QP[is_own_QP] > threshold, own_Q)),
        chance=1 / len(patients),
    )


def _threshold(impostor_I: FloatArray) -> float | None:
    """The likeness that 1 of 1,000 comparisons of different people exceed; None for too few of them."""
    if len(impostor_I) < LEAST_IMPOSTORS:
        return None
    place = len(impostor_I) - 1 - int(FALSE_ACCEPTS * len(impostor_I))
    return float(np.partition(impostor_I, place)[place])


def _likeness(
    embedding_NE: FloatArray, gallery: IntArray, gallery_P: IntArray, probes: IntArray, num_patients: int
) -> FloatArray:
    """Cosine to the nearest gallery window of each patient; shape (Q, P)."""
    order = np.argsort(gallery_P, kind="stable")
    starts_P = np.searchsorted(gallery_P[order], np.arange(num_patients))
    gallery_GE, probe_QE = _unit(embedding_NE[gallery[order]]), _unit(embedding_NE[probes])
    blocks = [
        np.maximum.reduceat(probe_QE[first : first + PROBES_AT_ONCE] @ gallery_GE.T, starts_P, axis=1)
        for first in range(0, len(probes), PROBES_AT_ONCE)
    ]
    return np.concatenate(blocks)


def _by_patient(is_hit_Q: npt.NDArray[np.bool_], own_Q: IntArray) -> npt.NDArray[np.float64]:
    return np.asarray(np.bincount(own_Q, weights=is_hit_Q) / np.bincount(own_Q), np.float64)


def _unit(x_NE: FloatArray) -> FloatArray:
    return np.asarray(x_NE / np.maximum(np.linalg.norm(x_NE, axis=1, keepdims=True), 1e-12), np.float32)
