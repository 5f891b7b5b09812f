"""Pre-training, top to bottom: read → divide by patient → train → calibrate → test once → save."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rmsai_ray import ids
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.errors import ConfigError
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.checkpoint import save_checkpoint, untrained_model
from rmsai_ray.models.profiles import DEFAULT_PROFILE
from rmsai_ray.runs import RunRecord, code_version, command_line
from rmsai_ray.storage import Store
from rmsai_ray.training.card import write_card
from rmsai_ray.training.data import TrainingData, WindowSet, read_training_data
from rmsai_ray.training.figures import calibrate, held_out_figures
from rmsai_ray.training.loop import Epoch, FitConfig, best_epoch, fit, window_errors
from rmsai_ray.training.splits import Splits, split_by_patient

log = logging.getLogger(__name__)

DEMO_PATIENTS, DEMO_EVENTS = 8, 10


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Trains a model on the normal windows of archives."""

    archives: tuple[str, ...]
    """Folders or s3:// prefixes; each is divided into patients that train, validate and test."""
    output: str
    """Local folder of the checkpoint; an older one there is replaced."""
    profile: str = DEFAULT_PROFILE
    """Which model to train."""
    epochs: int = 60
    """At most so many passes over the training windows."""
    batch_windows: int = 64
    """Windows per step."""
    learning_rate: float = 2e-3
    """Of AdamW, after the warm-up and before the cosine."""
    patience: int = 15
    """Epochs without a better validation error after which training ends."""
    seed: int = 42
    """Of the division by patient, the first weights and the order of the windows."""
    threads: int = 1
    """Of torch, on this machine."""
    licences: tuple[str, ...] = ()
    """Sentences for the model card: where the archives come from, and under which licence."""
    demo: bool = False
    """Fill a missing archive folder with a few simulated patients first."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_windows", "patience", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(name, getattr(self, name), "must be at least 1", "Choose a larger one.")
        if not self.archives:
            raise ConfigError("archives", self.archives, "names none", "Give at least one folder.")
        if not 0 < self.learning_rate < 1:
            raise ConfigError("learning_rate", self.learning_rate, "must lie between 0 and 1", "Try 0.002.")


def pretrain(config: PretrainConfig) -> ModelBundle:
    """Trains, tests and saves one model; the run's record lies in ``runs/`` beside the output folder."""
    torch.set_num_threads(config.threads)
    untrained = untrained_model(config.profile, seed=config.seed)
    record, store = _begin(config)
    if config.demo:
        _make_demo_archives(config.archives[0])
    data = read_training_data(config.archives, untrained.spec)
    splits = split_by_patient(data.patients_by_source, config.seed)
    parts = {part: data.windows.of_patients(patients) for part, patients in splits.to_json().items()}
    history = _train(untrained, parts, config)
    bundle = _measure(untrained, parts, data)
    bundle = replace(bundle, trained=True, facts=_facts(config, data, splits, parts, history))
    save_checkpoint(bundle, config.output, card=write_card(bundle))
    record.facts = {"model_id": bundle.model_id}
    record.counts = {"windows": len(data.windows), "epochs": len(history)}
    record.finish(store, "done")
    log.info("%s in %s: %s", bundle.model_id, config.output, bundle.metrics["held_out"]["mse_normal"])
    return bundle


def _begin(config: PretrainConfig) -> tuple[RunRecord, Store]:
    store = Store(str(Path(config.output).absolute().parent))
    options = asdict(config)
    record = RunRecord(
        run_id=ids.run_id("pretrain", options), job="pretrain", argv=command_line(), config=options
    )
    record.begin(store)
    return record, store


def _train(bundle: ModelBundle, parts: dict[str, WindowSet], config: PretrainConfig) -> list[Epoch]:
    train, validation = (parts[part].take(parts[part].is_normal_N) for part in ("train", "validation"))
    log.info("training on %d windows, validating on %d", len(train), len(validation))
    fit_config = FitConfig(
        epochs=config.epochs,
        batch_windows=config.batch_windows,
        learning_rate=config.learning_rate,
        patience=config.patience,
        seed=config.seed,
    )
    return fit(bundle.network, bundle.normaliser, train, validation, fit_config)


def _measure(bundle: ModelBundle, parts: dict[str, WindowSet], data: TrainingData) -> ModelBundle:
    """Thresholds from validation, figures from test."""
    validation, test = parts["validation"], parts["test"]
    errors_N = window_errors(bundle.network, bundle.normaliser, validation)
    thresholds = calibrate(errors_N, validation, bundle.spec.leads)
    test_errors_N = window_errors(bundle.network, bundle.normaliser, test)
    held_out = held_out_figures(test_errors_N, test, data.patients_by_source)
    return replace(bundle, thresholds=thresholds, metrics={"held_out": held_out})


def _facts(
    config: PretrainConfig,
    data: TrainingData,
    splits: Splits,
    parts: dict[str, WindowSet],
    history: list[Epoch],
) -> dict[str, Any]:
    return {
        "code_version": code_version(),
        "data_hash": data.data_hash,
        "splits": splits.to_json(),
        "num_windows": {
            part: [len(windows), int(windows.is_normal_N.sum())] for part, windows in parts.items()
        },
        "left_out": data.left_out,
        "licences": list(config.licences),
        "training": {
            "seed": config.seed,
            "epochs": config.epochs,
            "epochs_run": len(history),
            "best_epoch": best_epoch(history).epoch,
            "batch_windows": config.batch_windows,
            "learning_rate": config.learning_rate,
            "threads": config.threads,
            "history": [
                [epoch.epoch, round(epoch.train_mse, 5), round(epoch.validation_mse, 5)] for epoch in history
            ],
        },
    }


def _make_demo_archives(uri: str) -> None:
    store = Store(uri)
    if any(True for _ in store.list()):
        return
    for patient in range(DEMO_PATIENTS):
        store.put(*simulate_archive(patient, DEMO_EVENTS, seed=1, preset="balanced"))
