"""From held-out normal scores to thresholds for a requested false-alarm rate, and the rate they realise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmsai_ray.errors import ConfigError

FloatArray = npt.NDArray[np.float64]

ANY_LEAD = "*"
"""In a table by lead: every lead that the table does not name."""

GRID: tuple[float, ...] = tuple(
    (np.r_[500:900:50, 900:980:5, 980:1000] / 1000).tolist()  # finer where thresholds lie
)
"""Probabilities at which the quantiles of a calibration are kept: 0.5 to 0.999."""
FINEST_RATE, COARSEST_RATE = round(1 - GRID[-1], 4), 1 - GRID[0]
FEWEST_WINDOWS = 100
"""Of a lead's own; with fewer it takes the quantiles of all leads together."""
INTERVAL = (0.025, 0.975)


@dataclass(frozen=True, kw_only=True)
class RealisedRate:
    """How many normal windows of unseen patients a threshold takes for anomalies."""

    lead: str
    """A lead, or ``*``: all leads together, each at its own threshold."""
    threshold: float | None
    """None for ``*`` where the leads' thresholds differ."""
    num_patients: int
    num_windows: int
    rate: float
    """Share of the windows above the threshold."""
    low: float
    high: float
    """95 % interval of ``rate`` over patients."""
    patient_rate: float
    """Mean over patients of their own shares: each patient counts alike."""


def normal_quantiles(
    scores_N: npt.ArrayLike, leads_N: npt.ArrayLike, patients_N: npt.ArrayLike | None = None
) -> dict[str, list[float]]:
    """Quantiles of the scores of normal windows at :data:`GRID`, by lead and for all leads together (``*``).

    Each patient counts alike where ``patients_N`` is given: measured on simulated patients (5 to 100 of them,
    unequal numbers of windows) that came nearer to the requested rate on new patients, at every rate. A lead
    with fewer than :data:`FEWEST_WINDOWS` windows has no entry of its own.
    """
    score_N, lead_N = np.asarray(scores_N, np.float64), np.asarray(leads_N, np.str_)
    patient_N = None if patients_N is None else np.asarray(patients_N, np.str_)
    found = {}
    for lead in (ANY_LEAD, *np.unique(lead_N)):
        of_lead = np.flatnonzero((lead_N == lead) | (lead == ANY_LEAD))
        if lead == ANY_LEAD or len(of_lead) >= FEWEST_WINDOWS:
            weight = np.ones(len(of_lead)) if patient_N is None else patient_weights(patient_N[of_lead])
            found[str(lead)] = weighted_quantiles(score_N[of_lead], weight, GRID).tolist()
    return found


def weighted_quantiles(
    score_N: FloatArray, weight_N: FloatArray, probabilities: Sequence[float]
) -> FloatArray:
    """Quantiles whose probability of being exceeded by one more score is as asked, linearly interpolated.

    The k-th of n equally weighted scores stands for k / (n + 1), as in conformal prediction, so that few
    scores give higher thresholds; beyond the largest score its own value.

    Raises:
        ValueError: no scores, or one that is not finite.
    """
    if not len(score_N) or not np.isfinite(score_N).all():
        raise ValueError("quantiles need scores, all of them finite")
    order = np.argsort(score_N, kind="stable")
    share_N = np.cumsum(weight_N[order]) / weight_N.sum()
    return np.interp(probabilities, share_N * len(score_N) / (len(score_N) + 1), score_N[order])


def patient_weights(patients_N: npt.ArrayLike) -> FloatArray:
    """One weight per window, so that the windows of every patient weigh 1 together."""
    _, place_N, count_P = np.unique(np.asarray(patients_N), return_inverse=True, return_counts=True)
    return 1.0 / count_P[place_N]


def thresholds_at(quantiles: Mapping[str, Sequence[float]], false_alarm_rate: float) -> dict[str, float]:
    """The threshold by lead that a share ``false_alarm_rate`` of the calibration's normals exceeds.

    Args:
        quantiles: by lead, one value per probability of :data:`GRID`; between them linear interpolation.
        false_alarm_rate: 0.001 to 0.5.

    Raises:
        ConfigError: the rate lies outside of the grid, or the values do not fit it.
    """
    if not FINEST_RATE <= round(false_alarm_rate, 6) <= COARSEST_RATE:
        raise ConfigError(
            "false_alarm_rate",
            false_alarm_rate,
            "cannot be read off the calibration",
            f"Give a rate from {FINEST_RATE:g} to {COARSEST_RATE:g}, e.g. 0.05 for one normal window in 20.",
        )
    for lead, values in quantiles.items():
        if len(values) != len(GRID):
            rule = f"has {len(values)} quantiles of lead {lead}, and {len(GRID)} are expected"
            raise ConfigError("calibration", lead, rule, "Fit the detectors again with this version.")
    return {lead: float(np.interp(1 - false_alarm_rate, GRID, values)) for lead, values in quantiles.items()}


def threshold_interval(
    score_N: FloatArray, patients_N: npt.ArrayLike, false_alarm_rate: float, *, seed: int, num_resamples: int
) -> tuple[float, float]:
    """95 % interval over patients of the patient-weighted threshold: how far few patients can be trusted."""
    patients, place_N = np.unique(np.asarray(patients_N), return_inverse=True)
    weight_N = patient_weights(place_N)
    found = []
    for times_P in _resamples(len(patients), seed, num_resamples):
        drawn = times_P[place_N] > 0
        weight = (weight_N * times_P[place_N])[drawn]
        found.append(weighted_quantiles(score_N[drawn], weight, [1 - false_alarm_rate])[0])
    low, high = np.quantile(found, INTERVAL)
    return float(low), float(high)


def realised_rates(
    scores_N: npt.ArrayLike,
    leads_N: npt.ArrayLike,
    patients_N: npt.ArrayLike,
    is_normal_N: npt.ArrayLike,
    thresholds_by_lead: Mapping[str, float],
    *,
    seed: int,
    num_resamples: int,
) -> list[RealisedRate]:
    """The false-alarm rate of thresholds on the normal windows among N, for all leads (``*``) and by lead.

    The interval comes from resampling patients with replacement. Where no window alarms, or all do, that
    sees no spread, and the rule of three over patients bounds the rate. Of a single patient nothing can be
    said: 0 to 1.

    Args:
        scores_N: of patients that neither detectors nor thresholds have seen; compared as float32.
        leads_N: names of leads.
        patients_N: names of patients.
        is_normal_N: whether the window is known to be normal; the others are left out.
        thresholds_by_lead: threshold by lead; ``*`` holds for leads that it does not name.
        seed: of the resampling.
        num_resamples: 1000 give a stable second digit.

    Raises:
        ConfigError: a lead has no threshold.
        ValueError: a score is not a number.
    """
    keep_N = np.asarray(is_normal_N, np.bool_)
    score_N = np.asarray(scores_N, np.float32)[keep_N]
    lead_N, patient_N = np.asarray(leads_N, np.str_)[keep_N], np.asarray(patients_N, np.str_)[keep_N]
    if np.isnan(score_N).any():
        raise ValueError("a normal window has no score")
    leads = [str(lead) for lead in np.unique(lead_N)]
    thresholds = {lead: _threshold_of(lead, thresholds_by_lead) for lead in leads}
    is_alarm_N = score_N > np.array([thresholds[lead] for lead in lead_N.tolist()], np.float32)
    common = next(iter(thresholds.values())) if len(set(thresholds.values())) == 1 else None
    rows = [(ANY_LEAD, common, np.ones(len(lead_N), np.bool_))] if leads else []
    rows += [(lead, thresholds[lead], lead_N == lead) for lead in leads]
    return [
        _realised(lead, threshold, is_alarm_N[of_lead], patient_N[of_lead], seed, num_resamples)
        for lead, threshold, of_lead in rows
    ]


def _threshold_of(lead: str, thresholds: Mapping[str, float]) -> float:
    threshold = thresholds.get(lead, thresholds.get(ANY_LEAD))
    if threshold is None:
        raise ConfigError(
            "leads", lead, "has no threshold", f"There are thresholds for {', '.join(sorted(thresholds))}."
        )
    return threshold


def _realised(
    lead: str,
    threshold: float | None,
    is_alarm_N: npt.NDArray[np.bool_],
    patient_N: npt.NDArray[np.str_],
    seed: int,
    num_resamples: int,
) -> RealisedRate:
    patients, place_N = np.unique(patient_N, return_inverse=True)
    windows_P = np.bincount(place_N, minlength=len(patients)).astype(np.float64)
    alarms_P = np.bincount(place_N[is_alarm_N], minlength=len(patients)).astype(np.float64)
    low, high = _interval(alarms_P, windows_P, seed, num_resamples)
    return RealisedRate(
        lead=lead,
        threshold=threshold,
        num_patients=len(patients),
        num_windows=len(is_alarm_N),
        rate=float(is_alarm_N.mean()),
        low=low,
        high=high,
        patient_rate=float((alarms_P / windows_P).mean()),
    )


def _interval(
    alarms_P: FloatArray, windows_P: FloatArray, seed: int, num_resamples: int
) -> tuple[float, float]:
    rule_of_three = min(1.0, 3 / len(windows_P))
    if len(windows_P) < 2:
        return 0.0, 1.0
    if not alarms_P.any():
        return 0.0, rule_of_three
    if (alarms_P == windows_P).all():
        return 1 - rule_of_three, 1.0
    rates = [
        float(times_P @ alarms_P / (times_P @ windows_P))
        for times_P in _resamples(len(windows_P), seed, num_resamples)
    ]
    low, high = np.quantile(rates, INTERVAL)
    return float(low), float(high)


def _resamples(num_patients: int, seed: int, num_resamples: int) -> Iterator[FloatArray]:
    """How often each patient is drawn, one array (P,) per resample."""
    rng = np.random.default_rng(seed)
    for _ in range(num_resamples):
        drawn = rng.integers(num_patients, size=num_patients)
        yield np.bincount(drawn, minlength=num_patients).astype(np.float64)
