"""The options of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rmsai_ray.errors import ConfigError
from rmsai_ray.models.profiles import DEFAULT_PROFILE


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Runs a protocol and writes report.json, report.md and pictures into a folder below the output."""

    protocol: str
    """Name of a packaged protocol, or a TOML file."""
    output: str
    """Local folder of reports; which test parts were used is kept there too."""
    archives: tuple[str, ...] = ()
    """Folders or s3:// prefixes of archives."""
    beats_file: str | None = None
    """For single beats: an .npz with train_x, train_class, test_x and test_is_anomaly."""
    model: str = DEFAULT_PROFILE
    """Name of a packaged model or a checkpoint folder; with fold models or retraining it names the kind."""
    fold_models: str | None = None
    """Folder with a checkpoint fold-0, fold-1 … for each round, none trained on its round's test patients."""
    retrain: int = 0
    """Train a network for each round on the round's training patients, for so many epochs."""
    unseen_only: bool = False
    """Leave out test patients that the model was trained on, instead of refusing."""
    detectors: Literal["fit", "model"] = "fit"
    """Fit detectors on the normal windows of training patients, or take those in the model's folder."""
    lake: str | None = None
    """A backfilled lake: its first 20 anomalies and windows that look alike go into the report."""
    lake_model: str | None = None
    """Which model of the lake, where it holds several."""
    gallery_windows: int = 20_000
    """Windows of other patients among which a window has to find its own shift."""
    draws: int = 1000
    """How often patients are drawn again for the intervals."""
    seed: int = 0
    """Of detectors, baselines and draws; divisions are the protocol's."""
    threads: int = 1
    """Of torch, on this machine."""
    reopen_test: str | None = None
    """Why a test part is used a second time; the report shows it."""
    demo: bool = False
    """Simulate a few patients first, where the archives' folder is empty."""

    def __post_init__(self) -> None:
        for name, least in (("draws", 10), ("gallery_windows", 10), ("threads", 1), ("retrain", 0)):
            if getattr(self, name) < least:
                raise ConfigError(name, getattr(self, name), f"must be at least {least}", "Give more.")
        if not self.archives and not self.beats_file:
            raise ConfigError("archives", self.archives, "names none", "Give a folder of archives.")
        if self.reopen_test is not None and len(self.reopen_test.strip()) < 10:
            raise ConfigError("reopen_test", self.reopen_test, "is no reason", "Write a sentence.")
