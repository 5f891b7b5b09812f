"""Tuning, top to bottom: read → fold by patient → trials on Ray Tune, proposed by Optuna → leaderboard."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune as ray_tune
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from rmsai_ray import ids
from rmsai_ray.encoding.encoder import limit_threads
from rmsai_ray.errors import ConfigError, RmsaiError
from rmsai_ray.evaluation.candidates import is_range, patient_folds, space_of, worth
from rmsai_ray.evaluation.demo import make_demo_archives
from rmsai_ray.job import ray_session
from rmsai_ray.models.bundle import ModelSpec
from rmsai_ray.models.profiles import DEFAULT_PROFILE, get_profile
from rmsai_ray.runs import RunRecord, command_line
from rmsai_ray.storage import Store
from rmsai_ray.training.data import WindowSet, read_training_data

log = logging.getLogger(__name__)

METRIC = "auroc"
FEWEST_FOLDS = 3
"""One trains, one chooses the epoch, one tests."""


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """Searches for training options and sizes of a network on folds of development patients."""

    archives: tuple[str, ...]
    """Folders or s3:// prefixes of development patients; the test part has no place here."""
    output: str
    """Local folder of the leaderboard and the best configuration; every node must reach it."""
    profile: str = DEFAULT_PROFILE
    """Which model to start from."""
    trials: int = 20
    """The budget."""
    epochs: int = 8
    """Of each training; a trial trains once a fold."""
    folds: int = 3
    """Of patients."""
    most_windows: int = 4000
    """Windows that are looked at, drawn at random, so that a trial has a price."""
    parallel: int = 2
    """Trials at once."""
    cpus_per_trial: float = 0.5
    """Of Ray's CPUs; each trial has one thread."""
    seed: int = 0
    """Of folds, proposals, weights and order."""
    demo: bool = False
    """Simulate a few patients first, where the archives' folder is empty."""

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("epochs", 1), ("folds", FEWEST_FOLDS), ("parallel", 1)):
            if getattr(self, name) < least:
                raise ConfigError(name, getattr(self, name), f"must be at least {least}", "Give more.")


def tune(config: TuneConfig) -> dict[str, Any]:
    """Runs the trials, writes ``leaderboard.json`` and ``best.json``, and returns the best row.

    Raises:
        ConfigError: too few patients for the folds.
        RmsaiError: no trial came to an end.
    """
    spec, folder = get_profile(config.profile), Path(config.output).absolute()
    if config.demo:
        make_demo_archives(config.archives[0])
    store = Store(str(folder))
    record = RunRecord(
        run_id=ids.run_id("tune", asdict(config)), job="tune", argv=command_line(), config=asdict(config)
    )
    record.begin(store)
    try:
        windows = _read(config, spec)
        rows = _run(config, spec, windows, folder)
    except BaseException as error:
        record.finish(store, "failed", repr(error))
        raise
    (folder / "leaderboard.json").write_text(json.dumps(rows, indent=1) + "\n")
    (folder / "best.json").write_text(json.dumps(rows[0], indent=1) + "\n")
    record.counts = {"trials": len(rows), "windows": len(windows)}
    record.finish(store, "done")
    log.info("best of %d trials: %s", len(rows), rows[0])
    return rows[0]


def _read(config: TuneConfig, spec: ModelSpec) -> WindowSet:
    windows = read_training_data(config.archives, spec).windows
    num_patients = len(set(windows.patients_N.tolist()))
    if num_patients < config.folds:
        raise ConfigError("folds", config.folds, f"are more than {num_patients} patients", "Give fewer.")
    order = np.random.default_rng(config.seed).permutation(len(windows))
    return windows.take(np.sort(order[: config.most_windows]))


def _run(config: TuneConfig, spec: ModelSpec, windows: WindowSet, folder: Path) -> list[dict[str, Any]]:
    folds = patient_folds(windows, config.folds, config.seed)
    with ray_session():
        trainable = ray_tune.with_parameters(
            run_trial, spec=spec, windows=windows, folds=folds, epochs=config.epochs, seed=config.seed
        )
        search = ConcurrencyLimiter(
            OptunaSearch(metric=METRIC, mode="max", seed=config.seed), max_concurrent=config.parallel
        )
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(trainable, {"cpu": config.cpus_per_trial}),
            param_space=_param_space(spec),
            tune_config=ray_tune.TuneConfig(
                metric=METRIC, mode="max", search_alg=search, num_samples=config.trials
            ),
            run_config=ray_tune.RunConfig(storage_path=str(folder), name="trials", verbose=0),
        )
        results = tuner.fit()
    return _leaderboard(results)


def run_trial(
    candidate: dict[str, Any],
    spec: ModelSpec,
    windows: WindowSet,
    folds: list[tuple[str, ...]],
    epochs: int,
    seed: int,
) -> None:
    """One trial in a worker of its own: reports its mean so far after each fold."""
    limit_threads(1)

    def report(found: list[float]) -> None:
        ray_tune.report({METRIC: float(np.nanmean(found)), "by_fold": list(found)})

    worth(candidate, spec, windows, folds, epochs=epochs, seed=seed, report=report)


def _param_space(spec: ModelSpec) -> dict[str, Any]:
    return {
        name: ray_tune.loguniform(*values) if is_range(values) else ray_tune.choice(list(values))
        for name, values in space_of(spec).items()
    }


def _leaderboard(results: Any) -> list[dict[str, Any]]:
    """Best first. A trial that failed has a row too, at the end."""
    rows = [
        {
            METRIC: (result.metrics or {}).get(METRIC),
            "by_fold": (result.metrics or {}).get("by_fold"),
            "config": result.config,
            "error": None if result.error is None else repr(result.error)[:500],
        }
        for result in results
    ]
    if all(row["error"] for row in rows):
        raise RmsaiError(f"no trial came to an end: {rows[0]['error']}")
    return sorted(rows, key=lambda row: (row["error"] is not None, -(row[METRIC] or 0.0)))
