"""Whether recent rows of a lake look like the model's reference.

Shapes: P rows of patients (the reference's, then the recent ones), D deals.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from rmsai_ray.monitoring.features import BY_DETECTOR, EMBEDDING, FEATURES, Values
from rmsai_ray.monitoring.reference import Profiles, Reference, profile
from rmsai_ray.monitoring.statistics import (
    adjusted_p_values,
    deal_patients,
    energy_distances,
    histogram_distances,
)

NUM_DEALS = 9999
CHANCE_PERCENTILE = 95


@dataclass(frozen=True, kw_only=True)
class DriftLimits:
    """When a difference is a drift: it must be both unlikely by chance and large."""

    false_alarm_rate: float = 0.01
    """Chance of any drift alarm in one check where nothing has drifted, all features together."""
    min_psi: float = 0.2
    """Least population stability index of a drift; 0.1 to 0.2 is usually called moderate."""
    min_ks: float = 0.2
    """Or least Kolmogorov–Smirnov distance, 0 to 1."""
    min_energy: float = 0.1
    """Least energy distance of embeddings, 0 to 1."""
    min_patients: int = 5
    """Fewer recent patients, or patients of the reference, are not judged."""


@dataclass(frozen=True, kw_only=True)
class FeatureDrift:
    """One feature: how far, and how unlikely."""

    feature: str
    psi: float | None
    ks: float | None
    energy: float | None
    """Of embeddings; the other two are null then."""
    chance: float
    """PSI, or energy distance, that chance exceeds once in twenty times."""
    p_value: float
    """Of the more unlikely of PSI and KS, adjusted for all tests of the check."""
    is_drift: bool
    num_patients: int
    """Recent ones with such values."""


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """A check."""

    status: str
    """drift, quiet, or why nothing was judged: no_reference, too_few_patients."""
    severity: str
    """critical where scores, errors, decisions or embeddings drifted; warning for other features; none."""
    detail: str
    features: tuple[FeatureDrift, ...] = ()
    num_recent_patients: int = 0
    num_reference_patients: int = 0
    num_windows: int = 0
    reference: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """Feature → why it was not compared."""

    @property
    def drifted(self) -> list[str]:
        """Features that have drifted, the most unlikely first."""
        found = [feature for feature in self.features if feature.is_drift]
        return [
            one.feature for one in sorted(found, key=lambda one: (one.p_value, -(one.psi or one.energy or 0)))
        ]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self) | {"drifted": self.drifted}


OF_THE_MODEL = frozenset({*BY_DETECTOR, "reconstruction_error", "worst_error", EMBEDDING})


def check_drift(
    reference: Reference,
    recent: Values,
    limits: DriftLimits,
    *,
    seed: int = 0,
    num_deals: int = NUM_DEALS,
) -> DriftReport:
    """Compares recent rows with the reference, patient by patient."""
    counts: dict[str, Any] = {
        "num_recent_patients": len(recent.patients),
        "num_reference_patients": reference.num_patients,
        "num_windows": recent.num_windows,
        "reference": reference.facts,
    }
    few = min(len(recent.patients), reference.num_patients)
    if few < limits.min_patients:
        detail = f"{few} patients are fewer than the {limits.min_patients} that a comparison needs"
        return DriftReport(status="too_few_patients", severity="none", detail=detail, **counts)
    now = profile(recent, reference.edges, reference.model_id)
    features, left_out = _compare(reference, now, limits, seed, num_deals)
    report = DriftReport(
        status="quiet", severity="none", detail="", features=features, left_out=left_out, **counts
    )
    return _judged(report, limits)


def no_reference(detail: str) -> DriftReport:
    """The report where there is nothing to compare with."""
    return DriftReport(status="no_reference", severity="none", detail=detail)


def _judged(report: DriftReport, limits: DriftLimits) -> DriftReport:
    drifted = report.drifted
    if not drifted:
        return replace(report, detail=f"no feature of {len(report.features)} has drifted")
    severity = "critical" if OF_THE_MODEL & {*drifted} else "warning"
    detail = (
        f"{len(drifted)} of {len(report.features)} features have drifted: {', '.join(drifted)} "
        f"(false-alarm rate {limits.false_alarm_rate:g} for all together)"
    )
    return replace(report, status="drift", severity=severity, detail=detail)


def _compare(
    reference: Reference, recent: Profiles, limits: DriftLimits, seed: int, num_deals: int
) -> tuple[tuple[FeatureDrift, ...], dict[str, str]]:
    before = reference.profiles
    names = [*before.names, *recent.names]
    is_recent_P = np.arange(len(names)) >= len(before.names)
    dealt_DP = deal_patients(names, is_recent_P, num_deals=num_deals, seed=seed)
    left_out, tests, found = dict[str, str](), list[Any](), dict[str, dict[str, Any]]()
    for name in FEATURES:
        shares_PB = np.concatenate([before.shares[name], recent.shares[name]])
        known_P = np.isfinite(shares_PB[:, 0])
        fewest = min(known_P[is_recent_P].sum(), known_P[~is_recent_P].sum())
        if fewest < limits.min_patients:
            left_out[name] = f"{fewest} patients have it"
            continue
        if name in BY_DETECTOR and before.scored_by != recent.scored_by:
            left_out[name] = f"scored by {before.scored_by} in the reference, now by {recent.scored_by}"
            continue
        distances = histogram_distances(shares_PB, dealt_DP)
        found[name] = {
            "tests": (len(tests), len(tests) + 1),
            "psi": float(distances.psi_D[0]),
            "ks": float(distances.ks_D[0]),
            "energy": None,
            "chance": float(np.percentile(distances.psi_D[1:], CHANCE_PERCENTILE)),
            "num_patients": int(known_P[is_recent_P].sum()),
        }
        tests += [distances.psi_D, distances.ks_D]
    points_PE = np.concatenate([before.mean_embedding_PE, recent.mean_embedding_PE])
    energy_D = energy_distances(points_PE, dealt_DP)
    found[EMBEDDING] = {
        "tests": (len(tests),),
        "psi": None,
        "ks": None,
        "energy": float(energy_D[0]),
        "chance": float(np.percentile(energy_D[1:], CHANCE_PERCENTILE)),
        "num_patients": int(np.isfinite(recent.mean_embedding_PE[:, 0]).sum()),
    }
    _, adjusted_T = adjusted_p_values(np.stack([*tests, energy_D]))
    return tuple(_feature(name, values, adjusted_T, limits) for name, values in found.items()), left_out


def _feature(name: str, values: dict[str, Any], adjusted_T: Any, limits: DriftLimits) -> FeatureDrift:
    p_value = float(min(adjusted_T[test] for test in values.pop("tests")))
    is_large = (
        values["energy"] >= limits.min_energy
        if name == EMBEDDING
        else values["psi"] >= limits.min_psi or values["ks"] >= limits.min_ks
    )
    return FeatureDrift(
        feature=name,
        p_value=p_value,
        is_drift=bool(is_large and p_value <= limits.false_alarm_rate),
        **values,
    )
