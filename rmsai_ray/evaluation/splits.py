"""Who fits, who calibrates and who is tested, by patient: one round, or one for each fold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rmsai_ray.errors import ConfigError
from rmsai_ray.evaluation.guards import check_disjoint
from rmsai_ray.evaluation.protocol import Split


@dataclass(frozen=True, kw_only=True)
class Round:
    """One division of the patients."""

    name: str
    train: tuple[str, ...]
    """Detectors and baselines are fitted on their normal windows."""
    validation: tuple[str, ...]
    """Their normal windows calibrate."""
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        check_disjoint(self.to_json())

    def to_json(self) -> dict[str, list[str]]:
        """Patients by part."""
        return {part: list(getattr(self, part)) for part in ("train", "validation", "test")}


def divide(moments: pd.DataFrame, split: Split) -> list[Round]:
    """The rounds of a protocol over the patients of a corpus.

    Raises:
        ConfigError: a part has no patient.
    """
    if split.by == "stratification-folds":
        rounds = [_by_stratification(moments, split)]
    else:
        patients = shuffled(set(moments["patient"]), str(split.seed))
        has_normal = set(moments["patient"][moments["is_normal"]])
        num_folds = split.folds if split.by == "patient-folds" else 1
        rounds = [_round(patients, has_normal, split, k, num_folds) for k in range(num_folds)]
    for one in rounds:
        for part, members in one.to_json().items():
            if not members:
                raise ConfigError(
                    "archives",
                    f"{moments['patient'].nunique()} patients",
                    f"leave none for {part} in round {one.name}",
                    "Give archives of more patients.",
                )
    return rounds


def divide_like_model(patients: Sequence[str], splits: dict[str, Any]) -> Round:
    """The round of a model that has its own division: tested are those that it has not seen.

    Raises:
        ConfigError: it has seen all of them.
    """
    seen = {part: tuple(p for p in patients if p in set(splits[part])) for part in ("train", "validation")}
    test = tuple(p for p in patients if p not in {*seen["train"], *seen["validation"]})
    if not test:
        raise ConfigError(
            "archives", f"{len(patients)} patients", "have all been seen by the model", "Give others."
        )
    return Round(name="unseen", **seen, test=test)


def _round(patients: list[str], has_normal: set[str], split: Split, k: int, num_folds: int) -> Round:
    """One of several folds, each patient testing in exactly one; or the only division.

    Patients without a normal window calibrate nothing, so they are not taken to validate.
    """
    num_test = max(1, round(split.test_share * len(patients)))
    test = patients[k::num_folds] if num_folds > 1 else patients[:num_test]
    others = [patient for patient in patients if patient not in test]
    num_validation = max(1, round(split.validation_share * len(others)))
    useful = [patient for patient in others if patient in has_normal]
    validation = shuffled(useful, f"{split.seed}/{k}")[:num_validation]
    return Round(
        name=f"fold-{k}" if num_folds > 1 else "all",
        train=tuple(sorted(set(others) - set(validation))),
        validation=tuple(sorted(validation)),
        test=tuple(sorted(test)),
    )


def _by_stratification(moments: pd.DataFrame, split: Split) -> Round:
    folds = moments["facts"].map(lambda facts: facts.get("strat_fold"))
    if folds.isna().any():
        raise ConfigError(
            "archives",
            int(folds.isna().sum()),
            "moments name no stratification fold",
            "Import PTB-XL with its table ptbxl_database.csv.",
        )

    def patients_of(numbers: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(moments["patient"][folds.isin(numbers)])))

    return Round(
        name=f"folds {', '.join(map(str, split.test_folds))}",
        train=patients_of(split.train_folds),
        validation=patients_of(split.validation_folds),
        test=patients_of(split.test_folds),
    )


def shuffled(patients: Iterable[str], seed: str) -> list[str]:
    """In an order that depends on the seed and their names alone."""
    return sorted(patients, key=lambda patient: hashlib.sha256(f"{seed}/{patient}".encode()).hexdigest())
