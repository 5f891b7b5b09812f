import math

import numpy as np
import pytest

from rmsai_ray.detection.calibration import GRID
from rmsai_ray.detection.thresholds import SEED, ThresholdProfile, condition_class, resolve_profile
from rmsai_ray.errors import ConfigError

CALIBRATION = {"metric": "mse", "percentile": 95, "T_normal": {"ECG1": 0.2, "aVF": 0.5}, "num_windows": {}}


@pytest.mark.parametrize(
    ("condition", "threshold"),
    [
        ("Normal", 0.05),
        ("Tachycardia", 0.08),
        ("Bradycardia", 0.07),
        ("Atrial Fibrillation (PTB-XL)", 0.12),
        ("Ventricular Tachycardia (MIT-BIH)", 0.15),
        ("Unknown", 0.1),
        ("Auto-generated", 0.1),
        ("", 0.1),
    ],
)
def test_the_seed_profile_holds_the_documents_numbers(condition: str, threshold: float) -> None:
    base, by_condition = resolve_profile("seed", None).lookup(["vVX"], [condition])
    assert base[0] == np.float32(0.1)
    assert by_condition[0] == np.float32(threshold)


@pytest.mark.parametrize(
    ("condition", "threshold"),
    [("Normal", 0.75), ("Tachycardia", 0.75), ("AFIB", 0.95), ("VT", 1.1), ("Unknown", 0.75)],
)
def test_the_numbers_of_the_original_processor(condition: str, threshold: float) -> None:
    base, by_condition = resolve_profile("upstream-2025", None).lookup(["ECG2"], [condition])
    assert (base[0], by_condition[0]) == (np.float32(0.75), np.float32(threshold))


def test_calibrated_thresholds_keep_the_seeds_ratios_on_the_models_scale() -> None:
    profile = resolve_profile("calibrated", CALIBRATION)
    conditions = ["Normal", "Bradycardia", "Tachycardia", "AF", "VT", "Unknown"]
    base, by_condition = profile.lookup(["aVF"] * 6, conditions)
    np.testing.assert_allclose(base, 1.0)
    np.testing.assert_allclose(by_condition, [0.5, 0.7, 0.8, 1.2, 1.5, 1.0])
    seed_base, seed_by_condition = SEED.lookup(["aVF"] * 6, conditions)
    np.testing.assert_allclose(by_condition / base, seed_by_condition / seed_base, rtol=1e-6)


def test_each_lead_has_its_own_number() -> None:
    base, by_condition = resolve_profile("calibrated", CALIBRATION).lookup(
        ["aVF", "ECG1", "aVF"], ["Normal"] * 3
    )
    np.testing.assert_allclose(base, [1.0, 0.4, 1.0])
    np.testing.assert_allclose(by_condition, [0.5, 0.2, 0.5])


def test_the_version_names_the_numbers() -> None:
    profile = resolve_profile("calibrated", CALIBRATION)
    assert profile.version.startswith("p95-")
    other = resolve_profile("calibrated", {**CALIBRATION, "T_normal": {"ECG1": 0.2, "aVF": 0.51}})
    counted = resolve_profile("calibrated", {**CALIBRATION, "num_windows": {"aVF": 7}})
    assert other.version != profile.version == counted.version


def test_a_lead_that_was_not_calibrated_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"'vVX'.*ECG1, aVF"):
        resolve_profile("calibrated", CALIBRATION).lookup(["vVX"], ["Normal"])


@pytest.mark.parametrize("calibration", [None, {}, {"percentile": 95}])
def test_calibrated_needs_a_calibrated_model(calibration: dict[str, object] | None) -> None:
    with pytest.raises(ConfigError, match="brings no calibrated thresholds"):
        resolve_profile("calibrated", calibration)


def test_an_unknown_profile_is_answered_with_the_list() -> None:
    with pytest.raises(ConfigError, match="seed, upstream-2025, calibrated"):
        resolve_profile("production", CALIBRATION)


@pytest.mark.parametrize("error", [0.0, -1.0, math.nan, math.inf])
def test_a_threshold_that_cannot_decide_is_refused(error: float) -> None:
    with pytest.raises(ConfigError, match="threshold of lead ECG1"):
        resolve_profile("calibrated", {"T_normal": {"ECG1": error}})


def test_a_table_may_name_one_lead_and_all_others() -> None:
    profile = ThresholdProfile("mine", "1", "mse", {"*": 1.0, "aVR": 3.0}, {})
    np.testing.assert_array_equal(profile.of_class(["aVR", "ECG1"], None), [3, 1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Normal", "Normal"),
        ("Normal Sinus Rhythm", "Normal"),
        ("NSR", "Normal"),
        ("Abnormal", None),
        ("Tachycardia", "Tachy"),
        ("Sinus tachycardia", "Tachy"),
        ("Supraventricular Tachycardia", "Tachy"),
        ("SVT", "Tachy"),
        ("Sinus Bradycardia", "Brady"),
        ("Atrial Fibrillation (PTB-XL)", "AF"),
        ("AFIB", "AF"),
        ("A-Fib with normal axis", "AF"),
        ("Ventricular Tachycardia (MIT-BIH)", "VT"),
        ("NSVT", "VT"),
        ("V-Tach", "VT"),
        ("VT on AF", "VT"),
        ("Auto-generated", None),
        ("Unknown", None),
        ("After surgery", None),
        ("", None),
    ],
)
def test_conditions_in_the_words_of_monitors(text: str, expected: str | None) -> None:
    assert condition_class(text) == expected
    assert condition_class(text.upper()) == expected


QUANTILES = {
    "worst_error": {"ECG1": [2 * p for p in GRID], "*": [3 * p for p in GRID]},
    "reconstruction_error": {"*": [0.4 * p for p in GRID]},
    "ensemble": {"*": [-math.log10(1 - p) for p in GRID]},
    "one_class_svm": {"*": [p - 2 for p in GRID]},
}
CONDITIONS = ["Normal", "Bradycardia", "Tachycardia", "AF", "VT", "Unknown"]


def test_a_requested_rate_is_the_base_and_the_normal_threshold_of_each_lead() -> None:
    profile = resolve_profile(
        "calibrated", None, detector="worst_error", quantiles=QUANTILES, false_alarm_rate=0.1
    )
    assert profile.metric == "worst_error"
    base, by_condition = profile.lookup(["ECG1", "vVX"], ["Normal", "Unknown"])
    np.testing.assert_allclose(base, [1.8, 2.7], rtol=1e-6)
    np.testing.assert_allclose(by_condition, base)


def test_errors_are_loosened_by_the_seeds_ratios() -> None:
    profile = resolve_profile("calibrated", None, detector="worst_error", quantiles=QUANTILES)
    base, by_condition = profile.lookup(["ECG1"] * 6, CONDITIONS)
    np.testing.assert_allclose(by_condition / base, [1, 1.4, 1.6, 2.4, 3, 1], rtol=1e-6)
    np.testing.assert_allclose(base, 1.9, rtol=1e-6)


def test_surprises_are_loosened_by_dividing_the_rate() -> None:
    profile = resolve_profile("calibrated", None, detector="ensemble", quantiles=QUANTILES)
    base, by_condition = profile.lookup(["aVF"] * 6, CONDITIONS)
    expected = -np.log10(0.05 / np.array([1, 1.4, 1.6, 2.4, 3, 1]))
    np.testing.assert_allclose(by_condition, expected, atol=0.005)
    assert by_condition[0] == base[0]


def test_scores_without_a_zero_may_have_thresholds_below_it() -> None:
    profile = resolve_profile("calibrated", None, detector="one_class_svm", quantiles=QUANTILES)
    base, by_condition = profile.lookup(["aVF"] * 2, ["Normal", "VT"])
    assert base[0] < by_condition[1] < 0


def test_a_rate_finer_than_the_calibration_stands_for_conditions_only() -> None:
    profile = resolve_profile(
        "calibrated", None, detector="ensemble", quantiles=QUANTILES, false_alarm_rate=0.002
    )
    assert profile.conditions["VT"]["*"] == pytest.approx(3.0)
    with pytest.raises(ConfigError, match=r"0\.001 to 0\.5"):
        resolve_profile("calibrated", None, detector="ensemble", quantiles=QUANTILES, false_alarm_rate=0.0005)


def test_a_sets_calibration_goes_before_the_models_own_numbers() -> None:
    profile = resolve_profile("calibrated", CALIBRATION, quantiles=QUANTILES)
    assert (profile.metric, profile.base["*"]) == ("mse", pytest.approx(0.38))
    without = resolve_profile("calibrated", CALIBRATION, quantiles={"ensemble": QUANTILES["ensemble"]})
    assert without == resolve_profile("calibrated", CALIBRATION)


def test_the_version_names_rate_detector_and_numbers() -> None:
    def version(**changes: object) -> str:
        arguments = {"detector": "ensemble", "quantiles": QUANTILES, "false_alarm_rate": 0.05} | changes
        return resolve_profile("calibrated", None, **arguments).version  # type: ignore[arg-type]

    assert version().startswith("far5-")
    assert version() == version(false_alarm_rate=None)
    other = {**QUANTILES, "ensemble": {"*": [2 * p for p in GRID]}}
    versions = [
        version(),
        version(false_alarm_rate=0.01),
        version(quantiles=other),
        version(detector="worst_error"),
    ]
    assert len(set(versions)) == 4


@pytest.mark.parametrize("name", ["seed", "upstream-2025"])
def test_the_documents_numbers_are_refused_for_other_scores_and_for_rates(name: str) -> None:
    with pytest.raises(ConfigError, match="thresholds for mse, and ensemble gives ensemble"):
        resolve_profile(name, None, detector="ensemble", quantiles=QUANTILES)
    with pytest.raises(ConfigError, match="fixed thresholds"):
        resolve_profile(name, None, false_alarm_rate=0.01)


def test_a_detector_without_calibration_is_answered_with_those_that_have_one() -> None:
    with pytest.raises(ConfigError, match=r"not calibrated for knn.*ensemble.*worst_error"):
        resolve_profile("calibrated", CALIBRATION, detector="knn", quantiles=QUANTILES)
    with pytest.raises(ConfigError, match="fit detectors first"):
        resolve_profile("calibrated", CALIBRATION, detector="ensemble")


def test_a_model_calibrated_to_one_percentile_cannot_follow_a_rate() -> None:
    with pytest.raises(ConfigError, match="fixed thresholds here"):
        resolve_profile("calibrated", CALIBRATION, false_alarm_rate=0.01)
