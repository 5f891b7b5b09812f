"""A challenger takes over only where its gain is more than chance between patients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rmsai_ray.detection.measured import Measured
from rmsai_ray.nightly.comparison import compare
from rmsai_ray.signals.rhythm import rhythm
from rmsai_ray.training.data import WindowSet

PATIENTS, WINDOWS = 12, 20


def windows() -> WindowSet:
    num = PATIENTS * WINDOWS
    rng = np.random.default_rng(0)
    return WindowSet(
        leads_N=np.full(num, "ECG1"),
        patients_N=np.repeat([f"PT{i}" for i in range(PATIENTS)], WINDOWS),
        conditions_N=np.full(num, "Normal"),
        is_normal_N=np.tile(np.arange(WINDOWS) < 15, PATIENTS),
        signals_NT=rng.normal(size=(num, 200)).astype(np.float32),
        num_samples_N=np.full(num, 200, np.int32),
    )


def measured(data: WindowSet, error_N: np.ndarray) -> Measured:
    errors = error_N.astype(np.float32)
    return Measured(
        embedding_NE=np.zeros((len(data), 2), np.float32),
        mse_N=errors,
        worst_mse_N=errors,
        mae_N=errors,
        rhythm=rhythm(data.signals_NT, data.num_samples_N, 200.0),
        leads_N=data.leads_N,
    )


def contest(gain_by_patient: np.ndarray, abnormal_gain: float = 0.0) -> dict[str, Any]:
    data, rng = windows(), np.random.default_rng(1)
    before = 0.2 + 0.02 * rng.random(len(data)) + 0.3 * ~data.is_normal_N
    after = before - np.where(data.is_normal_N, np.repeat(gain_by_patient, WINDOWS), abnormal_gain)
    return compare(data, champion=(measured(data, before), None), challenger=(measured(data, after), None))


def test_a_gain_in_every_patient_counts() -> None:
    found = contest(np.full(PATIENTS, 0.05))
    assert found["is_better"]
    assert found["patients"] == PATIENTS
    assert found["gain"]["value"] == pytest.approx(0.05, abs=1e-6)


def test_a_gain_of_one_patient_does_not() -> None:
    gains = np.full(PATIENTS, -0.005)
    gains[0] = 0.15
    found = contest(gains)
    assert found["gain"]["value"] > 0
    assert not found["is_better"]


def test_a_loss_does_not() -> None:
    assert not contest(np.full(PATIENTS, -0.05))["is_better"]


def test_who_no_longer_sees_what_is_abnormal_does_not() -> None:
    found = contest(np.full(PATIENTS, 0.05), abnormal_gain=0.45)
    assert found["auroc_change"]["high"] < 0
    assert not found["is_better"]
