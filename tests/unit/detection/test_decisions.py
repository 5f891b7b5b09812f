import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmsai_ray.detection.decisions import SEVERITY, decide
from rmsai_ray.detection.thresholds import LITERAL_PROFILES, SEED, UPSTREAM_2025, resolve_profile
from rmsai_ray.errors import ConfigError

CONDITIONS = [
    "Normal",
    "Tachycardia",
    "Bradycardia",
    "Atrial Fibrillation (PTB-XL)",
    "Ventricular Tachycardia (MIT-BIH)",
    "Auto-generated",
]
SEED_TABLE = dict(zip(CONDITIONS, [0.05, 0.08, 0.07, 0.12, 0.15, 0.1], strict=True))
AF, VT = "Atrial Fibrillation", "Ventricular Tachycardia"


def one(score: float, condition: str = "Normal", heart_rate: float | None = 75.0, profile=SEED):  # type: ignore[no-untyped-def]
    return decide([score], ["ECG2"], [condition], [heart_rate], profile)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("score", [0.0, 0.05, 0.06, 0.075, 0.09, 0.1, 0.11, 0.13, 0.15, 0.2])
def test_seed_truth_table(condition: str, score: float) -> None:
    decisions = one(score, condition)
    expected = score > SEED_TABLE[condition]
    assert decisions.is_anomaly_condition[0] == expected
    assert decisions.anomaly_status[0] == ("anomaly" if expected else "normal")
    assert decisions.is_anomaly[0] == (score > 0.1)


def test_every_other_profile_takes_the_status_without_the_label() -> None:
    calibrated = resolve_profile("calibrated", {"T_normal": {"ECG2": 0.05}})
    for condition in CONDITIONS:
        decisions = one(0.08, condition, profile=calibrated)  # between Normal's 0.05 and the base 0.1
        assert decisions.anomaly_status[0] == "normal"
    assert one(0.08, "Normal", profile=calibrated).is_anomaly_condition[0]
    assert one(0.08, "Normal").anomaly_status[0] == "anomaly"


@pytest.mark.parametrize(
    ("score", "rhythm"),
    [(0.5, "Normal"), (0.76, "Normal"), (0.94, "Normal"), (0.95, AF), (1.09, AF), (1.1, VT)],
)
def test_rhythm_bands_of_the_original_processor(score: float, rhythm: str) -> None:
    decisions = one(score, profile=UPSTREAM_2025)
    assert decisions.rhythm_class[0] == rhythm
    assert decisions.is_anomaly[0] == (score > 0.75)


@pytest.mark.parametrize(
    ("heart_rate", "rate"),
    [
        (20.0, "Bradycardia"),
        (60.0, "Bradycardia"),
        (60.1, "Normal"),
        (99.9, "Normal"),
        (100.0, "Tachycardia"),
        (180.0, "Tachycardia"),
        (None, "Unknown"),
        (float("nan"), "Unknown"),
    ],
)
def test_rate_classes(heart_rate: float | None, rate: str) -> None:
    assert one(0.0, heart_rate=heart_rate).rate_class[0] == rate


@pytest.mark.parametrize(
    ("score", "heart_rate", "kind"),
    [
        (0.01, 75.0, None),
        (0.01, None, None),
        (0.01, 50.0, "Bradycardia"),
        (0.01, 120.0, "Tachycardia"),
        (0.11, 75.0, None),  # anomalous, of no known type
        (0.13, 50.0, AF),
        (0.13, 120.0, AF),
        (0.16, 120.0, VT),
        (0.16, None, VT),
    ],
)
def test_the_type_is_the_worst_of_rhythm_and_rate(
    score: float, heart_rate: float | None, kind: str | None
) -> None:
    assert one(score, heart_rate=heart_rate).anomaly_type[0] == kind


score_lists = st.lists(st.floats(0, 2, width=32), min_size=1, max_size=30)


@given(score_lists, st.sampled_from([SEED, UPSTREAM_2025]), st.data())
def test_the_three_facts_do_not_touch_each_other(scores: list[float], profile, data: st.DataObject) -> None:  # type: ignore[no-untyped-def]
    num = len(scores)
    conditions = data.draw(st.lists(st.sampled_from(CONDITIONS), min_size=num, max_size=num))
    rates = data.draw(st.lists(st.none() | st.floats(20, 250), min_size=num, max_size=num))
    decisions = decide(scores, ["ECG1"] * num, conditions, rates, profile)
    unlabelled = decide(scores, ["ECG1"] * num, ["Unknown"] * num, [None] * num, profile)
    np.testing.assert_array_equal(decisions.is_anomaly, unlabelled.is_anomaly)
    np.testing.assert_array_equal(decisions.rhythm_class, unlabelled.rhythm_class)
    for rhythm, rate, kind in zip(
        decisions.rhythm_class, decisions.rate_class, decisions.anomaly_type, strict=True
    ):
        assert SEVERITY.get(kind, 0) == max(SEVERITY.get(rhythm, 0), SEVERITY.get(rate, 0))


@given(score_lists)
def test_a_higher_score_is_never_less_severe(scores: list[float]) -> None:
    num = len(scores)
    for profile in LITERAL_PROFILES.values():
        decisions = decide(sorted(scores), ["ECG1"] * num, ["Normal"] * num, [None] * num, profile)
        severity = [SEVERITY.get(kind, 0) for kind in decisions.rhythm_class]
        assert severity == sorted(severity)
        assert all(anomalous for anomalous, rank in zip(decisions.is_anomaly, severity, strict=True) if rank)


def test_decisions_hold_on_the_stored_numbers() -> None:
    scores = np.linspace(0, 0.2, 4001, dtype=np.float64)
    decisions = decide(scores, ["aVL"] * 4001, ["Normal"] * 4001, [70.0] * 4001, SEED)
    stored = scores.astype(np.float32)
    np.testing.assert_array_equal(decisions.is_anomaly, stored > decisions.threshold)
    np.testing.assert_array_equal(decisions.is_anomaly_condition, stored > decisions.threshold_condition)


def test_a_score_that_is_no_number_does_not_pass_as_normal() -> None:
    with pytest.raises(ValueError, match="window 1 has no score"):
        decide([0.1, np.nan], ["ECG1"] * 2, ["Normal"] * 2, [70.0] * 2, SEED)


def test_a_lead_without_threshold_is_refused() -> None:
    calibrated = resolve_profile("calibrated", {"T_normal": {"ECG2": 0.05}})
    with pytest.raises(ConfigError, match="ECG1"):
        decide([0.1], ["ECG1"], ["Normal"], [70.0], calibrated)


def test_no_windows_no_decisions() -> None:
    assert len(decide([], [], [], [], SEED).anomaly_type) == 0
