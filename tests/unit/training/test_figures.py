"""The figures of a trained model, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rmsai_ray.training.data import WindowSet
from rmsai_ray.training.figures import auroc, calibrate, held_out_figures


def windows(leads: list[str], patients: list[str], is_normal: list[bool]) -> WindowSet:
    return WindowSet(
        signals_NT=np.zeros((len(leads), 2), np.float32),
        num_samples_N=np.full(len(leads), 2, np.int32),
        leads_N=np.array(leads),
        patients_N=np.array(patients),
        conditions_N=np.where(is_normal, "Normal", "Tachycardia"),
        is_normal_N=np.array(is_normal),
    )


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
        ([1, 1, 1, 1], [0, 1, 0, 1], 0.5),
        ([1, 3, 2, 4], [0, 0, 1, 1], 0.75),
        ([1, 2], [1, 1], None),
    ],
)
def test_auroc(scores: list[float], positive: list[int], expected: float | None) -> None:
    assert auroc(np.array(scores, np.float32), np.array(positive, np.bool_)) == expected


def test_thresholds_are_percentiles_of_normal_windows_by_lead() -> None:
    """A lead with too few windows takes the percentile of all; abnormal windows do not count."""
    leads = ["ECG1"] * 101 + ["ECG2"] * 5 + ["ECG1"] * 50
    errors = np.array([*range(101), *[1000] * 5, *[9999] * 50], np.float32)
    validation = windows(leads, ["P"] * 156, [True] * 106 + [False] * 50)
    found = calibrate(errors, validation, ("ECG1", "ECG2", "aVR"))
    assert found["T_normal"]["ECG1"] == pytest.approx(95)
    overall = np.percentile(errors[:106], 95)
    assert found["T_normal"]["ECG2"] == found["T_normal"]["aVR"] == pytest.approx(overall)
    assert found["num_windows"] == {"ECG1": 101, "ECG2": 5, "aVR": 0}
    assert (found["metric"], found["percentile"]) == ("mse", 95)


def test_held_out_figures() -> None:
    test = windows(["ECG1", "ECG1", "ECG2", "ECG2"], ["A", "A", "B", "B"], [True, False, True, True])
    errors = np.array([0.2, 0.8, 0.4, 0.6], np.float32)
    found = held_out_figures(errors, test, {"s3://x/one": ("A",), "/data/two/": ("B",), "three": ("C",)})
    assert found["mse_normal"] == pytest.approx(0.4)
    assert found["mse_normal_by_source"] == pytest.approx({"one": 0.2, "two": 0.5, "three": None})
    assert found["mse_normal_by_lead"] == pytest.approx({"ECG1": 0.2, "ECG2": 0.5})
    assert found["mse_by_condition"] == pytest.approx({"Normal": 0.4, "Tachycardia": 0.8})
    assert found["auroc_abnormal_by_source"] == {"one": 1.0, "two": None, "three": None}
    assert (found["num_windows"], found["num_normal_windows"]) == (4, 3)


def test_sources_of_one_name_keep_their_whole_uris() -> None:
    test = windows(["ECG1", "ECG1"], ["A", "B"], [True, True])
    found = held_out_figures(np.ones(2, np.float32), test, {"a/x": ("A",), "b/x": ("B",)})
    assert list(found["mse_normal_by_source"]) == ["a/x", "b/x"]
