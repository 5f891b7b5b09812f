"""What can be asked of a training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rmsai_ray.errors import ConfigError
from rmsai_ray.models.profiles import DEFAULT_PROFILE
from rmsai_ray.signals.leads import select_leads
from rmsai_ray.training.augment import get_preset
from rmsai_ray.training.tracking import TrackerName, check_trackers

NO_EFFECT_ON_WEIGHTS = ("track", "demo")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What pre-training and fine-tuning have in common."""

    archives: tuple[str, ...]
    """Folders or s3:// prefixes; each is divided into patients that train, validate and test."""
    output: str
    """Folder or s3:// prefix of the checkpoint, seen by all machines; an older one there is replaced."""
    epochs: int = 60
    """At most so many passes over the training windows."""
    batch_windows: int = 64
    """Windows per step, of all workers together."""
    learning_rate: float = 2e-3
    """Of AdamW, after the warm-up and before the cosine."""
    patience: int = 15
    """Epochs without a better validation error after which training ends."""
    seed: int = 42
    """Of the division by patient, the first weights, the order of the windows and their augmentation."""
    workers: int = 1
    """Processes that train together, each with its share of the windows in memory."""
    gpu: bool = False
    """Each worker has a GPU."""
    threads: int = 1
    """Of torch, per worker."""
    augmentation: str = "pretrain"
    """none, pretrain, light, medium or heavy."""
    leads: tuple[str, ...] = ()
    """Leads to train on; none named means all that the model was made for."""
    lake: str | None = None
    """A lake whose events choose, with --cohort, which events of the archives take part."""
    cohort: str | None = None
    """An SQL condition over the lake's table events, such as "heart_rate < 100 AND num_anomalous = 0"."""
    lake_model: str | None = None
    """Id of a model in the lake; needed with --cohort where it holds several."""
    cohort_archives_only: bool = False
    """Read only the archives that the lake has the cohort's events from, by their URIs in it, instead of
    looking for the events in all archives."""
    leave_out: tuple[str, ...] = ()
    """Patients that take no part, because something else will be tested on them."""
    track: tuple[TrackerName, ...] = ()
    """Also tell these of every epoch; the run record has them in any case."""
    licences: tuple[str, ...] = ()
    """Sentences for the model card: where the archives come from, and under which licence."""
    demo: bool = False
    """Fill a missing archive folder with a few simulated patients first."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_windows", "patience", "threads", "workers"):
            if getattr(self, name) < 1:
                raise ConfigError(name, getattr(self, name), "must be at least 1", "Choose a larger one.")
        if self.seed < 0:
            raise ConfigError("seed", self.seed, "must not be negative", "Choose another.")
        if not self.archives:
            raise ConfigError("archives", self.archives, "names none", "Give at least one folder.")
        if not 0 < self.learning_rate < 1:
            raise ConfigError("learning_rate", self.learning_rate, "must lie between 0 and 1", "Try 0.002.")
        if self.batch_windows % self.workers:
            fix = "Choose a multiple."
            raise ConfigError("batch_windows", self.batch_windows, "does not divide among the workers", fix)
        if (self.lake is None) != (self.cohort is None):
            raise ConfigError("cohort", self.cohort, "goes together with --lake", "Give both, or neither.")
        get_preset(self.augmentation)
        select_leads(self.leads)
        check_trackers(self.track, self.output)

    def result_options(self) -> dict[str, Any]:
        """What decides the weights: the same of these is the same run."""
        return {name: value for name, value in asdict(self).items() if name not in NO_EFFECT_ON_WEIGHTS}


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainingConfig):
    """Trains a model from scratch on the normal windows of archives."""

    profile: str = DEFAULT_PROFILE
    """Which model to train."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainingConfig):
    """Trains a model further: on a cohort, on some leads, or on another kind of monitor.

    Archives of another sampling rate are resampled, and raw counts take the file's own gain: the windows come
    at the model's rate, in mV. ``window`` normalisers need no more; thresholds are calibrated anew.
    """

    model: str = DEFAULT_PROFILE
    """What to start from: a packaged model's name, a checkpoint folder, or an upstream checkpoint."""
    freeze: tuple[str, ...] = ()
    """Leave the parameters as they are whose names begin so: encoder, decoder, head …"""
    epochs: int = 20
    """At most so many passes over the training windows."""
    learning_rate: float = 2e-4
    """Of AdamW, after the warm-up and before the cosine."""
    patience: int = 5
    """Epochs without a better validation error after which training ends."""
