"""Annotated beats cut out of their windows, and what baselines say of their raw shapes.

Shapes: B beats, L samples of a beat.
"""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmsai_ray.evaluation.corpus import Corpus
from rmsai_ray.evaluation.protocol import Protocol
from rmsai_ray.evaluation.subsequences import subsequence_scores

FloatArray = npt.NDArray[np.float32]

BEFORE_S, AFTER_S = 0.2, 0.4
"""What counts as a beat, around its R peak."""
NORMAL_CLASS, OTHER_CLASS = "N", "other"


@dataclass(frozen=True)
class CutBeats:
    """One row a beat and lead, in order of moment, beat and lead."""

    samples_BL: FloatArray
    """Zeros beyond the window's ends."""
    beat_B: npt.NDArray[np.int64]
    """Which beat of the corpus, counted over those of a class."""


def class_of(symbol: str, protocol: Protocol) -> str:
    """The protocol's class of an annotation; ``other`` where it has none."""
    if symbol in protocol.normal_symbols:
        return NORMAL_CLASS
    found = [name for name, symbols in protocol.positive_classes.items() if symbol in symbols]
    return found[0] if found else OTHER_CLASS


def cut_beats(corpus: Corpus, protocol: Protocol, fs: float, *, normal_only: bool = False) -> CutBeats:
    """Every beat of a class of the protocol, or the normal ones alone, on every lead."""
    before, after = round(BEFORE_S * fs), round(AFTER_S * fs)
    ends = np.searchsorted(corpus.moment_N, np.arange(len(corpus.moments) + 1))
    pieces, beats, beat = [], [], 0
    for moment, found in enumerate(corpus.beats):
        x_nT = np.pad(corpus.windows.signals_NT[ends[moment] : ends[moment + 1]], ((0, 0), (before, after)))
        for place, symbol in zip(found.places, found.symbols, strict=True):
            kind = class_of(symbol, protocol)
            if kind == OTHER_CLASS or (normal_only and kind != NORMAL_CLASS):
                continue
            pieces.append(x_nT[:, int(place) : int(place) + before + after])
            beats.append(np.full(len(x_nT), beat))
            beat += 1
    if not pieces:
        return CutBeats(np.zeros((0, before + after), np.float32), np.zeros(0, np.int64))
    return CutBeats(np.concatenate(pieces), np.concatenate(beats))


def raw_beat_scores(
    normal: CutBeats, asked: Mapping[str, CutBeats], fs: float, *, seed: int
) -> dict[str, dict[str, FloatArray]]:
    """Sub-PCA, kNN and k-Shape on single beats, by part and baseline; a beat's leads by their mean."""
    length = normal.samples_BL.shape[1]
    found = subsequence_scores(
        normal.samples_BL,
        np.full(len(normal.samples_BL), length, np.int32),
        {
            part: (beats.samples_BL, np.full(len(beats.samples_BL), length, np.int32))
            for part, beats in asked.items()
        },
        fs,
        seed=seed,
    )
    return {
        part: {
            name: np.asarray(
                np.bincount(beats.beat_B, by_part[part]) / np.maximum(np.bincount(beats.beat_B), 1),
                np.float32,
            )
            for name, by_part in found.items()
        }
        for part, beats in asked.items()
    }
