"""Experiment trackers that a training also tells its epochs: only those asked for, and only if installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from rmsai_ray.errors import ConfigError
from rmsai_ray.storage import is_s3
from rmsai_ray.training.state import Epoch

TrackerName = Literal["tensorboard", "mlflow"]
MODULES: dict[TrackerName, str] = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}


@dataclass(frozen=True)
class Tracker:
    """One place that hears of epochs; ``close`` makes sure that it has."""

    track: Callable[[Epoch], None]
    close: Callable[[], None]


def check_trackers(names: Sequence[TrackerName], output: str) -> None:
    """Raises ConfigError for a tracker that is not installed or cannot write where the output goes."""
    for name in names:
        if find_spec(MODULES[name]) is None:
            fix = f"pip install {MODULES[name]}, or leave it out: the run record has every epoch."
            raise ConfigError("track", name, "is not installed", fix)
    if "tensorboard" in names and is_s3(output):
        raise ConfigError("track", "tensorboard", "needs a local output", "Leave it out, or use mlflow.")


def open_trackers(
    names: Sequence[TrackerName], *, run_id: str, folder: str, options: dict[str, Any]
) -> list[Tracker]:
    """Trackers to tell of each epoch, and to close. TensorBoard writes below ``folder``."""
    opened: dict[TrackerName, Callable[[], Tracker]] = {
        "tensorboard": lambda: _open_tensorboard(Path(folder) / "runs" / run_id / "tensorboard"),
        "mlflow": lambda: _open_mlflow(run_id, options),
    }
    return [opened[name]() for name in names]


def _metrics(epoch: Epoch) -> dict[str, float]:
    return {"train_mse": epoch.train_mse, "validation_mse": epoch.validation_mse, "seconds": epoch.seconds}


def _open_tensorboard(folder: Path) -> Tracker:
    writer = import_module(MODULES["tensorboard"]).SummaryWriter(str(folder))

    def track(epoch: Epoch) -> None:
        for name, value in _metrics(epoch).items():
            writer.add_scalar(name, value, epoch.epoch)

    return Tracker(track, writer.close)


def _open_mlflow(run_id: str, options: dict[str, Any]) -> Tracker:
    mlflow = import_module(MODULES["mlflow"])
    client = mlflow.MlflowClient()
    experiment = mlflow.set_experiment("rmsai_ray").experiment_id
    run = client.create_run(experiment, run_name=run_id)
    for name, value in options.items():
        client.log_param(run.info.run_id, name, value)

    def track(epoch: Epoch) -> None:
        for name, value in _metrics(epoch).items():
            client.log_metric(run.info.run_id, name, value, step=epoch.epoch)

    return Tracker(track, lambda: client.set_terminated(run.info.run_id))
