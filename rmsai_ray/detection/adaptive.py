"""Thresholds that follow recent scores: the rules, on arrays. They never see what a threshold decided.

Each lead has a base and a threshold per condition class: the cells. A cell learns from windows that are not
chosen by any threshold: those that the monitor reported (and annotations, where there are some, do not
contradict), or, where nothing is reported, all of them. Methods, weights and bounds are those of the source
documents.
"""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from sklearn.mixture import GaussianMixture

from rmsai_ray.detection.thresholds import NORMAL_RATIOS, ThresholdProfile
from rmsai_ray.errors import ConfigError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

BASE, NORMAL = "base", "Normal"
WEIGHTS = {"percentile": 0.2, "youden": 0.3, "max_f1": 0.3, "gmm": 0.2}
"""Of the methods; renormalised over those that apply."""
BOUNDS = {
    BASE: (0.6, 1.0),
    "Normal": (0.6, 1.0),
    "Brady": (0.7, 1.0),
    "Tachy": (0.7, 1.0),
    "AF": (0.75, 1.05),
    "VT": (0.85, 1.15),
}
"""Of a threshold, in multiples of the one that adaptation started from. The base has those of Normal."""
CONDITION_QUANTILE = 0.75
"""Of the scores of windows that the monitor reported as a condition."""
FEWEST_SAMPLES = 20
FEWEST_OF_CLASS = 10
"""Labelled windows of either kind that Youden's index and F1 need."""
LEAST_CONFIDENCE = 0.6
LARGEST_STEP = 0.5
SMALLEST_STEP = 0.02
SMOOTHING = ((0.9, 0.7), (0.75, 0.5), (0.0, 0.3))
"""(confidence from, share of the way to the target)."""
CONFIDENCE_OF_ONE_METHOD = 0.5
"""It has nobody to agree with."""


@dataclass(frozen=True, kw_only=True)
class Recent:
    """What adaptation may look at: N windows, without any decision about them."""

    score_N: FloatArray
    lead_N: npt.NDArray[np.str_]
    class_N: npt.NDArray[np.str_]
    """Condition class of the report; "" where there is none."""
    is_normal_N: BoolArray
    """Reported normal, and no annotation says otherwise."""
    is_abnormal_N: BoolArray
    """Reported or annotated as something else; windows that are neither are unlabelled."""


@dataclass(frozen=True, kw_only=True)
class CellAudit:
    """What adaptation made of one threshold, and why: one row of the audit table."""

    lead: str
    condition: str
    """``base``, or a condition class."""
    samples: str
    """Where they come from: reported, or unlabelled."""
    num_samples: int
    num_normal: int
    """Labelled windows that Youden's index and F1 could use, and so the next."""
    num_abnormal: int
    methods: Mapping[str, float]
    """Threshold by method; a method that does not apply is absent."""
    target: float | None
    confidence: float | None
    old_threshold: float
    new_threshold: float
    """What the rules arrived at; in force only where applied."""
    applied: bool
    reason: str


def adapt_profile(
    profile: ThresholdProfile, anchor: ThresholdProfile, recent: Recent, *, false_alarm_rate: float
) -> tuple[ThresholdProfile, list[CellAudit]]:
    """The profile after one round, under its old name and version, and one audit row per cell.

    Args:
        profile: in force now.
        anchor: what adaptation started from; the bounds refer to it, so that rounds do not add up.
        recent: scores in the profile's metric.
        false_alarm_rate: that the percentile of normal windows aims at.

    Raises:
        ConfigError: a threshold is not positive, and cannot be bounded by multiples.
    """
    audits = [
        _adapt_cell(profile, anchor, recent, str(lead), condition, false_alarm_rate)
        for lead in np.unique(recent.lead_N)
        for condition in (BASE, *NORMAL_RATIOS)
        if condition == BASE or condition in profile.conditions
    ]
    base, conditions = dict(profile.base), {name: dict(table) for name, table in profile.conditions.items()}
    for audit in audits:
        if audit.applied:
            table = base if audit.condition == BASE else conditions[audit.condition]
            table[audit.lead] = audit.new_threshold
    return replace(profile, base=base, conditions=conditions), audits


def _adapt_cell(
    profile: ThresholdProfile,
    anchor: ThresholdProfile,
    recent: Recent,
    lead: str,
    condition: str,
    false_alarm_rate: float,
) -> CellAudit:
    sample_N, samples, normal_N, abnormal_N = _select(recent, lead, condition)
    old, start = _threshold(profile, lead, condition), _threshold(anchor, lead, condition)
    quantile = 1 - false_alarm_rate if condition in (BASE, NORMAL) else CONDITION_QUANTILE
    enough = len(sample_N) >= FEWEST_SAMPLES
    methods = propose(sample_N, normal_N, abnormal_N, quantile) if enough else {}
    target, confidence, new = None, None, old
    if methods:
        target, confidence = combine(methods, len(sample_N))
        new = step(old, target, confidence, start, BOUNDS[condition])
    refusal = why_not(len(sample_N), confidence, old, new)
    return CellAudit(
        lead=lead,
        condition=condition,
        samples=samples,
        num_samples=len(sample_N),
        num_normal=len(normal_N),
        num_abnormal=len(abnormal_N),
        methods=methods,
        target=target,
        confidence=confidence,
        old_threshold=old,
        new_threshold=new,
        applied=refusal is None,
        reason=refusal or "applied",
    )


def propose(
    sample_N: FloatArray, normal_N: FloatArray, abnormal_N: FloatArray, quantile: float
) -> dict[str, float]:
    """A threshold by each method that applies.

    Args:
        sample_N: scores of the cell's windows.
        normal_N: scores of windows that are known to be normal.
        abnormal_N: scores of windows that are known not to be.
        quantile: of ``sample_N``.
    """
    found = {"percentile": float(np.quantile(sample_N, quantile)), "gmm": mixture_threshold(sample_N)}
    if min(len(normal_N), len(abnormal_N)) >= FEWEST_OF_CLASS:
        found |= {
            "youden": youden_threshold(normal_N, abnormal_N),
            "max_f1": f1_threshold(normal_N, abnormal_N),
        }
    return found


def mixture_threshold(score_N: FloatArray) -> float:
    """Mean + 3 standard deviations of the heaviest of one or two Gaussians, whichever number fits (BIC)."""
    column_N1 = np.sort(score_N)[:, None]
    numbers = (1, 2) if column_N1[0] < column_N1[-1] else (1,)
    fits = [GaussianMixture(number, random_state=0).fit(column_N1) for number in numbers]
    best = min(fits, key=lambda fit: float(fit.bic(column_N1)))
    heaviest = int(np.argmax(best.weights_))
    return float(best.means_[heaviest, 0] + 3 * np.sqrt(best.covariances_[heaviest, 0, 0]))


def youden_threshold(normal_N: FloatArray, abnormal_N: FloatArray) -> float:
    """Where sensitivity + specificity − 1 is largest."""
    cut_C = _cuts(normal_N, abnormal_N)
    false_C, true_C = _above(normal_N, cut_C), _above(abnormal_N, cut_C)
    return float(cut_C[np.argmax(true_C / len(abnormal_N) - false_C / len(normal_N))])


def f1_threshold(normal_N: FloatArray, abnormal_N: FloatArray) -> float:
    """Where the harmonic mean of precision and recall is largest."""
    cut_C = _cuts(normal_N, abnormal_N)
    false_C, true_C = _above(normal_N, cut_C), _above(abnormal_N, cut_C)
    return float(cut_C[np.argmax(2 * true_C / (true_C + false_C + len(abnormal_N)))])


def combine(methods: Mapping[str, float], num_samples: int) -> tuple[float, float]:
    """(target, confidence): the weighted mean of the methods, and how far they agree.

    Confidence is 1 − weighted standard deviation / mean; × 0.8 below 50 samples, × 1.1 above 200; 0 to 1.
    """
    values = np.array(list(methods.values()))
    weights = np.array([WEIGHTS[name] for name in methods])
    target = float(np.average(values, weights=weights))
    spread = float(np.sqrt(np.average((values - target) ** 2, weights=weights)))
    confidence = 1 - spread / abs(target) if target else 0.0
    if len(methods) == 1:
        confidence = CONFIDENCE_OF_ONE_METHOD
    confidence *= 0.8 if num_samples < 50 else 1.1 if num_samples > 200 else 1.0
    return target, min(1.0, max(0.0, confidence))


def step(old: float, target: float, confidence: float, anchor: float, bounds: tuple[float, float]) -> float:
    """The threshold after smoothing, the cap of 50 % and the bounds around the anchor."""
    share = next(share for least, share in SMOOTHING if confidence >= least)
    new = old + share * (target - old)
    new = min(max(new, old * (1 - LARGEST_STEP)), old * (1 + LARGEST_STEP))
    return min(max(new, anchor * bounds[0]), anchor * bounds[1])


def why_not(num_samples: int, confidence: float | None, old: float, new: float) -> str | None:
    """The rule that forbids a change; None where nothing does."""
    if num_samples < FEWEST_SAMPLES:
        return f"{num_samples} samples, fewer than {FEWEST_SAMPLES}"
    if confidence is None or confidence < LEAST_CONFIDENCE:
        return f"the methods disagree: confidence below {LEAST_CONFIDENCE}"
    if abs(new - old) <= SMALLEST_STEP * old:
        return f"a change of at most {SMALLEST_STEP:.0%}"
    return None


def _select(recent: Recent, lead: str, condition: str) -> tuple[FloatArray, str, FloatArray, FloatArray]:
    """(scores to learn from, where they come from, known normal scores, known abnormal scores)."""
    score_N, of_lead_N = recent.score_N, recent.lead_N == lead
    normal_N = score_N[of_lead_N & recent.is_normal_N]
    if condition not in (BASE, NORMAL):
        reported_N = score_N[of_lead_N & (recent.class_N == condition)]
        return reported_N, "reported", normal_N, reported_N
    abnormal_N = score_N[of_lead_N & recent.is_abnormal_N]
    if len(normal_N) >= FEWEST_SAMPLES:
        return normal_N, "reported", normal_N, abnormal_N
    unlabelled_N = score_N[of_lead_N & ~recent.is_normal_N & ~recent.is_abnormal_N]
    return unlabelled_N, "unlabelled", normal_N, abnormal_N


def _threshold(profile: ThresholdProfile, lead: str, condition: str) -> float:
    threshold = profile.threshold(lead, None if condition == BASE else condition)
    if threshold <= 0:
        rule, fix = "is not positive, and adaptation is bounded by multiples", "Do not adapt these scores."
        raise ConfigError(f"threshold of lead {lead}", threshold, rule, fix)
    return threshold


def _cuts(normal_N: FloatArray, abnormal_N: FloatArray) -> FloatArray:
    """Midpoints between neighbouring scores, ascending; the score itself where all are equal."""
    scores = np.unique(np.concatenate([normal_N, abnormal_N]))
    return (scores[1:] + scores[:-1]) / 2 if len(scores) > 1 else scores


def _above(score_N: FloatArray, cut_C: FloatArray) -> FloatArray:
    """How many scores lie above each cut."""
    return len(score_N) - np.searchsorted(np.sort(score_N), cut_C, side="right").astype(np.float64)
