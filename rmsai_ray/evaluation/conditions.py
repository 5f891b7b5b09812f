"""Each reported condition against Normal, beside what the vital signs alone would say.

Shapes: U moments, V vital signs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rmsai_ray.archives.labels import NORMAL
from rmsai_ray.detection.thresholds import NORMAL_RATIOS, condition_class
from rmsai_ray.evaluation.bootstrap import draw_patients, figures_with_intervals
from rmsai_ray.evaluation.config import EvaluateConfig
from rmsai_ray.evaluation.corpus import VITALS, Corpus
from rmsai_ray.evaluation.models import Contest
from rmsai_ray.evaluation.protocol import Protocol
from rmsai_ray.evaluation.results import score_table
from rmsai_ray.evaluation.scoring import FloatArray, Scored

CONDITION_ERROR = "condition_error"


def condition_results(
    corpus: Corpus, contest: Contest, scored: Scored, protocol: Protocol, config: EvaluateConfig
) -> dict[str, Any]:
    """Tables by condition: label-free scores; condition-aware ones with and without the telling vitals."""
    conditions = scored.moments["condition"].to_numpy(np.str_)
    scores = {**scored.scores, CONDITION_ERROR: _by_threshold(scored, conditions)}
    present = [name for name in pd.unique(conditions) if name != NORMAL]
    tables, aware = {}, {}
    for name in sorted(present):
        rows = np.flatnonzero(np.isin(conditions, (name, NORMAL)))
        is_positive = conditions[rows] == name
        patients = scored.moments["patient"].to_numpy(np.str_)[rows]
        tables[name] = score_table(
            {key: values[rows] for key, values in scores.items()},
            is_positive,
            patients,
            protocol,
            ours=scored.ours,
            seed=config.seed,
            num_draws=config.draws,
        )
        aware[name] = _aware(corpus, contest, scored, name, rows, protocol, config)
    return {"conditions": tables, "condition_aware": aware}


def _by_threshold(scored: Scored, conditions: npt.NDArray[np.str_]) -> FloatArray:
    """The reconstruction error over the reported condition's threshold ratio: circular, and shown as such."""
    ratios = [NORMAL_RATIOS.get(condition_class(name) or "", 2.0) for name in conditions.tolist()]
    error_U = scored.scores["reconstruction_error"]
    return np.asarray((error_U - error_U.min()) / np.asarray(ratios), np.float32)


def _aware(
    corpus: Corpus,
    contest: Contest,
    scored: Scored,
    condition: str,
    rows: npt.NDArray[np.int64],
    protocol: Protocol,
    config: EvaluateConfig,
) -> dict[str, Any]:
    """AUROC of classifiers that learned the condition from vital signs, complete and masked.

    The classifier learns from labelled events of training patients, so it is told what the scores are not;
    the declared score is set beside it as it is.
    """
    one = contest.round
    train = corpus.moments[
        corpus.moments["patient"].isin((*one.train, *one.validation))
        & corpus.moments["condition"].isin((condition, NORMAL))
    ]
    test = scored.moments.iloc[rows]
    is_positive = test["condition"].to_numpy() == condition
    kept = {
        "all_vitals": VITALS,
        "masked_vitals": tuple(name for name in VITALS if name not in protocol.masked_vitals),
    }
    scores = {"declared": scored.scores[protocol.declared][rows]}
    for name, vitals in kept.items():
        has_values = train[list(vitals)].notna().any()
        usable = [vital for vital in vitals if has_values[vital]]
        if usable and train["condition"].nunique() == 2:
            scores[name] = _learned(train[usable], train["condition"] == condition, test[usable])
    weights = draw_patients(test["patient"].to_numpy(), seed=config.seed, num_draws=config.draws)
    own, above = figures_with_intervals("auroc", scores, is_positive, weights, compared_with="declared")
    return {
        name: {
            "auroc": own[name].to_json(),
            "above_declared": above[name].to_json() if name in above else None,
            "circular": protocol.circular.get("vitals") if name == "all_vitals" else None,
        }
        for name in scores
    }


def _learned(train: pd.DataFrame, is_positive: pd.Series, test: pd.DataFrame) -> FloatArray:
    model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(_distances(train, train), is_positive)
    return np.asarray(model.decision_function(_distances(test, train)), np.float32)


def _distances(values: pd.DataFrame, reference: pd.DataFrame) -> npt.NDArray[np.float64]:
    """The vital signs and how far each is from its median: too low and too high are both told."""
    array = values.to_numpy(np.float64)
    return np.hstack([array, np.abs(array - np.nanmedian(reference.to_numpy(np.float64), axis=0))])
