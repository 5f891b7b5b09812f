"""From what the steps of a night have said to findings, which become alerts."""

from __future__ import annotations

from typing import Any

from rmsai_ray.monitoring.alerts import Finding, Level, level_of
from rmsai_ray.nightly.config import AlertBounds
from rmsai_ray.nightly.figures import ALL, NORMAL
from rmsai_ray.nightly.state import Result

FEWEST_PATIENTS = 5
"""Below it a rate is not judged."""
GIB = 1 << 30


def findings_of(results: dict[str, Result], failed: dict[str, str], bounds: AlertBounds) -> list[Finding]:
    """Everything that was checked in a night.

    Args:
        results: of the steps that ended well.
        failed: step → error of those that did not.
        bounds: what is allowed.
    """
    found = [_failures(failed)]
    if "inventory" in results:
        found += _missing(results["inventory"], bounds)
        found += _disk(results["inventory"], bounds)
        found += _age(results["inventory"], bounds)
    if "backfill" in results:
        found += _rates(results["backfill"], bounds)
        found += _quarantine(results["backfill"], bounds)
    if "drift" in results:
        found += _drift(results["drift"])
    return found


def _failures(failed: dict[str, str]) -> Finding:
    detail = "; ".join(f"{step}: {error}" for step, error in failed.items()) or "all steps ended well"
    level: Level = "firing" if failed else "clear"
    return Finding(kind="failed_step", level=level, severity="critical", value=len(failed), detail=detail)


def _missing(inventory: Result, bounds: AlertBounds) -> list[Finding]:
    return [
        Finding(
            kind="missing_data",
            subject=prefix,
            level="clear" if num else "firing",
            value=num,
            bound=1,
            detail=f"{num} archives came below {prefix or 'the archives URI'}, and some were expected",
        )
        for prefix, num in inventory["arrived"].items()
        if prefix in bounds.expect
    ]


def _disk(inventory: Result, bounds: AlertBounds) -> list[Finding]:
    if inventory["free_bytes"] is None:
        return []
    need = inventory["need_bytes"] + bounds.min_free_gib * GIB
    free = inventory["free_bytes"]
    level: Level = "firing" if free < need else "clear" if free >= 1.25 * need else "between"
    return [
        Finding(
            kind="disk_space",
            level=level,
            severity="critical" if free < inventory["need_bytes"] else "warning",
            value=free / GIB,
            bound=need / GIB,
            detail=f"{free / GIB:.2f} GiB are free, and {need / GIB:.2f} GiB should be",
        )
    ]


def _age(inventory: Result, bounds: AlertBounds) -> list[Finding]:
    days = inventory["model_age_days"]
    if days is None:
        return []
    return [
        Finding(
            kind="model_age",
            subject=inventory["model_name"],
            level="firing" if days > bounds.max_model_age_days else "clear",
            value=days,
            bound=bounds.max_model_age_days,
            detail=f"{inventory['model_name']} was registered {days:.0f} days ago",
        )
    ]


def _rates(backfill: Result, bounds: AlertBounds) -> list[Finding]:
    limits = {ALL: bounds.max_anomaly_rate, NORMAL: bounds.max_normal_anomaly_rate}
    found = []
    for name, limit in limits.items():
        rate = backfill["figures"]["rates"].get(name)
        if not rate or rate["patients"] < FEWEST_PATIENTS:
            continue
        found.append(
            Finding(
                kind="anomaly_rate",
                subject=name,
                model_id=backfill["model_id"],
                level=level_of(rate["low"], fires_above=limit),
                value=rate["value"],
                bound=limit,
                detail=f"{rate['value']:.1%} ({rate['low']:.1%} to {rate['high']:.1%}) of the windows of "
                f"{'all events' if name == ALL else f'{name} events'} are anomalous",
            )
        )
    return found


def _quarantine(backfill: Result, bounds: AlertBounds) -> list[Finding]:
    counts: dict[str, int] = backfill["figures"]["archives"]
    total, num = sum(counts.values()), counts.get("quarantined", 0)
    if not total:
        return []
    reasons = ", ".join(
        f"{reason} {count}" for reason, count in backfill["figures"]["quarantine_reasons"].items()
    )
    return [
        Finding(
            kind="quarantine_rate",
            level=level_of(num / total, fires_above=bounds.max_quarantine_rate),
            value=num / total,
            bound=bounds.max_quarantine_rate,
            detail=f"{num} of {total} archives are quarantined{f': {reasons}' if reasons else ''}",
        )
    ]


def _drift(drift: Result) -> list[Finding]:
    report: dict[str, Any] = drift["report"]
    if report["status"] not in ("drift", "quiet"):
        return []
    is_drift = report["status"] == "drift"
    return [
        Finding(
            kind="drift",
            model_id=drift["model_id"],
            level="firing" if is_drift else "clear",
            severity="critical" if report["severity"] == "critical" else "warning",
            value=float(len(report["drifted"])),
            bound=0.0,
            detail=report["detail"],
        )
    ]
