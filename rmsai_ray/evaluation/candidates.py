"""What a tuning may choose from, and what one choice is worth over folds of patients.

Shapes: N windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rmsai_ray.encoding.encoder import WindowEncoder
from rmsai_ray.evaluation.metrics import auroc
from rmsai_ray.evaluation.splits import shuffled
from rmsai_ray.models.bundle import ModelSpec
from rmsai_ray.models.checkpoint import untrained_like
from rmsai_ray.training.data import WindowSet
from rmsai_ray.training.loop import FitConfig, fit

SPACE: Mapping[str, tuple[float, float] | tuple[Any, ...]] = {
    "learning_rate": (5e-4, 5e-3),
    "augmentation": ("none", "light", "pretrain"),
    "batch_windows": (32, 64, 128),
}
"""A pair of floats is a range, searched by its logarithm; everything else is a choice."""
ARCHITECTURES: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "framed": {"hidden_dim": (64, 96, 112, 128), "stem_dim": (48, 80, 112), "head_dim": (64, 128)},
}
"""Further choices by family; a family that is absent has none."""

TRAINING_KEYS = ("learning_rate", "augmentation", "batch_windows")


def space_of(spec: ModelSpec) -> dict[str, tuple[Any, ...]]:
    """Everything that may be chosen for a model of this kind."""
    return {**SPACE, **ARCHITECTURES.get(spec.family, {})}


def is_range(values: tuple[Any, ...]) -> bool:
    """Whether these are the ends of a range."""
    return len(values) == 2 and all(isinstance(value, float) for value in values)


def patient_folds(windows: WindowSet, num_folds: int, seed: int) -> list[tuple[str, ...]]:
    """Patients of each fold; each patient in one."""
    patients = shuffled(set(windows.patients_N.tolist()), f"tune/{seed}")
    return [tuple(patients[k::num_folds]) for k in range(num_folds)]


def worth(
    candidate: Mapping[str, Any],
    spec: ModelSpec,
    windows: WindowSet,
    folds: Sequence[tuple[str, ...]],
    *,
    epochs: int,
    seed: int,
    report: Callable[[list[float]], None] = lambda found: None,
) -> list[float]:
    """AUROC of the worst part's reconstruction error on the patients of each fold, trained on the others.

    The network learns from normal windows and chooses its epoch on normal windows of the fold after the
    tested one; the tested patients only test.

    Args:
        candidate: values for the keys of :func:`space_of`.
        spec: the model that the candidate changes.
        windows: of all patients.
        folds: patients of each fold; three or more.
        epochs: of each training.
        seed: of weights and order.
        report: called with the figures so far after each fold.
    """
    architecture = {key: value for key, value in candidate.items() if key not in TRAINING_KEYS}
    changed = replace(spec, architecture={**spec.architecture, **architecture})
    training = {key: candidate[key] for key in TRAINING_KEYS}
    config = FitConfig(epochs=epochs, patience=epochs, seed=seed, fs=spec.sampling_rate_hz, **training)
    found: list[float] = []
    for train, validation, test in _parts(windows, folds):
        bundle = untrained_like(changed, seed=seed)
        fit(bundle.network, bundle.normaliser, train, validation, config, after_epoch=lambda state: None)
        encoded = WindowEncoder(bundle).encode(test.signals_NT, test.num_samples_N, test.leads_N.tolist())
        found.append(auroc(encoded.worst_mse_N, ~test.is_normal_N))
        report(found)
    return found


def _parts(
    windows: WindowSet, folds: Sequence[tuple[str, ...]]
) -> Iterator[tuple[WindowSet, WindowSet, WindowSet]]:
    normal = windows.take(windows.is_normal_N)
    for k, tested in enumerate(folds):
        chosen = folds[(k + 1) % len(folds)]
        others = ~np.isin(normal.patients_N, [*tested, *chosen])
        yield normal.take(others), normal.of_patients(chosen), windows.of_patients(tested)
