"""What an operator can ask of a backfill."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Literal

from rmsai_ray.archives.limits import MEBIBYTE, Limits
from rmsai_ray.errors import ConfigError
from rmsai_ray.privacy import WITHHELD
from rmsai_ray.signals.leads import select_leads

_NAMES_NOBODY = """
    lake model registry profile leads threshold_profile false_alarm_rate detectors detector verdict_rule
    validation tail pseudonymise dry_run validate_only watch max_reject_fraction retry_quarantined attempts
    max_archive_bytes archive_memory_mib archive_seconds unit_bytes num_encoders num_gpus batch_windows demo
    settle_s min_free_bytes
"""
NAMES_NOBODY = frozenset(_NAMES_NOBODY.split())
"""Options that a run's record keeps beside pseudonyms. The others name archives, months or days."""


@dataclass(frozen=True, kw_only=True)
class BackfillConfig:
    """Reads archives, encodes and scores every window, and lands the results in a lake, each archive once."""

    archives: str
    """Where the archives are: a folder, s3://bucket/prefix, or one .h5 file."""
    lake: str
    """Where the tables go: a folder or s3://bucket/prefix."""
    model: str | None = None
    """A packaged model's name, a checkpoint folder, or an upstream checkpoint. Default: the profile's. With
    a registry: NAME@ALIAS, NAME@VERSION, or NAME for its champion."""
    registry: str | None = None
    """Where registered models and detectors are: a folder or s3://bucket/prefix."""
    profile: str | None = None
    """Window profile: framed-2400x64 (default), seed-2400x64 or rmsai-140x128."""
    leads: tuple[str, ...] = ()
    """Leads to encode; none named means all seven."""
    threshold_profile: str = "calibrated"
    """calibrated (the model's own validation normals), seed (the documents' numbers), another by name, one of
    the lake's own (adaptive, adaptive@3), or a .json file."""
    false_alarm_rate: float | None = None
    """Share of normal windows that calibrated thresholds may take for anomalies. Default: 0.05."""
    detectors: str | None = None
    """Fitted detectors: a folder, packaged (the model's own), none, or with a registry NAME@ALIAS. Default:
    the model's own, where it has some."""
    detector: str | None = None
    """What makes the anomaly score. Default: ensemble where detectors are fitted; otherwise, and with the
    thresholds seed and upstream-2025, reconstruction_error."""
    verdict_rule: Literal["severity", "max", "majority90"] = "severity"
    """How the windows of an event become its verdict."""
    validation: Literal["lenient", "strict"] = "lenient"
    """lenient reads every known variant; strict refuses what upstream's own validator refuses."""
    tail: bool = True
    """One more window aligned to the signal's end, so that every sample is covered."""
    pseudonymise: bool = False
    """Keep patients' names outside: ids become keyed hashes, dates shift by patient, free text is dropped.
    The key is RMSAI_PSEUDONYM_KEY of every node's environment, 32 random bytes as hex digits or base64."""

    prefix: str = ""
    """Only archives whose path below the archives URI starts so."""
    period: str = ""
    """Only archives whose name carries this month, YYYY-MM."""
    since: date | None = None
    """Only archives modified on this day (UTC) or later."""
    until: date | None = None
    """Only archives modified on this day (UTC) or earlier."""

    dry_run: bool = False
    """Print what to expect (requests, bytes, units, time), from a part of the work that is done and thrown
    away, and stop."""
    validate_only: bool = False
    """Print one line per archive (ok, degraded or fatal, with the reasons) and stop."""
    watch: float | None = None
    """Look for new archives again after so many seconds, until stopped."""
    settle_s: float | None = None
    """Leave archives that were modified less than so many seconds ago: somebody may still write them.
    Default: 2 with --watch, else 0."""
    max_reject_fraction: float = 0.05
    """Largest share of the listed archives that may be quarantined before the exit code is 3."""
    retry_quarantined: bool = False
    """Try archives again that an earlier run of the same options quarantined."""
    attempts: int = 3
    """Reads of one object, each with its own retries and growing pauses, before it is quarantined."""
    max_archive_bytes: int = 256 * MEBIBYTE
    """Larger objects are quarantined unread."""
    archive_memory_mib: int = 256
    """Memory that reading one archive may need; more, and it is quarantined."""
    archive_seconds: float = 5.0
    """Processor time that reading one archive may need; more, and it is quarantined."""

    min_free_bytes: int = 16 * MEBIBYTE
    """Stop before the disk of a local lake has less left, and do not begin what will not fit; 0: never."""

    unit_bytes: int | None = None
    """Archive bytes per unit of work. Default: 2 to 256 MiB, smaller towards the end of the run."""
    num_encoders: int | None = None
    """Encoder actors; 1 works in sequence. Default: one per core, or one per GPU share."""
    num_gpus: float = 0.0
    """GPUs per encoder, 0 for CPU."""
    batch_windows: int | None = None
    """Most windows per forward pass; changes no result. Default: chosen from caches, or a GPU's memory."""
    demo: bool = False
    """First fill the archives folder with five minutes of real ECG and simulated archives, if it is empty."""

    def __post_init__(self) -> None:
        select_leads(self.leads)
        if not 0 <= self.max_reject_fraction <= 1:
            raise ConfigError(
                "max_reject_fraction", self.max_reject_fraction, "is no fraction", "Give a value from 0 to 1."
            )
        if self.period and not re.fullmatch(r"\d{4}-\d{2}", self.period):
            raise ConfigError("period", self.period, "is no month", "Write it as YYYY-MM.")
        for name in ("attempts", "max_archive_bytes", "batch_windows", "unit_bytes", "watch", "num_encoders"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(name, value, "must be positive", "Give a larger value, or leave it out.")
        if self.registry is not None and self.model is None and self.detectors is None:
            raise ConfigError(
                "registry", self.registry, "was given without a model", "Give --model NAME@ALIAS."
            )
        if self.min_free_bytes < 0:
            raise ConfigError(
                "min_free_bytes", self.min_free_bytes, "must not be negative", "Give 0 or more."
            )
        if self.settle_s is not None and self.settle_s < 0:
            raise ConfigError("settle_s", self.settle_s, "must not be negative", "Give 0 or more.")
        _ = self.limits  # raises where one is none
        if self.num_gpus < 0:
            raise ConfigError("num_gpus", self.num_gpus, "must not be negative", "Give 0 for CPU.")

    @property
    def limits(self) -> Limits:
        """Of one archive."""
        return Limits(memory_bytes=self.archive_memory_mib * MEBIBYTE, seconds=self.archive_seconds)

    def recorded(self) -> dict[str, Any]:
        """The options as the run's record has them; beside pseudonyms none that names archives or days."""
        shown = asdict(self)
        if not self.pseudonymise:
            return shown
        return {
            name: value if name in NAMES_NOBODY or not value else WITHHELD for name, value in shown.items()
        }

    def result_options(
        self,
        model_id: str,
        threshold_version: str,
        detector: str,
        detector_set: str | None,
        pseudonyms: str | None = None,
    ) -> dict[str, Any]:
        """Every option that can change a row of the lake, as it was resolved; their hash names the run.

        ``pseudonyms`` is the fingerprint of their key; None for real names.
        """
        return {
            **({"pseudonyms": pseudonyms} if pseudonyms else {}),
            "model_id": model_id,
            "threshold_profile": self.threshold_profile,
            "threshold_version": threshold_version,
            "leads": list(select_leads(self.leads)),
            "detector": detector,
            "detector_set": detector_set,
            "verdict_rule": self.verdict_rule,
            "validation": self.validation,
            "tail": self.tail,
        }
