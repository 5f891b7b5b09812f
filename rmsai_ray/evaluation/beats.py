"""Single beats: the point-wise reconstruction error around each annotated beat, by AAMI class, and VUS-PR.

Shapes: N windows, T samples, B beats, G places of a thinned-out time axis.
"""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rmsai_ray.encoding.encoder import WindowEncoder
from rmsai_ray.evaluation.beat_shapes import (
    AFTER_S,
    BEFORE_S,
    NORMAL_CLASS,
    OTHER_CLASS,
    class_of,
    cut_beats,
    raw_beat_scores,
)
from rmsai_ray.evaluation.config import EvaluateConfig
from rmsai_ray.evaluation.corpus import Beats, Corpus
from rmsai_ray.evaluation.models import Contest
from rmsai_ray.evaluation.pictures import draw_curves
from rmsai_ray.evaluation.protocol import Protocol
from rmsai_ray.evaluation.results import score_table, shuffled_auroc
from rmsai_ray.evaluation.vus import vus_pr
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.checkpoint import untrained_like

log = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]

POINT_HZ, MAX_BUFFER_S = 20.0, 1.0
"""Rate of the points of VUS-PR, and its widest tolerance."""
OURS = ("beat_error",)


@dataclass(frozen=True)
class _Points:
    """Scores along the time of one round's test recordings."""

    error_G: FloatArray
    energy_G: FloatArray
    is_positive_G: npt.NDArray[np.bool_]
    records_G: npt.NDArray[np.str_]


def run(
    corpus: Corpus, contests: Sequence[Contest], protocol: Protocol, config: EvaluateConfig, folder: Path
) -> dict[str, Any]:
    """Tables of each class against normal beats, over all rounds."""
    frames, points = [], []
    for contest in contests:
        log.info("%s: %s", contest.round.name, contest.bundle.model_id)
        frame, along = _round(corpus, contest, protocol, config.seed)
        frames.append(frame)
        points.append(along)
    beats = pd.concat(frames, ignore_index=True)
    beats.to_parquet(folder / "beats.parquet")
    names = [name for name in beats.columns if name not in ("patient", "record", "class", "round")]
    tables = {}
    for name in protocol.positive_classes:
        rows = beats[beats["class"].isin((name, NORMAL_CLASS))]
        scores = {score: rows[score].to_numpy(np.float32) for score in names}
        is_positive = (rows["class"] == name).to_numpy()
        tables[name] = score_table(
            scores,
            is_positive,
            rows["patient"].to_numpy(np.str_),
            protocol,
            ours=OURS,
            seed=config.seed,
            num_draws=config.draws,
        )
        draw_curves(folder / f"curves_{name}.png", scores, is_positive, protocol, OURS)
    is_any = (beats["class"] != NORMAL_CLASS).to_numpy()
    return {
        "counts": {name: int(count) for name, count in beats["class"].value_counts().items()},
        "conditions": tables,
        "shuffled_labels": shuffled_auroc(beats[protocol.declared].to_numpy(np.float32), is_any, config.seed),
        "vus_pr": _vus(points, config.seed),
    }


def _round(corpus: Corpus, contest: Contest, protocol: Protocol, seed: int) -> tuple[pd.DataFrame, _Points]:
    bundle, one = contest.bundle, contest.round
    untrained = replace(untrained_like(bundle.spec, seed=seed), normaliser=bundle.normaliser)
    usual, tested = corpus.of_patients(one.validation), corpus.of_patients(one.test)
    fs = bundle.spec.sampling_rate_hz
    raw = raw_beat_scores(
        cut_beats(corpus.of_patients(one.train), protocol, fs, normal_only=True),
        {name: cut_beats(part, protocol, fs) for name, part in (("usual", usual), ("tested", tested))},
        fs,
        seed=seed,
    )
    frame = _beat_scores(tested, bundle, untrained, protocol, seed).assign(**raw["tested"])
    normal = _beat_scores(usual, bundle, untrained, protocol, seed).assign(**raw["usual"])
    normal = normal[normal["class"] == NORMAL_CLASS]
    for name in (column for column in frame.columns if column not in ("patient", "record", "class")):
        centre, edge = np.quantile(normal[name], [0.5, 0.95])
        frame[name] = (frame[name] - centre) / (edge - centre if edge > centre else 1.0)
    return frame.assign(round=one.name), _along_time(tested, bundle, protocol)


def _beat_scores(
    corpus: Corpus, bundle: ModelBundle, untrained: ModelBundle, protocol: Protocol, seed: int
) -> pd.DataFrame:
    """One row a beat: class, patient and every score, the leads' mean."""
    fs = bundle.spec.sampling_rate_hz
    series = {
        "beat_error": _pointwise_error(corpus, bundle),
        "untrained_beat_error": _pointwise_error(corpus, untrained),
        "beat_energy": _pointwise_energy(corpus, bundle),
    }
    by_moment = {name: _mean_over_leads(values_NT, corpus) for name, values_NT in series.items()}
    rows = []
    for moment, found in enumerate(corpus.beats):
        if not len(found.places):
            continue
        row = corpus.moments.iloc[moment]
        rr = _prematurity(found)
        for place, symbol, early in zip(found.places, found.symbols, rr, strict=True):
            low, high = int(max(0, place - BEFORE_S * fs)), int(place + AFTER_S * fs)
            rows.append(
                {
                    "patient": row["patient"],
                    "record": row["record"],
                    "class": class_of(symbol, protocol),
                    **{name: float(values[moment, low:high].mean()) for name, values in by_moment.items()},
                    "prematurity": early,
                }
            )
    frame = pd.DataFrame(rows)
    frame["random"] = np.random.default_rng(seed).random(len(frame))
    return frame[frame["class"] != OTHER_CLASS].reset_index(drop=True)


def _prematurity(found: Beats) -> npt.NDArray[np.float64]:
    """How much earlier than usual each beat comes: 1 − its RR interval over the moment's median."""
    if len(found.places) < 3:
        return np.zeros(len(found.places))
    rr = np.diff(found.places)
    early: npt.NDArray[np.float64] = np.append(0.0, 1 - rr / np.median(rr))
    return early


def _pointwise_error(corpus: Corpus, bundle: ModelBundle) -> FloatArray:
    windows, encoder = corpus.windows, WindowEncoder(bundle)
    x_NT, _, _ = bundle.normaliser.apply(windows.signals_NT, windows.num_samples_N, windows.leads_N.tolist())
    encoded = encoder.encode(windows.signals_NT, windows.num_samples_N, windows.leads_N.tolist())
    square_NT: FloatArray = (x_NT - encoder.reconstruct(encoded.embedding_NE, encoded.beats_N)) ** 2
    return square_NT


def _pointwise_energy(corpus: Corpus, bundle: ModelBundle) -> FloatArray:
    windows = corpus.windows
    x_NT, _, _ = bundle.normaliser.apply(windows.signals_NT, windows.num_samples_N, windows.leads_N.tolist())
    return x_NT**2


def _mean_over_leads(values_NT: FloatArray, corpus: Corpus) -> FloatArray:
    """(moments, T); windows of a moment lie next to each other."""
    starts = np.flatnonzero(np.diff(corpus.moment_N, prepend=-1))
    counts = np.diff(np.append(starts, len(corpus.moment_N)))
    return np.asarray(np.add.reduceat(values_NT, starts, axis=0) / counts[:, None], np.float32)


def _along_time(corpus: Corpus, bundle: ModelBundle, protocol: Protocol) -> _Points:
    fs = bundle.spec.sampling_rate_hz
    thin = round(fs / POINT_HZ)
    series = (_pointwise_error(corpus, bundle), _pointwise_energy(corpus, bundle))
    error_UG, energy_UG = (_thinned(_mean_over_leads(values, corpus), thin) for values in series)
    is_positive_UG = np.zeros(error_UG.shape, np.bool_)
    for moment, found in enumerate(corpus.beats):
        for place, symbol in zip(found.places, found.symbols, strict=True):
            if class_of(symbol, protocol) in protocol.positive_classes:
                low, high = max(0.0, place - BEFORE_S * fs), place + AFTER_S * fs
                is_positive_UG[moment, int(low // thin) : int(high // thin) + 1] = True
    records = np.repeat(corpus.moments["record"].to_numpy(np.str_), error_UG.shape[1])
    return _Points(error_UG.ravel(), energy_UG.ravel(), is_positive_UG.ravel(), records)


def _thinned(values_UT: FloatArray, thin: int) -> FloatArray:
    length = values_UT.shape[1] // thin * thin
    return np.asarray(values_UT[:, :length].reshape(len(values_UT), -1, thin).mean(2), np.float32)


def _vus(points: Sequence[_Points], seed: int) -> dict[str, Any]:
    """Mean over recordings that have both kinds of points, of the declared score and of two baselines."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {"beat_error": [], "beat_energy": [], "random": []}
    buffer = round(MAX_BUFFER_S * POINT_HZ)
    for part in points:
        for record in pd.unique(part.records_G):
            rows = part.records_G == record
            labels = part.is_positive_G[rows]
            if not labels.any() or labels.all():
                continue
            scores = {
                "beat_error": part.error_G[rows],
                "beat_energy": part.energy_G[rows],
                "random": rng.random(rows.sum()),
            }
            for name, values in scores.items():
                found[name].append(vus_pr(values, labels, buffer))
    return {
        "max_buffer_s": MAX_BUFFER_S,
        "recordings": len(found["random"]),
        **{name: float(np.mean(values)) if values else None for name, values in found.items()},
    }
