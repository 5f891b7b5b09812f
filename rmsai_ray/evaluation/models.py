"""Which model speaks in which round: the given one, one per fold, or one trained for the round."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rmsai_ray.detection.detector_set import DetectorSet, load_detector_set
from rmsai_ray.errors import ConfigError
from rmsai_ray.evaluation.corpus import Corpus
from rmsai_ray.evaluation.guards import check_unseen, seen_patients
from rmsai_ray.evaluation.protocol import Split
from rmsai_ray.evaluation.splits import Round, divide, divide_like_model
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.checkpoint import PRETRAINED, load_model, save_checkpoint, untrained_like
from rmsai_ray.models.profiles import PROFILES
from rmsai_ray.training.data import WindowSet
from rmsai_ray.training.loop import FitConfig, fit

log = logging.getLogger(__name__)

DETECTORS_FOLDER = "detectors"
RETRAIN_BATCH, RETRAIN_RATE = 64, 2e-3


@dataclass(frozen=True, kw_only=True)
class Contest:
    """One round and the model that it tests."""

    round: Round
    bundle: ModelBundle


def contests(
    corpus: Corpus,
    split: Split,
    bundle: ModelBundle,
    *,
    fold_models: str | None,
    retrain_epochs: int,
    unseen_only: bool,
    seed: int,
    keep: Path,
) -> list[Contest]:
    """Every round with its model. No model has seen a patient that it is tested on, or ConfigError.

    Args:
        corpus: all moments of the protocol.
        split: how the protocol divides.
        bundle: the given model.
        fold_models: folder with a checkpoint ``fold-<k>`` for each round.
        retrain_epochs: more than 0 trains a network of the given model's kind for each round.
        unseen_only: leave test patients out that the model has seen, instead of refusing.
        seed: of the training.
        keep: folder for the models that are trained here.
    """
    if fold_models and retrain_epochs:
        raise ConfigError("retrain", retrain_epochs, "goes not with fold models", "Give one of the two.")
    if unseen_only and split.by == "patient-folds" and seen_patients(bundle.facts):
        rounds = [divide_like_model(corpus.patients, bundle.facts["splits"])]
    else:
        rounds = divide(corpus.moments, split)
    if fold_models:
        models = [load_model(Path(fold_models) / one.name) for one in rounds]
    elif retrain_epochs:
        models = [_retrained(corpus, one, bundle, retrain_epochs, seed, keep) for one in rounds]
    else:
        models = [bundle] * len(rounds)
    return [_contest(one, model, unseen_only) for one, model in zip(rounds, models, strict=True)]


def _contest(one: Round, model: ModelBundle, unseen_only: bool) -> Contest:
    seen = seen_patients(model.facts) or set()
    if unseen_only:
        test = tuple(patient for patient in one.test if patient not in seen)
        if not test:
            raise ConfigError("model", model.model_id, f"has seen all of {one.name}", "Give another.")
        one = replace(one, test=test)
    check_unseen(model.model_id, model.facts, model.trained, one.test)
    return Contest(round=_calibrated_on_unseen(one, model), bundle=model)


def _calibrated_on_unseen(one: Round, model: ModelBundle) -> Round:
    """Calibration goes to patients whose windows did not train the network, where there are any.

    On windows that trained it a network's errors are too small, and thresholds made from them too low.
    """
    trained_on = set((model.facts.get("splits") or {}).get("train", ()))
    others = (*one.train, *one.validation)
    fresh = tuple(sorted(patient for patient in others if patient not in trained_on))
    if not set(one.validation) & trained_on or not fresh or len(fresh) == len(others):
        return one
    return replace(one, train=tuple(sorted(set(others) - set(fresh))), validation=fresh)


def _retrained(
    corpus: Corpus, one: Round, like: ModelBundle, epochs: int, seed: int, keep: Path
) -> ModelBundle:
    """A network of the same kind, trained on the normal windows of the round's training patients."""
    bundle = replace(untrained_like(like.spec, seed=seed), normaliser=like.normaliser)
    parts = [_normal_windows(corpus, patients) for patients in (one.train, one.validation)]
    log.info("%s: training on %d windows, validating on %d", one.name, *map(len, parts))
    config = FitConfig(
        epochs=epochs, batch_windows=RETRAIN_BATCH, learning_rate=RETRAIN_RATE, patience=epochs, seed=seed
    )
    history = fit(bundle.network, bundle.normaliser, parts[0], parts[1], config)
    facts = {"splits": one.to_json(), "epochs_run": len(history), "data_hash": corpus.data_hash}
    trained = replace(bundle, trained=True, facts=facts)
    save_checkpoint(trained, keep / one.name)
    return trained


def _normal_windows(corpus: Corpus, patients: Sequence[str]) -> WindowSet:
    windows = corpus.windows.of_patients(patients)
    return windows.take(windows.is_normal_N)


def detectors_of(model: Path, contest: Contest) -> DetectorSet:
    """The detectors that came with a model: in the folder ``detectors`` of its checkpoint.

    Raises:
        ConfigError: there are none, or they are another model's.
    """
    folder = (PRETRAINED / model.name if str(model) in PROFILES else model) / DETECTORS_FOLDER
    if not folder.is_dir():
        raise ConfigError("detectors", "model", f"{model} has none", "Use --detectors fit.")
    found = load_detector_set(folder)
    found.check_model(contest.bundle.model_id)
    return found
