"""What a training is asked for, and what the packaged model can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.compute import Cluster
from rmsai_ray.errors import ConfigError
from rmsai_ray.models.checkpoint import load_model, untrained_model
from rmsai_ray.training.config import FinetuneConfig, PretrainConfig
from rmsai_ray.training.data import WindowSet, read_training_data
from rmsai_ray.training.distributed import plan_workers
from rmsai_ray.training.loop import fit, window_errors
from rmsai_ray.training.state import Epoch, FitConfig
from rmsai_ray.training.tracking import open_trackers

CONFIG = PretrainConfig(archives=("icu",), output="models/mine")


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"archives": ()},
        {"learning_rate": 2.0},
        {"batch_windows": 0},
        {"batch_windows": 63, "workers": 2},
        {"workers": 0},
        {"seed": -1},
        {"augmentation": "wild"},
        {"leads": ("ECG9",)},
        {"cohort": "heart_rate < 100"},
        {"lake": "somewhere"},
        {"output": "s3://models/mine", "track": ("tensorboard",)},
    ],
)
def test_bad_values_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        replace(CONFIG, **change)


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmsai_ray.training.tracking.MODULES", {"mlflow": "no_such_module_anywhere"})
    with pytest.raises(ConfigError, match="not installed"):
        replace(CONFIG, track=("mlflow",))


def test_what_decides_the_weights_names_the_run() -> None:
    assert replace(CONFIG, track=("tensorboard",)).result_options() == CONFIG.result_options()
    assert replace(CONFIG, workers=2).result_options() != CONFIG.result_options()


def test_fine_tuning_starts_gently() -> None:
    tuned = FinetuneConfig(archives=("icu",), output="models/mine")
    assert tuned.learning_rate < CONFIG.learning_rate / 5
    assert tuned.epochs < CONFIG.epochs


@pytest.mark.parametrize(
    ("num_cpus", "workers", "expected"), [(1, 1, 0.8), (2, 2, 0.8), (1, 2, 0.4), (16, 4, 1.0)]
)
def test_workers_leave_cores_to_reading(num_cpus: float, workers: int, expected: float) -> None:
    scaling = plan_workers(Cluster(num_cpus=num_cpus, num_gpus=0), workers, use_gpu=False)
    assert scaling.resources_per_worker == {"CPU": expected}
    assert expected * workers < num_cpus


def test_more_workers_than_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most 4"):
        plan_workers(Cluster(num_cpus=2, num_gpus=0), 5, use_gpu=False)
    with pytest.raises(ConfigError, match="1 GPUs"):
        plan_workers(Cluster(num_cpus=8, num_gpus=1), 2, use_gpu=True)


@pytest.mark.parametrize("profile", ["seed-2400x64", "rmsai-140x128"])
def test_the_other_profiles_stay_trainable(profile: str) -> None:
    model = untrained_model(profile)
    signals_NT = np.random.default_rng(0).normal(0, 1, (4, model.spec.window_samples)).astype(np.float32)
    labels = {"leads_N": "ECG2", "patients_N": "PT0001", "conditions_N": "Normal", "is_normal_N": True}
    windows = WindowSet(
        signals_NT=signals_NT,
        num_samples_N=np.full(4, model.spec.window_samples, np.int32),
        **{name: np.full(4, value) for name, value in labels.items()},
    )
    before = {name: weights.clone() for name, weights in model.network.state_dict().items()}
    config = FitConfig(epochs=1, batch_windows=4, learning_rate=1e-2, patience=1, seed=0)
    (epoch,) = fit(model.network, model.normaliser, windows, windows.take(np.arange(1)), config)
    assert epoch.steps == 1
    assert epoch.train_mse > 0
    assert all(not weights.equal(before[name]) for name, weights in model.network.state_dict().items())


def test_tensorboard_gets_every_epoch(tmp_path: Path) -> None:
    (tracker,) = open_trackers(("tensorboard",), run_id="run-1", folder=str(tmp_path), options={})
    tracker.track(Epoch(1, 0.9, 0.8, 1.0))
    tracker.close()
    (events,) = (tmp_path / "runs" / "run-1" / "tensorboard").glob("events.*")
    assert b"validation_mse" in events.read_bytes()


def test_the_packaged_model_tells_simulated_rhythms_apart(tmp_path: Path) -> None:
    """Of patients of another seed than in its training."""
    for patient in range(2):
        name, content = simulate_archive(patient, 5, seed=99, proportions=(0.6, 0, 0, 0.2, 0.2))
        (tmp_path / name).write_bytes(content)
    bundle = load_model("framed-2400x64")
    windows = read_training_data([str(tmp_path)], bundle.spec).windows
    errors = window_errors(bundle.network, bundle.normaliser, windows)
    normal = errors[windows.is_normal_N]
    assert normal.mean() < 0.2
    assert normal.max() < 1
    for condition in ("Atrial Fibrillation (PTB-XL)", "Ventricular Tachycardia (MIT-BIH)"):
        abnormal = errors[windows.conditions_N == condition]
        assert len(abnormal) == 14
        assert abnormal.mean() > 2 * normal.mean()
