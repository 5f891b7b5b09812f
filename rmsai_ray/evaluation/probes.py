"""What frozen embeddings know: a linear probe per class, chosen inside the training folds.

Shapes: U moments, D features, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from rmsai_ray.evaluation.bootstrap import Ranking, draw_patients, interval
from rmsai_ray.evaluation.corpus import Corpus
from rmsai_ray.evaluation.metrics import auroc, macro_auroc

FloatArray = npt.NDArray[np.float32]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse L2 penalties to choose from."""
NUM_FOLDS = 5
FEWEST_POSITIVES = 5
"""A class with fewer in training teaches nothing, and is left out."""


def lead_features(embedding_NE: FloatArray, corpus: Corpus) -> FloatArray:
    """Embeddings of a moment's leads side by side in the corpus' order of leads, (U, leads · E).

    A lead that a moment does not have is the mean of that lead over the others.
    """
    leads = sorted(set(corpus.windows.leads_N.tolist()))
    num_moments, dim = len(corpus.moments), embedding_NE.shape[1]
    features_UD = np.full((num_moments, len(leads) * dim), np.nan, np.float32)
    for place, lead in enumerate(leads):
        rows = np.flatnonzero(corpus.windows.leads_N == lead)
        columns = slice(place * dim, (place + 1) * dim)
        features_UD[corpus.moment_N[rows], columns] = embedding_NE[rows]
    means_D = np.nanmean(features_UD, axis=0)
    return np.where(np.isfinite(features_UD), features_UD, means_D).astype(np.float32)


def linear_probe(
    features_UD: FloatArray,
    is_class_UC: npt.NDArray[np.bool_],
    classes: tuple[str, ...],
    patients_U: npt.NDArray[np.str_],
    is_train_U: npt.NDArray[np.bool_],
    is_test_U: npt.NDArray[np.bool_],
    *,
    seed: int,
    num_draws: int,
) -> dict[str, Any]:
    """AUROC by class and macro on the test moments, with an interval over test patients.

    Standardised features, L2 logistic regression, its penalty chosen by patient-grouped cross-validation
    within the training moments (macro AUROC). The test moments choose nothing.
    """
    train_UC, test_UC = is_class_UC[is_train_U], is_class_UC[is_test_U]
    usable = [c for c in range(len(classes)) if _learnable(train_UC[:, c]) and _both(test_UC[:, c])]
    names = tuple(classes[c] for c in usable)
    if not usable:
        return {"classes": [], "auroc": {}, "macro": None}
    x_train, x_test = features_UD[is_train_U], features_UD[is_test_U]
    y_train, y_test = train_UC[:, usable], test_UC[:, usable]
    strength = _choose(x_train, y_train, patients_U[is_train_U], names)
    scores = np.stack(
        [_fitted(x_train, y_train[:, c], strength).decision_function(x_test) for c in range(len(usable))], 1
    )
    own = macro_auroc(scores, y_test, names)
    weights = draw_patients(patients_U[is_test_U], seed=seed, num_draws=num_draws)
    draws = np.stack([Ranking(scores[:, c], y_test[:, c]).drawn("auroc", weights) for c in range(len(names))])
    macro = own.pop("macro")
    return {
        "classes": list(names),
        "positives_in_test": {name: int(y_test[:, c].sum()) for c, name in enumerate(names)},
        "auroc": own,
        "macro": interval(macro, draws.mean(0)).to_json(),
        "inverse_penalty": strength,
        "train_moments": int(is_train_U.sum()),
        "test_moments": int(is_test_U.sum()),
    }


def _choose(
    x_UD: FloatArray, y_UC: npt.NDArray[np.bool_], patients_U: npt.NDArray[np.str_], names: tuple[str, ...]
) -> float:
    num_folds = min(NUM_FOLDS, len(set(patients_U.tolist())))
    folds = list(GroupKFold(n_splits=num_folds).split(x_UD, groups=patients_U))

    def macro(strength: float) -> float:
        found = []
        for train, held_out in folds:
            for c in range(len(names)):
                if _both(y_UC[train, c]) and _both(y_UC[held_out, c]):
                    probe = _fitted(x_UD[train], y_UC[train, c], strength)
                    found.append(auroc(probe.decision_function(x_UD[held_out]), y_UC[held_out, c]))
        return float(np.mean(found)) if found else 0.0

    return max(STRENGTHS, key=macro)


def _fitted(x_UD: FloatArray, y_U: npt.NDArray[np.bool_], strength: float) -> Pipeline:
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
    probe.fit(x_UD, y_U)
    return probe


def _learnable(y_U: npt.NDArray[np.bool_]) -> bool:
    return bool(y_U.sum() >= FEWEST_POSITIVES and (~y_U).sum() >= FEWEST_POSITIVES)


def _both(y_U: npt.NDArray[np.bool_]) -> bool:
    return bool(y_U.any() and not y_U.all())
