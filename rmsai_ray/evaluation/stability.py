"""Shift stability: whether an embedding stays put when its window slides by a second.

Shapes: N windows, E dimensions of the embedding, Q queries, G windows of the gallery.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rmsai_ray.encoding.encoder import WindowEncoder
from rmsai_ray.evaluation.corpus import Corpus
from rmsai_ray.models.bundle import ModelBundle

FloatArray = npt.NDArray[np.float32]

SHIFT_S = 1.0
MOST_QUERIES = 1000
QUERIES_AT_ONCE = 64


def shift_stability(
    corpus: Corpus,
    bundle: ModelBundle,
    *,
    query_patients: tuple[str, ...],
    gallery_windows: int,
    seed: int,
) -> dict[str, Any] | None:
    """Share of windows that lie nearer to their own shift by 1 s than to any window of other patients.

    Queries are windows of ``query_patients``; their shifts are cut from the same recording. The gallery is
    windows of other patients at a stride that gives about ``gallery_windows``. By cosine, as the search
    ranks, and by Euclidean distance. None where no recording is longer than a window.
    """
    spec = bundle.spec
    recordings = list(_recordings(corpus))
    shift = round(SHIFT_S * spec.sampling_rate_hz)
    total = sum(max(0, len(signal_T) - spec.window_samples) for _, _, signal_T in recordings)
    if total == 0:
        return None
    stride = max(1, total // gallery_windows)
    cut = [
        (lead, patient, signal_T, np.arange(0, len(signal_T) - spec.window_samples - shift + 1, stride))
        for lead, patient, signal_T in recordings
    ]
    encoder = WindowEncoder(bundle)
    gallery_GE = np.concatenate([_embed(encoder, lead, x_T, starts) for lead, _, x_T, starts in cut])
    patients_G = np.concatenate([np.full(len(starts), patient) for _, patient, _, starts in cut])
    shifted = [
        _embed(encoder, lead, x_T, starts + shift) if patient in query_patients else None
        for lead, patient, x_T, starts in cut
    ]
    queries = np.flatnonzero(np.isin(patients_G, query_patients))
    shifted_GE = np.full_like(gallery_GE, np.nan)
    shifted_GE[queries] = np.concatenate([part for part in shifted if part is not None])
    chosen = np.random.default_rng(seed).permutation(queries)[:MOST_QUERIES]
    return {
        "shift_s": SHIFT_S,
        "queries": len(chosen),
        "gallery_windows": len(gallery_GE),
        "cosine": _share(_unit(gallery_GE), _unit(shifted_GE), patients_G, chosen),
        "euclidean": _share(gallery_GE, shifted_GE, patients_G, chosen),
    }


def _recordings(corpus: Corpus) -> Iterator[tuple[str, str, FloatArray]]:
    """(lead, patient, signal) of stretches whose moments follow each other without a gap."""
    windows, moments = corpus.windows, corpus.moments
    start_s, record = moments["start_s"].to_numpy(), moments["record"].to_numpy()
    duration_s = moments["duration_s"].to_numpy()
    keys = pd.Series(np.char.add(windows.leads_N, record.astype(np.str_)[corpus.moment_N]))
    for rows in keys.groupby(keys, sort=False).indices.values():
        order = rows[np.argsort(start_s[corpus.moment_N[rows]], kind="stable")]
        places = corpus.moment_N[order]
        follows = np.isclose(start_s[places][1:], (start_s + duration_s)[places][:-1], atol=1e-3)
        for part in np.split(order, np.flatnonzero(~follows) + 1):
            pieces = [windows.signals_NT[row, : windows.num_samples_N[row]] for row in part]
            yield str(windows.leads_N[part[0]]), str(windows.patients_N[part[0]]), np.concatenate(pieces)


def _embed(
    encoder: WindowEncoder, lead: str, signal_T: FloatArray, starts: npt.NDArray[np.int64]
) -> FloatArray:
    spec = encoder.bundle.spec
    if not len(starts):
        return np.zeros((0, spec.embedding_dim), np.float32)
    x_NT = np.lib.stride_tricks.sliding_window_view(signal_T, spec.window_samples)[starts]
    num_samples_N = np.full(len(starts), spec.window_samples, np.int32)
    return encoder.encode(x_NT, num_samples_N, [lead] * len(starts)).embedding_NE


def _share(
    gallery_GE: FloatArray, shifted_GE: FloatArray, patients_G: npt.NDArray[Any], chosen: npt.NDArray[Any]
) -> float:
    """Share of the chosen windows whose own shift is nearer than every window of another patient."""
    norms_G = (gallery_GE.astype(np.float64) ** 2).sum(1)
    num_nearest = 0
    for first in range(0, len(chosen), QUERIES_AT_ONCE):
        rows = chosen[first : first + QUERIES_AT_ONCE]
        own_Q = ((gallery_GE[rows].astype(np.float64) - shifted_GE[rows]) ** 2).sum(1)
        other_QG = norms_G[rows, None] + norms_G - 2 * (gallery_GE[rows] @ gallery_GE.T).astype(np.float64)
        other_QG[patients_G[rows, None] == patients_G[None]] = np.inf
        num_nearest += int((own_Q < other_QG.min(1)).sum())
    return num_nearest / len(chosen)


def _unit(x_NE: FloatArray) -> FloatArray:
    return np.asarray(x_NE / np.maximum(np.linalg.norm(x_NE, axis=1, keepdims=True), 1e-12), np.float32)
