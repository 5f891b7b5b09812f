"""Every rule of adaptive thresholds, on numbers whose answer is known."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rmsai_ray.detection.adaptive import (
    BASE,
    BOUNDS,
    Recent,
    adapt_profile,
    combine,
    f1_threshold,
    mixture_threshold,
    propose,
    step,
    why_not,
    youden_threshold,
)
from rmsai_ray.detection.thresholds import NORMAL_RATIOS, ThresholdProfile, condition_class
from rmsai_ray.errors import ConfigError

ANCHOR = ThresholdProfile(
    "adaptive",
    "1",
    "mse",
    {"*": 2.0, "ECG1": 1.0},
    {name: {"*": 2.0 * ratio, "ECG1": ratio} for name, ratio in NORMAL_RATIOS.items()},
)
FREE = (0.0, 100.0)
"""Bounds that bound nothing here."""


def recent(*groups: tuple[npt.ArrayLike, str | None], lead: str = "ECG1") -> Recent:
    """Scores and what the monitor reported of them; None is no report."""
    scores = [np.asarray(scores, np.float64) for scores, _ in groups]
    reports = np.repeat([report or "Unknown" for _, report in groups], [len(score) for score in scores])
    classes = np.array([condition_class(report) or "" for report in reports], np.str_)
    return Recent(
        score_N=np.concatenate(scores),
        lead_N=np.full(len(reports), lead),
        class_N=classes,
        is_normal_N=classes == "Normal",
        is_abnormal_N=(classes != "Normal") & (classes != ""),
    )


def audit_of(seen: Recent, condition: str, profile: ThresholdProfile = ANCHOR) -> Any:
    _, audits = adapt_profile(profile, ANCHOR, seen, false_alarm_rate=0.05)
    (found,) = [audit for audit in audits if audit.condition == condition]
    return found


def normals(count: int, around: float = 0.45, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(around, around / 6, count)


def test_nothing_that_a_threshold_decided_is_an_input() -> None:
    names = {field.name for field in fields(Recent)}
    assert names == {"score_N", "lead_N", "class_N", "is_normal_N", "is_abnormal_N"}


def test_methods_on_separated_scores() -> None:
    normal_N, abnormal_N = np.arange(1.0, 41), np.arange(51.0, 91)
    found = propose(normal_N, normal_N, abnormal_N, 0.95)
    assert found["percentile"] == pytest.approx(np.quantile(normal_N, 0.95))
    assert found["youden"] == found["max_f1"] == pytest.approx(45.5)
    assert set(found) == {"percentile", "youden", "max_f1", "gmm"}


def test_methods_with_overlap() -> None:
    normal_N, abnormal_N = np.array([1.0, 2, 3, 8]), np.array([5.0, 6, 7])
    # cut 4: sensitivity 1, specificity 3/4; every other cut is worse by Youden and by F1 (6/7).
    assert youden_threshold(normal_N, abnormal_N) == 4.0
    assert f1_threshold(normal_N, abnormal_N) == 4.0
    # One abnormal among many normals: F1 weighs false alarms, Youden hardly does.
    many_N = np.r_[np.zeros(95), np.full(5, 6.5)]
    assert youden_threshold(many_N, np.array([5.0, 7.0, 8.0])) == 2.5
    assert f1_threshold(many_N, np.array([5.0, 7.0, 8.0])) == 6.75


@pytest.mark.parametrize(("num_normal", "num_abnormal"), [(9, 50), (50, 9), (0, 50), (50, 0)])
def test_without_labels_of_both_kinds_only_percentile_and_mixture(num_normal: int, num_abnormal: int) -> None:
    normal_N, abnormal_N = normals(num_normal), normals(num_abnormal, 2.0)
    assert set(propose(normals(40), normal_N, abnormal_N, 0.95)) == {"percentile", "gmm"}


def test_the_mixture_follows_the_heaviest_part_and_not_the_tail() -> None:
    rng = np.random.default_rng(0)
    mixed_N = np.r_[rng.normal(1, 0.1, 300), rng.normal(5, 0.5, 60)]
    assert mixture_threshold(mixed_N) == pytest.approx(1.3, abs=0.05)
    assert mixture_threshold(mixed_N[::-1]) == mixture_threshold(mixed_N)
    single_N = rng.normal(1, 0.1, 300)
    assert mixture_threshold(single_N) == pytest.approx(single_N.mean() + 3 * single_N.std(), rel=0.01)
    assert mixture_threshold(np.ones(30)) == pytest.approx(1.0, abs=0.01)


def test_weights_are_renormalised_over_the_methods_that_apply() -> None:
    every = {"percentile": 1.0, "youden": 2.0, "max_f1": 2.0, "gmm": 1.0}
    assert combine(every, 100)[0] == pytest.approx(0.2 * 1 + 0.3 * 2 + 0.3 * 2 + 0.2 * 1)
    assert combine({"percentile": 1.0, "gmm": 2.0}, 100)[0] == pytest.approx(1.5)


def test_confidence_is_agreement_and_number() -> None:
    agreed, near = {"percentile": 2.0, "gmm": 2.0}, {"percentile": 0.8, "gmm": 1.2}
    assert combine(agreed, 100)[1] == 1.0
    assert combine(near, 100)[1] == pytest.approx(0.8)
    assert combine(near, 49)[1] == pytest.approx(0.64)
    assert combine(near, 50)[1] == pytest.approx(0.8)
    assert combine(near, 200)[1] == pytest.approx(0.8)
    assert combine(near, 201)[1] == pytest.approx(0.88)
    assert combine(agreed, 1000)[1] == 1.0
    assert combine({"percentile": 0.01, "gmm": 9.0}, 100)[1] == pytest.approx(0.0, abs=0.01)
    assert combine({"percentile": 2.0}, 100)[1] == 0.5


@pytest.mark.parametrize(
    ("confidence", "share"), [(1.0, 0.7), (0.9, 0.7), (0.89, 0.5), (0.75, 0.5), (0.7, 0.3)]
)
def test_smoothing_by_confidence(confidence: float, share: float) -> None:
    assert step(1.0, 1.2, confidence, 1.0, FREE) == pytest.approx(1 + share * 0.2)


def test_no_step_is_larger_than_half() -> None:
    assert step(1.0, 9.0, 1.0, 1.0, FREE) == 1.5
    assert step(1.0, 0.01, 1.0, 1.0, FREE) == 0.5


@pytest.mark.parametrize("condition", BOUNDS)
def test_bounds_are_multiples_of_the_anchor(condition: str) -> None:
    low, high = BOUNDS[condition]
    threshold = {"low": 4.0, "high": 4.0}
    for _ in range(20):  # rounds do not add up
        threshold["low"] = step(threshold["low"], 0.01, 1.0, 4.0, (low, high))
        threshold["high"] = step(threshold["high"], 99.0, 1.0, 4.0, (low, high))
    assert threshold == {"low": pytest.approx(4 * low), "high": pytest.approx(4 * high)}


def test_bounds_keep_the_conditions_in_their_order() -> None:
    lowest = {name: BOUNDS[name][0] * ratio for name, ratio in NORMAL_RATIOS.items()}
    highest = {name: BOUNDS[name][1] * ratio for name, ratio in NORMAL_RATIOS.items()}
    assert highest["Tachy"] < lowest["AF"]
    assert highest["AF"] < lowest["VT"]


@pytest.mark.parametrize(
    ("num_samples", "confidence", "new", "reason"),
    [
        (19, None, 0.8, "19 samples, fewer than 20"),
        (20, 0.59, 0.8, "disagree"),
        (20, 0.6, 0.985, "at most 2%"),
        (20, 0.6, 1.015, "at most 2%"),
        (20, 0.6, 0.979, None),
        (20, 0.6, 1.021, None),
    ],
)
def test_why_a_threshold_stays(num_samples: int, confidence: float, new: float, reason: str | None) -> None:
    found = why_not(num_samples, confidence, 1.0, new)
    assert found is None if reason is None else reason in str(found)


def test_a_lead_whose_normals_became_quieter_gets_lower_thresholds() -> None:
    profile, audits = adapt_profile(ANCHOR, ANCHOR, recent((normals(300), "Normal")), false_alarm_rate=0.05)
    by_condition = {audit.condition: audit for audit in audits}
    assert set(by_condition) == {BASE, *NORMAL_RATIOS}
    normal = by_condition["Normal"]
    assert (normal.samples, normal.num_samples, normal.applied, normal.reason) == (
        "reported", 300, True, "applied",
    )  # fmt: skip
    assert set(normal.methods) == {"percentile", "gmm"}
    assert profile.threshold("ECG1", "Normal") == normal.new_threshold < 1.0
    assert profile.threshold("ECG1", None) == by_condition[BASE].new_threshold < 1.0
    assert profile.threshold("ECG1", "VT") == 3.0  # nothing was reported as VT
    assert by_condition["VT"].reason.startswith("0 samples")
    assert profile.threshold("aVF", "Normal") == 2.0  # no window of that lead
    assert ANCHOR.base["ECG1"] == 1.0


def test_a_lead_that_had_no_number_of_its_own_gets_one() -> None:
    profile, _ = adapt_profile(
        ANCHOR, ANCHOR, recent((normals(300, 0.9), "Normal"), lead="vVX"), false_alarm_rate=0.05
    )
    assert profile.base["vVX"] < profile.base["*"] == 2.0
    assert ANCHOR.base.keys() == {"*", "ECG1"}


def test_the_percentile_of_normals_aims_at_the_rate() -> None:
    seen = recent((normals(300), "Normal"))
    for rate in (0.01, 0.1):
        _, audits = adapt_profile(ANCHOR, ANCHOR, seen, false_alarm_rate=rate)
        assert audits[0].methods["percentile"] == pytest.approx(np.quantile(seen.score_N, 1 - rate))


def test_a_condition_learns_from_its_own_windows() -> None:
    found = audit_of(recent((normals(300), "Normal"), (normals(300, 2.2, 1), "Atrial Fibrillation")), "AF")
    assert (found.samples, found.num_samples, found.num_normal, found.num_abnormal) == (
        "reported", 300, 300, 300,
    )  # fmt: skip
    assert found.methods["percentile"] == pytest.approx(np.quantile(normals(300, 2.2, 1), 0.75))
    assert set(found.methods) == {"percentile", "gmm", "youden", "max_f1"}


def test_high_scores_among_reported_normals_are_not_left_out() -> None:
    """Leaving out what the present threshold calls an anomaly would pull it down for ever."""
    calm, loud = normals(270), np.full(30, 5.0)
    found = audit_of(recent((np.r_[calm, loud], "Normal")), "Normal")
    assert found.num_samples == 300
    assert found.methods["percentile"] == 5.0


def test_without_reports_all_windows_count_and_nothing_is_supervised() -> None:
    found = audit_of(recent((normals(300), None)), "Normal")
    assert (found.samples, found.num_samples, found.num_normal, found.num_abnormal) == (
        "unlabelled", 300, 0, 0,
    )  # fmt: skip
    assert found.applied
    mixed = audit_of(recent((normals(19), "Normal"), (normals(40), None), (normals(50, 3.0), "VT")), "Normal")
    assert (mixed.samples, mixed.num_samples) == ("unlabelled", 40)


def test_disagreeing_methods_change_nothing() -> None:
    scores = np.r_[np.full(150, 0.1) + 0.001 * np.arange(150), np.full(100, 8.0)]
    profile, audits = adapt_profile(ANCHOR, ANCHOR, recent((scores, "Normal")), false_alarm_rate=0.05)
    assert profile == ANCHOR
    assert "disagree" in audits[0].reason
    assert not audits[0].applied
    assert audits[0].confidence is not None


def test_order_of_the_windows_changes_nothing() -> None:
    seen = recent((normals(100), "Normal"), (normals(60, 2.2), "AF"))
    order = np.random.default_rng(3).permutation(len(seen.score_N))
    shuffled = Recent(**{field.name: getattr(seen, field.name)[order] for field in fields(Recent)})
    a, b = (adapt_profile(ANCHOR, ANCHOR, each, false_alarm_rate=0.05)[0] for each in (seen, shuffled))
    assert a.base == pytest.approx(dict(b.base))
    assert a.conditions["AF"] == pytest.approx(dict(b.conditions["AF"]))


def test_a_class_that_shares_the_base_has_no_row() -> None:
    plain = replace(ANCHOR, conditions={"Normal": {"*": 2.0}})
    _, audits = adapt_profile(plain, plain, recent((normals(60), "Normal")), false_alarm_rate=0.05)
    assert [audit.condition for audit in audits] == [BASE, "Normal"]


def test_thresholds_below_zero_cannot_be_bounded() -> None:
    odd = ThresholdProfile("x", "1", "one_class_svm", {"*": -0.5}, {})
    with pytest.raises(ConfigError, match="multiples"):
        adapt_profile(odd, odd, recent((normals(60), "Normal")), false_alarm_rate=0.05)
