"""What a tuning may choose from; how it divides patients."""

from __future__ import annotations

import numpy as np
import pytest

from rmsai_ray.errors import ConfigError
from rmsai_ray.evaluation.candidates import is_range, patient_folds, space_of
from rmsai_ray.evaluation.tune import TuneConfig
from rmsai_ray.models.profiles import PROFILES
from rmsai_ray.training.data import WindowSet


def test_only_families_with_sizes_to_choose_have_them() -> None:
    assert "hidden_dim" in space_of(PROFILES["framed-2400x64"])
    assert "hidden_dim" not in space_of(PROFILES["rmsai-140x128"])
    assert PROFILES["framed-2400x64"].architecture.keys() >= {"hidden_dim", "stem_dim", "head_dim"}


def test_a_pair_of_floats_is_a_range_and_a_pair_of_sizes_a_choice() -> None:
    assert is_range((5e-4, 5e-3))
    assert not is_range((64, 128))
    assert not is_range(("none", "light"))


def test_every_patient_is_in_one_fold() -> None:
    num = 40
    patients = np.array([f"p{i % 10}" for i in range(num)])
    windows = WindowSet(
        signals_NT=np.zeros((num, 4), np.float32),
        num_samples_N=np.full(num, 4, np.int32),
        leads_N=np.full(num, "ECG2"),
        patients_N=patients,
        conditions_N=np.full(num, "Normal"),
        is_normal_N=np.ones(num, bool),
    )
    folds = patient_folds(windows, 3, seed=0)
    assert sorted(patient for fold in folds for patient in fold) == sorted(set(patients.tolist()))
    assert folds == patient_folds(windows.take(np.arange(num)[::-1]), 3, seed=0)
    assert folds != patient_folds(windows, 3, seed=1)


@pytest.mark.parametrize(("name", "value"), [("trials", 0), ("folds", 2), ("epochs", 0), ("parallel", 0)])
def test_a_budget_that_cannot_work_is_refused(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=name):
        TuneConfig(archives=("a",), output="b", **{name: value})  # type: ignore[arg-type]
