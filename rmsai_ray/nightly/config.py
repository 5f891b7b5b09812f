"""What an operator can ask of a night."""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.errors import ConfigError
from rmsai_ray.monitoring.delivery import ADDRESS_VARIABLE, AlertFile, Messenger, Webhook
from rmsai_ray.monitoring.drift import DriftLimits
from rmsai_ray.privacy import WITHHELD
from rmsai_ray.storage import is_s3, normalise_uri

NO_RESULT = ("date", "again", "demo")


@dataclass(frozen=True, kw_only=True)
class AlertBounds:
    """What is worth an alert, and who is told."""

    max_anomaly_rate: float = 0.5
    """Share of a night's windows that may be anomalous; the lower end of its interval must lie above."""
    max_normal_anomaly_rate: float = 0.15
    """The same for windows of events that the monitor reported as Normal."""
    max_quarantine_rate: float = 0.05
    """Share of a night's archives that may be quarantined."""
    max_model_age_days: float = 365.0
    """Age of the registered model; needs a registry."""
    expect: tuple[str, ...] = ("",)
    """Prefixes below the archives URI, e.g. one a site, of which each must bring something every night; ""
    is all of them together."""
    min_free_gib: float = 1.0
    """Free space of a local lake beyond what the night's archives will need."""
    resolve_after: int = 1
    """Nights in a row without the condition that end an alert."""
    webhook: str | None = None
    """http(s) address that gets each change as JSON. Default: RMSAI_WEBHOOK_URL in the environment, where an
    address belongs that is a secret itself. RMSAI_WEBHOOK_SECRET there becomes the header Authorization:
    Bearer …"""
    file: str | None = None
    """Local file that gets each change as a line of JSON."""

    def messengers(self) -> list[Messenger]:
        """Whom to tell."""
        found: list[Messenger] = []
        if url := self.webhook or os.environ.get(ADDRESS_VARIABLE):
            found.append(Webhook(url=url))
        if self.file:
            found.append(AlertFile(path=Path(self.file)))
        return found


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """When a model is trained further on recent normal windows, and when its child takes over."""

    mode: Literal["off", "dry", "on"] = "off"
    """dry says what would be done. on trains, compares, and promotes what is better."""
    on_drift: bool = True
    """A drift of scores, errors, decisions or embeddings starts it."""
    after_days: float | None = None
    """An older model starts it."""
    after_patients: int | None = None
    """So many new patients since the last time start it."""
    every_days: int = 30
    """At most one in so many days."""
    nights: int = 30
    """Rows of so many nights take part; with a drift as the reason only those of this one."""
    min_patients: int = 30
    """Fewer patients who are new to the model train nothing."""
    held_out_share: float = 0.34
    """Of those patients, who train neither model and decide between them."""
    work: str | None = None
    """Local folder for checkpoints. Default: nights/ of a local lake."""
    epochs: int = 20
    """At most so many passes."""
    learning_rate: float = 2e-4
    """Of AdamW."""
    freeze: tuple[str, ...] = ()
    """Parameters that stay as they are: encoder, decoder, head …"""
    workers: int = 1
    """Processes that train together."""
    gpu: bool = False
    """Each has a GPU."""

    def __post_init__(self) -> None:
        if not 0 < self.held_out_share < 1:
            raise ConfigError("held_out_share", self.held_out_share, "is no share", "Try 0.34.")
        for name in ("every_days", "nights", "min_patients"):
            if getattr(self, name) < 1:
                raise ConfigError(name, getattr(self, name), "must be at least 1", "Choose a larger one.")


@dataclass(frozen=True, kw_only=True)
class NightlyConfig:
    """Everything that a lake needs every night: new archives, detectors, drift, alerts, upkeep, a report."""

    archives: str
    """Where the archives are: a folder or s3://bucket/prefix."""
    lake: str
    """Where the tables go: a folder or s3://bucket/prefix."""
    date: dt.date | None = None
    """The day that the night is of: all that was modified on it (UTC) or earlier. Default: yesterday."""
    catch_up: int = 7
    """Missed nights that are done first, each for itself; earlier ones count to the first of these."""
    again: bool = False
    """Do the night of --date again, though it is finished."""
    model: str | None = None
    """As in jobs/backfill.py; with a registry NAME@champion, which each night resolves anew."""
    registry: str | None = None
    """Where registered models are."""
    detectors: str | None = None
    """As in jobs/backfill.py."""
    refit_detectors: bool = False
    """Fit detectors anew on the lake's normal windows, and register them as NAME-detectors@challenger; a
    person promotes them, since the whole lake is scored anew then."""
    leads: tuple[str, ...] = ()
    """Leads to encode; none named means all seven."""
    threshold_profile: str = "calibrated"
    """As in jobs/backfill.py."""
    prefix: str = ""
    """Only archives whose path below the archives URI starts so."""
    pseudonymise: bool = False
    """As in jobs/backfill.py."""
    num_encoders: int | None = None
    """Encoder actors. Default: one per core, or one per GPU share."""
    num_gpus: float = 0.0
    """GPUs per encoder, 0 for CPU."""
    max_reject_fraction: float = 0.05
    """Largest share of all listed archives that may be quarantined before the exit code is 3."""
    reference: str | None = None
    """Reference for the drift check, from jobs/drift.py fit-reference. Default: the lake's own."""
    baseline_patients: int = 30
    """A lake without a reference makes one of its first nights, as soon as they have so many patients."""
    drift: DriftLimits = field(default_factory=DriftLimits)
    alerts: AlertBounds = field(default_factory=AlertBounds)
    retraining: Retraining = field(default_factory=Retraining)
    maintenance: bool = True
    """Compact the lake and keep its index up to date."""
    keep_versions_days: float = 7.0
    """As in jobs/maintain.py."""
    archive_older_than_months: int | None = None
    """As in jobs/maintain.py."""
    demo: bool = False
    """Three days of simulated archives, one night after the other; on the third a new amplifier."""

    def __post_init__(self) -> None:
        self.alerts.messengers()  # whether their addresses are some
        if self.catch_up < 1:
            raise ConfigError("catch_up", self.catch_up, "does no night at all", "Give at least 1.")
        if self.refit_detectors and not self.name:
            raise ConfigError("refit_detectors", True, "needs a registry", "Give --registry and --model.")
        if self.retraining.mode == "off":
            return
        if not self.name:
            fix = "Register it: rmsai models register; then give --registry and --model NAME@champion."
            raise ConfigError("retraining", self.retraining.mode, "needs a registered model", fix)
        if self.pseudonymise:
            rule = "would read patients' names from the archives, which the lake does not know"
            raise ConfigError("retraining", self.retraining.mode, rule, "Leave one of the two out.")
        if is_s3(normalise_uri(self.lake)) and not self.retraining.work:
            fix = "Give --retraining.work FOLDER."
            raise ConfigError("retraining", self.retraining.mode, "needs a local folder", fix)

    @property
    def name(self) -> str | None:
        """Of the registered model."""
        return self.model.partition("@")[0] if self.registry and self.model else None

    @property
    def work(self) -> str:
        """Local folder for what is trained."""
        return self.retraining.work or f"{normalise_uri(self.lake)}/nights"

    def of_backfill(self, until: dt.date) -> BackfillConfig:
        """The backfill of one night."""
        same = (
            "archives",
            "lake",
            "model",
            "registry",
            "detectors",
            "leads",
            "threshold_profile",
            "prefix",
            "pseudonymise",
            "num_encoders",
            "num_gpus",
            "max_reject_fraction",
        )
        return BackfillConfig(until=until, **{name: getattr(self, name) for name in same})

    def result_options(self) -> dict[str, Any]:
        """For the run's identity."""
        return {name: value for name, value in asdict(self).items() if name not in NO_RESULT}

    def recorded(self, day: dt.date) -> dict[str, Any]:
        """For the run record: without the webhook's path, which may be a secret, and where names are to stay
        outside, without the places of the archives."""
        found = asdict(self) | {"date": day}
        if self.alerts.webhook:
            found["alerts"]["webhook"] = urlsplit(self.alerts.webhook).hostname
        if self.pseudonymise:
            found |= {"archives": WITHHELD, "prefix": WITHHELD}
            found["alerts"]["expect"] = WITHHELD
        return found
