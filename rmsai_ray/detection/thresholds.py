"""Threshold profiles as data: the documents' numbers, and those that a checkpoint was calibrated to."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from rmsai_ray.errors import ConfigError
from rmsai_ray.ids import config_hash

ANY_LEAD = "*"
"""In a table by lead: every lead that the table does not name."""

LeadTable = Mapping[str, float]


@dataclass(frozen=True)
class ThresholdProfile:
    """Above which anomaly score a window is anomalous; each number by lead."""

    name: str
    version: str
    metric: str
    """What the score must be measured in, e.g. ``mse`` (normalised units)."""
    base: LeadTable
    """The threshold that knows no label."""
    conditions: Mapping[str, LeadTable]
    """By condition class; a class that is absent takes the base."""
    status_by_condition: bool = False
    """Whether the reported condition's threshold decides ``anomaly_status``, as in the first document."""

    def __post_init__(self) -> None:
        for table in (self.base, *self.conditions.values()):
            for lead, threshold in table.items():
                if not 0 < threshold < math.inf:
                    raise ConfigError(
                        f"threshold of lead {lead}",
                        threshold,
                        f"in profile {self.name!r} is not a positive number",
                        "Calibrate the model again, or choose another profile.",
                    )

    def lookup(
        self, leads: Sequence[str], conditions: Sequence[str]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(base_N, condition_N): each window's threshold without and with its reported condition.

        Raises:
            ConfigError: the profile has no threshold for a lead.
        """
        base_N = self.of_class(leads, None)
        known: dict[tuple[str, str], float] = {}
        for pair in set(zip(leads, conditions, strict=True)):
            known[pair] = self._threshold(pair[0], condition_class(pair[1]))
        condition_N = [known[pair] for pair in zip(leads, conditions, strict=True)]
        return base_N, np.array(condition_N, dtype=np.float32)

    def of_class(self, leads: Sequence[str], name: str | None) -> npt.NDArray[np.float32]:
        """Each lead's threshold of one condition class, shape (N,); of the base for None.

        Raises:
            ConfigError: the profile has no threshold for a lead.
        """
        known = {lead: self._threshold(lead, name) for lead in set(leads)}
        return np.array([known[lead] for lead in leads], dtype=np.float32)

    def _threshold(self, lead: str, name: str | None) -> float:
        table = self.base if name is None else self.conditions.get(name, self.base)
        threshold = table.get(lead, table.get(ANY_LEAD))
        if threshold is None:
            raise ConfigError(
                "leads",
                lead,
                f"threshold profile {self.name!r} has no number for this lead",
                f"Choose from {', '.join(sorted(table))}, or a profile that holds for every lead: seed.",
            )
        return threshold


SEED = ThresholdProfile(
    name="seed",
    version="1",
    metric="mse",
    base={ANY_LEAD: 0.1},
    conditions={
        "Normal": {ANY_LEAD: 0.05},
        "Brady": {ANY_LEAD: 0.07},
        "Tachy": {ANY_LEAD: 0.08},
        "AF": {ANY_LEAD: 0.12},
        "VT": {ANY_LEAD: 0.15},
    },
    status_by_condition=True,
)
"""The first document's literal numbers, whatever the scale of the model's errors."""

UPSTREAM_2025 = ThresholdProfile(
    name="upstream-2025",
    version="1",
    metric="mse",
    base={ANY_LEAD: 0.75},
    conditions={"Normal": {ANY_LEAD: 0.75}, "AF": {ANY_LEAD: 0.95}, "VT": {ANY_LEAD: 1.1}},
)
"""The original processor's numbers of 2025, made for its own mixed units: for comparison only."""

LITERAL_PROFILES = {profile.name: profile for profile in (SEED, UPSTREAM_2025)}
CALIBRATED = "calibrated"

NORMAL_RATIOS = {"Normal": 1.0, "Brady": 1.4, "Tachy": 1.6, "AF": 2.4, "VT": 3.0}
"""The seed's thresholds over its Normal one: what they mean on any scale of errors."""
BASE_RATIO = 2.0


def resolve_profile(name: str, calibration: Mapping[str, Any] | None) -> ThresholdProfile:
    """The profile called ``name``.

    Args:
        name: ``seed``, ``upstream-2025`` or ``calibrated``.
        calibration: the ``thresholds`` of a checkpoint, ``{"T_normal": {lead: error}, "percentile": 95, …}``:
            the percentile of held-out normal errors per lead. Only ``calibrated`` looks at it.

    Raises:
        ConfigError: no profile of that name, or ``calibrated`` for a model without calibration.
    """
    if name in LITERAL_PROFILES:
        return LITERAL_PROFILES[name]
    if name != CALIBRATED:
        names = ", ".join([*LITERAL_PROFILES, CALIBRATED])
        raise ConfigError("threshold_profile", name, "is not a profile", f"Choose from {names}.")
    if not calibration or not calibration.get("T_normal"):
        raise ConfigError(
            "threshold_profile",
            name,
            "the model brings no calibrated thresholds",
            f"Calibrate it, or choose from {', '.join(LITERAL_PROFILES)}.",
        )
    return _calibrated(calibration)


def _calibrated(calibration: Mapping[str, Any]) -> ThresholdProfile:
    normal = {lead: float(error) for lead, error in calibration["T_normal"].items()}
    metric = str(calibration.get("metric", "mse"))
    ratios = {**NORMAL_RATIOS, "base": BASE_RATIO}
    content = config_hash({"T_normal": normal, "metric": metric, "ratios": ratios})
    return ThresholdProfile(
        name=CALIBRATED,
        version=f"p{calibration.get('percentile', 95):g}-{content[:8]}",
        metric=metric,
        base={lead: BASE_RATIO * error for lead, error in normal.items()},
        conditions={
            name: {lead: ratio * error for lead, error in normal.items()}
            for name, ratio in NORMAL_RATIOS.items()
        },
    )


CONDITION_PATTERNS = {
    "VT": re.compile(r"\bventricular[ _-]*tachy|\b(ns)?vt\b|\bv[ _-]?tach"),
    "AF": re.compile(r"\batrial[ _-]*fib|\ba[ _-]?fib\b|\baf\b"),
    "Tachy": re.compile(r"tachy|\bsvt\b"),
    "Brady": re.compile(r"brady"),
    "Normal": re.compile(r"\bnormal\b|\bsinus[ _-]*rhythm|\bnsr\b"),
}
"""By severity, the first that is found counts. Supraventricular tachycardia counts as a rate."""


@cache
def condition_class(condition: str) -> str | None:
    """Class of a reported condition: Normal, Brady, Tachy, AF or VT; None where the text names none of them.

    ``Atrial Fibrillation (PTB-XL)`` → ``AF``; ``Unknown`` and ``Auto-generated`` → None.
    """
    text = condition.lower()
    return next((name for name, pattern in CONDITION_PATTERNS.items() if pattern.search(text)), None)
