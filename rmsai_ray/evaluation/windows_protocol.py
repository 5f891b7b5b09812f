"""Protocols that ask of moments and records whether they are normal: score every round, then look at all."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from rmsai_ray.evaluation.config import EvaluateConfig
from rmsai_ray.evaluation.corpus import Corpus
from rmsai_ray.evaluation.labels import PROBE_CLASSES, class_matrix
from rmsai_ray.evaluation.measuring import Measurer
from rmsai_ray.evaluation.models import Contest, detectors_of
from rmsai_ray.evaluation.probes import lead_features, linear_probe
from rmsai_ray.evaluation.protocol import Protocol
from rmsai_ray.evaluation.results import alarms, by_round, reliability, score_table, shuffled_auroc
from rmsai_ray.evaluation.scoring import Scored, join, score_round
from rmsai_ray.evaluation.stability import shift_stability

log = logging.getLogger(__name__)


def score_all(
    corpus: Corpus, contests: list[Contest], protocol: Protocol, measurer: Measurer, config: EvaluateConfig
) -> Scored:
    """The test moments of all rounds."""
    parts = []
    for contest in contests:
        log.info("%s: %s", contest.round.name, contest.bundle.model_id)
        fitted = detectors_of(Path(config.model), contest) if config.detectors == "model" else None
        parts.append(score_round(corpus, contest, protocol, measurer, seed=config.seed, fitted=fitted))
    return join(parts)


def moment_results(
    scored: Scored, protocol: Protocol, config: EvaluateConfig, window_s: float
) -> dict[str, Any]:
    """Figures of the declared question: is a moment anything but normal?"""
    is_positive_U = ~scored.moments["is_normal"].to_numpy(np.bool_)
    patients_U = scored.moments["patient"].to_numpy(np.str_)
    declared = scored.scores[protocol.declared]
    roles = (protocol.declared, protocol.waveform, protocol.reconstruction, protocol.compared_with)
    return {
        "counts": {
            "patients": int(scored.moments["patient"].nunique()),
            "moments": len(is_positive_U),
            "positives": int(is_positive_U.sum()),
        },
        "scores": score_table(
            scored.scores,
            is_positive_U,
            patients_U,
            protocol,
            ours=scored.ours,
            seed=config.seed,
            num_draws=config.draws,
        ),
        "rounds": by_round(scored, is_positive_U, list(dict.fromkeys(name for name in roles if name))),
        "shuffled_labels": shuffled_auroc(declared, is_positive_U, config.seed),
        "alarms": alarms(scored, is_positive_U, window_s),
        "reliability": reliability(scored, protocol, seed=config.seed, num_draws=config.draws),
    }


def stability_results(
    corpus: Corpus, contests: list[Contest], protocol: Protocol, config: EvaluateConfig
) -> dict[str, Any] | None:
    """Shift stability of the first round's model on patients that it has not seen."""
    if not protocol.shift_stability:
        return None
    first = contests[0]
    log.info("shift stability among %d windows", config.gallery_windows)
    return shift_stability(
        corpus,
        first.bundle,
        query_patients=first.round.test,
        gallery_windows=config.gallery_windows,
        seed=config.seed,
    )


def probe_results(
    corpus: Corpus,
    contest: Contest,
    protocol: Protocol,
    measurer: Measurer,
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Linear probes by name, for the model and for an untrained network like it."""
    patients_U = corpus.moments["patient"].to_numpy(np.str_)
    one = contest.round
    is_train_U, is_test_U = np.isin(patients_U, (*one.train, *one.validation)), np.isin(patients_U, one.test)
    features = {
        "model": lead_features(measurer.measured(contest.bundle).embedding_NE, corpus),
        "untrained": lead_features(measurer.untrained(contest.bundle).embedding_NE, corpus),
    }
    return {
        probe: {
            name: linear_probe(
                x_UD,
                class_matrix(corpus, probe),
                PROBE_CLASSES[probe],
                patients_U,
                is_train_U,
                is_test_U,
                seed=config.seed,
                num_draws=config.draws,
            )
            for name, x_UD in features.items()
        }
        for probe in protocol.probes
    }
