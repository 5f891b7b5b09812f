"""Division by patient into what trains, what validates and what tests."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

from rmsai_ray.errors import ConfigError

NOBODY: Mapping[str, str] = {}
VALIDATION_SHARE, TEST_SHARE = 0.15, 0.15
"""Of each source's patients."""


@dataclass(frozen=True)
class Splits:
    """Patients of each part; no patient is in two of them."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def to_json(self) -> dict[str, list[str]]:
        """Patients by part."""
        return {part: list(patients) for part, patients in asdict(self).items()}


def split_by_patient(
    patients_by_source: Mapping[str, tuple[str, ...]],
    seed: int,
    *,
    known: Mapping[str, str] = NOBODY,
    leave_out: Collection[str] = (),
) -> Splits:
    """Divides each source's patients by a hash of seed and patient, so that every part has some of each.

    A source of fewer than three new patients gives them to training only. A patient of two sources stays
    where the first one put it.

    Args:
        patients_by_source: patients by archive URI.
        seed: another one, another division.
        known: parts of the patients that the model's ancestors knew; these stay in them, so that nobody who
            trained an ancestor tests its descendant.
        leave_out: patients that take no part.

    Raises:
        ConfigError: no source has three patients, so that nothing is left to validate or to test with.
    """
    part_of = dict(known)
    present = {patient for patients in patients_by_source.values() for patient in patients} - {*leave_out}
    for patients in patients_by_source.values():
        new = [patient for patient in patients if patient in present and patient not in part_of]
        part_of |= _divide(sorted(new, key=lambda patient: _rank(seed, patient)))
    splits = Splits(
        *(
            tuple(sorted(patient for patient in present if part_of[patient] == part))
            for part in ("train", "validation", "test")
        )
    )
    if not splits.validation or not splits.test:
        counts = {uri: len(patients) for uri, patients in patients_by_source.items()}
        rule = "no source has three patients to train, validate and test with"
        if known:
            rule += ", beside those whom the model or its ancestors knew"
        raise ConfigError("archives", counts, rule, "Add some.")
    return splits


def _divide(patients: list[str]) -> dict[str, str]:
    num_test = max(1, round(TEST_SHARE * len(patients))) if len(patients) >= 3 else 0
    num_validation = max(1, round(VALIDATION_SHARE * len(patients))) if len(patients) >= 3 else 0
    return {
        patient: "test" if i < num_test else "validation" if i < num_test + num_validation else "train"
        for i, patient in enumerate(patients)
    }


def _rank(seed: int, patient: str) -> str:
    return hashlib.sha256(f"{seed}/{patient}".encode()).hexdigest()
