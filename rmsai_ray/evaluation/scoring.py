"""From measured windows to one score a moment: fit on training normals, score, combine the leads.

Shapes: N windows, U moments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from rmsai_ray.detection.calibration import (
    normal_quantiles,
    patient_weights,
    thresholds_at,
    weighted_quantiles,
)
from rmsai_ray.detection.detector_set import (
    ENSEMBLE,
    DetectorSet,
    assemble_detector_set,
    fit_detector,
)
from rmsai_ray.errors import ConfigError
from rmsai_ray.evaluation.baselines import Part, baseline_scores
from rmsai_ray.evaluation.corpus import Corpus
from rmsai_ray.evaluation.labels import of_records
from rmsai_ray.evaluation.measuring import Measurer
from rmsai_ray.evaluation.models import Contest
from rmsai_ray.evaluation.protocol import Protocol

FloatArray = npt.NDArray[np.float32]
Combine = Literal["mean", "max"]

ANY_LEAD = "*"
ALWAYS = ("reconstruction_error", "worst_error")
"""Detectors that need no fit, and stand in every table."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Tested moments of one round, or of several after each other."""

    moments: pd.DataFrame
    """As in the corpus, with ``round``."""
    scores: dict[str, FloatArray]
    """By name, (U,), in the score's own unit. Rounds are put together as they are: every unit means the same
    in all of them (normalised errors, surprise, distances in standard deviations, irregularity)."""
    margins: dict[float, FloatArray]
    """By false-alarm rate: the declared score of each moment above its round's threshold, (U,)."""
    windows: pd.DataFrame
    """``lead patient is_normal`` of every window, and ``margin <rate>`` of the declared score."""
    ours: tuple[str, ...]
    """Scores that are no baselines."""


def score_round(
    corpus: Corpus,
    contest: Contest,
    protocol: Protocol,
    measurer: Measurer,
    *,
    seed: int,
    fitted: DetectorSet | None = None,
) -> Scored:
    """Scores of the round's test moments by every detector, ensemble and baseline.

    Args:
        corpus: all moments.
        contest: the round and its model.
        protocol: which detectors, and how leads are combined.
        measurer: of this corpus' windows.
        seed: of detectors and baselines.
        fitted: a set that came with the model, instead of fitting here.

    Raises:
        ConfigError: no normal window to fit or to calibrate with.
    """
    rows = _rows(corpus, contest, protocol)
    ours = _own_scores(protocol, contest, measurer, corpus, rows, seed, fitted)
    base = _baselines(contest, measurer, rows, seed)
    scores = {part: ours[part] | base[part] for part in ("validation", "test")}
    moments = {part: corpus.moment_N[rows[part]] for part in scores}
    kept = np.unique(moments["test"])
    combined = {
        part: {name: combine(score_N, moments[part], protocol.combine) for name, score_N in values.items()}
        for part, values in scores.items()
    }
    calibrating = corpus.moments["patient"].to_numpy(np.str_)[np.unique(moments["validation"])]
    declared = protocol.declared
    return Scored(
        moments=corpus.moments.iloc[kept].assign(round=contest.round.name).reset_index(drop=True),
        scores=combined["test"],
        margins={
            rate: combined["test"][declared]
            - np.float32(_threshold(combined["validation"][declared], calibrating, rate))
            for rate in protocol.false_alarm_rates
        },
        windows=_window_margins(corpus, rows, scores, protocol),
        ours=tuple(ours["test"]),
    )


def combine(scores_N: FloatArray, moment_N: npt.NDArray[np.int64], how: Combine) -> FloatArray:
    """One score a moment, in ascending order of the moments that occur."""
    _, place_N = np.unique(moment_N, return_inverse=True)
    if how == "max":
        highest = np.full(place_N.max() + 1, -np.inf, np.float32)
        np.maximum.at(highest, place_N, scores_N)
        return highest
    return np.asarray(np.bincount(place_N, scores_N) / np.bincount(place_N), np.float32)


def join(parts: Sequence[Scored]) -> Scored:
    """The rounds after each other."""
    return Scored(
        moments=pd.concat([part.moments for part in parts], ignore_index=True),
        scores={name: np.concatenate([part.scores[name] for part in parts]) for name in parts[0].scores},
        margins={rate: np.concatenate([part.margins[rate] for part in parts]) for rate in parts[0].margins},
        windows=pd.concat([part.windows for part in parts], ignore_index=True),
        ours=parts[0].ours,
    )


def _rows(corpus: Corpus, contest: Contest, protocol: Protocol) -> dict[str, npt.NDArray[np.int64]]:
    """Windows of the protocol's leads by part; of training and validation the normal ones alone."""
    windows, rows = corpus.windows, {}
    is_scored_N = ~of_records(corpus, protocol.unscored_records)[corpus.moment_N]
    is_asked_N = np.isin(windows.leads_N, protocol.leads or np.unique(windows.leads_N))
    for part, patients in contest.round.to_json().items():
        keep_N = is_asked_N & np.isin(windows.patients_N, patients)
        rows[part] = np.flatnonzero(keep_N & (is_scored_N if part == "test" else windows.is_normal_N))
        if not len(rows[part]):
            raise ConfigError("archives", contest.round.name, f"has no window for {part}", "Give more.")
    return rows


def _own_scores(
    protocol: Protocol,
    contest: Contest,
    measurer: Measurer,
    corpus: Corpus,
    rows: Mapping[str, npt.NDArray[np.int64]],
    seed: int,
    fitted: DetectorSet | None,
) -> dict[str, dict[str, FloatArray]]:
    """By part and score: every detector by its name, and the ensemble of every set by the set's."""
    measured = measurer.measured(contest.bundle)
    train, validation = measured.take(rows["train"]), measured.take(rows["validation"])
    ready = dict(fitted.detectors) if fitted is not None else {}
    names = {name for members in protocol.sets.values() for name in members} | set(ALWAYS)
    detectors = {name: ready.get(name) or fit_detector(name, train, seed) for name in sorted(names)}
    found: dict[str, dict[str, FloatArray]] = {}
    for part in ("validation", "test"):
        asked = measured.take(rows[part])
        found[part] = {name: detector.anomaly_score(asked) for name, detector in detectors.items()}
    for name, members in protocol.sets.items():
        ensemble = fitted
        if ensemble is None or name != ENSEMBLE:
            ensemble = assemble_detector_set(
                {member: detectors[member] for member in members},
                validation,
                model_id=contest.bundle.model_id,
                validation_patients_N=corpus.windows.patients_N[rows["validation"]],
            )
        for part, scores in found.items():
            scores[name] = ensemble.scores(measured.take(rows[part]))[ENSEMBLE]
    return found


def _baselines(
    contest: Contest, measurer: Measurer, rows: Mapping[str, npt.NDArray[np.int64]], seed: int
) -> dict[str, dict[str, FloatArray]]:
    everything = Part(measurer.windows, measurer.untrained(contest.bundle))
    asked = {part: everything.take(rows[part]) for part in ("validation", "test")}
    return baseline_scores(
        everything.take(rows["train"]), asked, contest.bundle.spec.sampling_rate_hz, seed=seed
    )


def _threshold(normal_U: FloatArray, patients_U: npt.NDArray[np.str_], rate: float) -> float:
    weights_U = patient_weights(patients_U)
    return float(weighted_quantiles(normal_U.astype(np.float64), weights_U, [1 - rate])[0])


def _window_margins(
    corpus: Corpus,
    rows: Mapping[str, npt.NDArray[np.int64]],
    scores: Mapping[str, Mapping[str, FloatArray]],
    protocol: Protocol,
) -> pd.DataFrame:
    """Per window and lead, as a lake decides: thresholds by lead from validation normals."""
    windows = corpus.windows
    normals, tested = rows["validation"], rows["test"]
    quantiles = normal_quantiles(
        scores["validation"][protocol.declared], windows.leads_N[normals], windows.patients_N[normals]
    )
    frame: dict[str, npt.NDArray[Any]] = {
        "lead": windows.leads_N[tested],
        "patient": windows.patients_N[tested],
        "is_normal": windows.is_normal_N[tested],
    }
    for rate in protocol.false_alarm_rates:
        thresholds = thresholds_at(quantiles, rate)
        limits = [thresholds.get(lead, thresholds[ANY_LEAD]) for lead in frame["lead"].tolist()]
        frame[f"margin {rate}"] = scores["test"][protocol.declared] - np.asarray(limits, np.float32)
    return pd.DataFrame(frame)
