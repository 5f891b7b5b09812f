"""Protocols: what is asked of a model, of which patients and by which score, decided beforehand."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from rmsai_ray.errors import ConfigError
from rmsai_ray.evaluation.guards import check_metrics

PACKAGED = Path(__file__).parent / "protocols"

NETWORK_KEYS = ("family", "embedding_dim", "epochs", "sampling_rate_hz", "architecture")

Kind = Literal["windows", "conditions", "beats", "single-beats"]
Normality = Literal["annotations", "scp"]
SplitBy = Literal["patient-folds", "stratification-folds", "patients"]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which patients fit, calibrate and test. No patient is in two of them."""

    by: SplitBy
    """``patient-folds``: every patient is tested once, by what was fitted on the others; ``patients``: one
    division by shares; ``stratification-folds``: those that the recordings name."""
    folds: int = 4
    validation_share: float = 0.2
    """Of the patients that do not test."""
    test_share: float = 0.5
    train_folds: tuple[int, ...] = ()
    validation_folds: tuple[int, ...] = ()
    test_folds: tuple[int, ...] = ()
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One question, and everything that decides its answer but model and data."""

    name: str
    kind: Kind
    question: str
    declared: str
    """The score that answers it, named beforehand; a name in ``sets`` or a detector of one."""
    sets: Mapping[str, tuple[str, ...]]
    """Detectors by the name of the ensemble that they make."""
    split: Split
    waveform: str | None = None
    """The declared score among those that do not look at rate or rhythm."""
    reconstruction: str | None = None
    """The declared reconstruction error."""
    compared_with: str = "rr_irregularity"
    """The baseline that the declared score has to beat."""
    sealed: bool = True
    """Whether the part that is scored is a test part, to be used once; false for development patients."""
    normality: Normality = "annotations"
    """What makes a moment normal: reported condition and annotations, or PTB-XL's superclass NORM alone."""
    combine: Literal["mean", "max"] = "mean"
    """How the scores of a moment's leads become one."""
    leads: tuple[str, ...] = ()
    """Scored are only windows of these; empty for all. Patients are divided whatever their leads."""
    left_out_records: tuple[str, ...] = ()
    """Names of recordings that take no part."""
    unscored_records: tuple[str, ...] = ()
    """Names of recordings that are divided among the rounds like others, but not tested."""
    false_alarm_rates: tuple[float, ...] = (0.01, 0.05, 0.1)
    metrics: tuple[str, ...] = ("auroc", "auprc", "event_sensitivity", "false_alarms_per_hour")
    shift_stability: bool = False
    probes: tuple[str, ...] = ()
    """Linear probes on frozen embeddings: ``superclasses``, ``rhythms``."""
    positive_classes: Mapping[str, str] = field(default_factory=dict)
    """Beat symbols by the class that they make, for beats."""
    normal_symbols: str = "NLRej"
    """Symbols of normal beats."""
    circular: Mapping[str, str] = field(default_factory=dict)
    """Why a score says nothing here, by score: the label was made from what it looks at."""
    network: Mapping[str, Any] = field(default_factory=dict)
    """For single beats, which are too short for the default network: family, embedding_dim, epochs,
    sampling_rate_hz and the family's ``architecture``."""
    masked_vitals: tuple[str, ...] = ()
    """Vital signs that define the labels; results with vital signs are repeated without them."""

    def __post_init__(self) -> None:
        check_metrics(self.metrics)
        missing = [key for key in NETWORK_KEYS if key not in self.network]
        if self.kind == "single-beats" and missing:
            raise ConfigError("network", dict(self.network), f"lacks {', '.join(missing)}", "Add them.")
        known = sorted({*self.sets, *(name for members in self.sets.values() for name in members)})
        for role in ("declared", "waveform", "reconstruction"):
            name = getattr(self, role)
            if name is not None and self.sets and name not in known:
                raise ConfigError(
                    f"protocol {self.name}: {role}",
                    name,
                    "is no score of its sets",
                    f"Known: {sorted(known)}.",
                )


def load_protocol(name_or_path: str) -> Protocol:
    """A packaged protocol by name, or a TOML file.

    Raises:
        ConfigError: there is none, or it does not make sense.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = PACKAGED / f"{name_or_path}.toml"
    if not path.is_file():
        raise ConfigError(
            "protocol",
            name_or_path,
            "is neither a TOML file nor a packaged protocol",
            f"Packaged: {', '.join(packaged_protocols())}.",
        )
    try:
        values = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("protocol", name_or_path, f"is no TOML: {error}", "Correct the file.") from error
    return parse_protocol(values)


def packaged_protocols() -> list[str]:
    """Names of the protocols that come with the package."""
    return sorted(path.stem for path in PACKAGED.glob("*.toml"))


def parse_protocol(values: Mapping[str, Any]) -> Protocol:
    """From the tables of a TOML file.

    Raises:
        ConfigError: a key is missing, foreign or of a value that is not allowed.
    """
    split = _checked(Split, values.get("split", {}), "split")
    top = {name: value for name, value in values.items() if name != "split"}
    sets = {name: tuple(members) for name, members in top.get("sets", {}).items()}
    protocol: Protocol = _checked(Protocol, {**top, "sets": sets, "split": split}, "protocol")
    for name, value, allowed in (
        ("kind", protocol.kind, get_args(Kind)),
        ("normality", protocol.normality, get_args(Normality)),
        ("combine", protocol.combine, ("mean", "max")),
        ("split.by", protocol.split.by, get_args(SplitBy)),
    ):
        if value not in allowed:
            raise ConfigError(f"protocol {name}", value, "is not known", f"Choose from {', '.join(allowed)}.")
    return protocol


def _checked(made: type[Any], values: Mapping[str, Any], where: str) -> Any:
    foreign = sorted(set(values) - {item.name for item in fields(made)})
    if foreign:
        raise ConfigError(where, ", ".join(foreign), "is no key of a protocol", "Remove or correct it.")
    lists = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    try:
        return made(**lists)
    except TypeError as error:
        raise ConfigError(where, dict(values), f"is incomplete: {error}", "Add what is missing.") from error
