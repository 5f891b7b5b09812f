"""Threshold profiles as data: the documents' numbers, and those that a checkpoint was calibrated to."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rmsai_ray.detection.calibration import ANY_LEAD, FINEST_RATE, thresholds_at
from rmsai_ray.errors import ConfigError
from rmsai_ray.ids import config_hash

LeadTable = Mapping[str, float]
Texts: TypeAlias = Sequence[str] | pa.Array
"""One text per window, among which few differ."""


ERROR_METRICS = ("mse", "worst_error")
"""Mean squares: a ratio of thresholds means the same on every scale, and none is below 0."""


@dataclass(frozen=True)
class ThresholdProfile:
    """Above which anomaly score a window is anomalous; each number by lead."""

    name: str
    version: str
    metric: str
    """What the score must be measured in: ``mse`` (normalised units), or the name of a detector."""
    base: LeadTable
    """The threshold that knows no label."""
    conditions: Mapping[str, LeadTable]
    """By condition class; a class that is absent takes the base."""
    status_by_condition: bool = False
    """Whether the reported condition's threshold decides ``anomaly_status``, as in the first document."""

    def __post_init__(self) -> None:
        for table in (self.base, *self.conditions.values()):
            for lead, threshold in table.items():
                if not math.isfinite(threshold) or (self.metric in ERROR_METRICS and threshold <= 0):
                    raise ConfigError(
                        f"threshold of lead {lead}",
                        threshold,
                        f"in profile {self.name!r} is not a {_kind(self.metric)}",
                        "Calibrate the model again, or choose another profile.",
                    )

    def lookup(
        self, leads: Texts, conditions: Texts
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(base_N, condition_N): each window's threshold without and with its reported condition.

        Raises:
            ConfigError: the profile has no threshold for a lead.
        """
        known_leads, lead_N = distinct(leads)
        known_conditions, condition_N = distinct(conditions)
        classes = [condition_class(condition) for condition in known_conditions]
        table = [[self.threshold(lead, name) for name in classes] for lead in known_leads]
        table_LC = np.array(table, np.float32).reshape(len(known_leads), len(classes))
        return self.of_class(leads, None), table_LC[lead_N, condition_N]

    def of_class(self, leads: Texts, name: str | None) -> npt.NDArray[np.float32]:
        """Each lead's threshold of one condition class, shape (N,); of the base for None.

        Raises:
            ConfigError: the profile has no threshold for a lead.
        """
        known, lead_N = distinct(leads)
        return np.array([self.threshold(lead, name) for lead in known], np.float32)[lead_N]

    def threshold(self, lead: str, name: str | None) -> float:
        """One lead's threshold of one condition class; of the base for None.

        Raises:
            ConfigError: the profile has no threshold for the lead.
        """
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


DEFAULT_FALSE_ALARM_RATE = 0.05


def resolve_profile(
    name: str,
    calibration: Mapping[str, Any] | None,
    *,
    detector: str = "reconstruction_error",
    quantiles: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    false_alarm_rate: float | None = None,
) -> ThresholdProfile:
    """The profile called ``name``, for the scores of ``detector``.

    Args:
        name: ``seed``, ``upstream-2025`` or ``calibrated``.
        calibration: the ``thresholds`` of a checkpoint, ``{"T_normal": {lead: error}, "percentile": 95, …}``:
            the percentile of held-out normal errors per lead. ``calibrated`` looks at it for
            ``reconstruction_error`` where there are no quantiles.
        detector: what the scores come from.
        quantiles: the ``calibration`` of a detector set: detector → lead → quantiles of normal scores.
        false_alarm_rate: share of normal windows that may be taken for anomalies; 0.05 where None. Only
            ``calibrated`` from quantiles can follow it.

    Raises:
        ConfigError: no profile of that name; ``calibrated`` for a detector without calibration; a profile for
            other scores; a rate that it cannot follow.
    """
    return check_metric(_find_profile(name, calibration, detector, quantiles, false_alarm_rate), detector)


def check_metric(profile: ThresholdProfile, detector: str) -> ThresholdProfile:
    """The profile, if its numbers are for the scores of ``detector``.

    Raises:
        ConfigError: they are not.
    """
    if profile.metric != metric_of(detector):
        raise ConfigError(
            "threshold_profile",
            profile.name,
            f"has thresholds for {profile.metric}, and {detector} gives {metric_of(detector)}",
            "Choose calibrated, or the detector that the profile was made for.",
        )
    return profile


def metric_of(detector: str) -> str:
    """What a detector's scores are measured in."""
    return "mse" if detector == "reconstruction_error" else detector


def _find_profile(
    name: str,
    calibration: Mapping[str, Any] | None,
    detector: str,
    quantiles: Mapping[str, Mapping[str, Sequence[float]]] | None,
    false_alarm_rate: float | None,
) -> ThresholdProfile:
    if name == CALIBRATED and quantiles is not None and detector in quantiles:
        rate = DEFAULT_FALSE_ALARM_RATE if false_alarm_rate is None else false_alarm_rate
        return calibrated_at(quantiles[detector], detector, rate)
    if name not in (*LITERAL_PROFILES, CALIBRATED):
        names = ", ".join([*LITERAL_PROFILES, CALIBRATED])
        raise ConfigError("threshold_profile", name, "is not a profile", f"Choose from {names}.")
    if false_alarm_rate is not None:
        raise ConfigError(
            "false_alarm_rate",
            false_alarm_rate,
            f"profile {name!r} has fixed thresholds here",
            "Leave the rate out, or choose calibrated and a fitted detector set.",
        )
    if name in LITERAL_PROFILES:
        return LITERAL_PROFILES[name]
    if detector != "reconstruction_error":
        known = ", ".join(sorted(quantiles or {})) or "none: fit detectors first"
        rule = f"is not calibrated for {detector}"
        raise ConfigError("threshold_profile", name, rule, f"Calibrated detectors: {known}.")
    if not calibration or not calibration.get("T_normal"):
        raise ConfigError(
            "threshold_profile",
            name,
            "the model brings no calibrated thresholds",
            f"Calibrate it, or choose from {', '.join(LITERAL_PROFILES)}.",
        )
    return _calibrated(calibration)


def calibrated_at(
    quantiles: Mapping[str, Sequence[float]], detector: str, false_alarm_rate: float
) -> ThresholdProfile:
    """Thresholds that ``false_alarm_rate`` of the held-out normals exceed, without and with a condition.

    The base, which knows no label, is the rate's own threshold, and so is that of a reported Normal. The
    thresholds of the other conditions are looser by the seed's ratios. Errors are multiplied by the ratio.
    Other scores have no zero to multiply from (a surprise is a logarithm): there the *rate* is divided by
    the ratio, 5 % : 3.6 % : 3.1 % : 2.1 % : 1.7 %. Where that is finer than the calibration, its finest
    rate stands.

    Raises:
        ConfigError: the calibration does not reach the rate.
    """
    base = thresholds_at(quantiles, false_alarm_rate)
    conditions = {
        name: _loosened(quantiles, detector, base, false_alarm_rate, ratio)
        for name, ratio in NORMAL_RATIOS.items()
    }
    content = config_hash({"detector": detector, "base": base, "conditions": conditions})
    return ThresholdProfile(
        name=CALIBRATED,
        version=f"far{100 * false_alarm_rate:g}-{content[:8]}",
        metric=metric_of(detector),
        base=base,
        conditions=conditions,
    )


def _loosened(
    quantiles: Mapping[str, Sequence[float]],
    detector: str,
    base: LeadTable,
    false_alarm_rate: float,
    ratio: float,
) -> LeadTable:
    if metric_of(detector) in ERROR_METRICS:
        return {lead: ratio * threshold for lead, threshold in base.items()}
    return thresholds_at(quantiles, max(FINEST_RATE, false_alarm_rate / ratio))


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


def _kind(metric: str) -> str:
    return "positive number" if metric in ERROR_METRICS else "finite number"


def distinct(texts: Texts) -> tuple[list[str], npt.NDArray[np.int32]]:
    """The texts that differ, and for each text which of these it is."""
    encoded = pa.array(texts, pa.string()).dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()


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
