import numpy as np
import pytest

from rmsai_ray.detection.detectors import DETECTORS
from rmsai_ray.errors import ConfigError


def test_reconstruction_error_is_the_mean_squared_error() -> None:
    detector = DETECTORS.get("reconstruction_error")()
    mse = np.array([0.5, 0.1])
    scores = detector.anomaly_score(np.zeros((2, 4)), mse, np.array([9.0, 9.0]))
    np.testing.assert_array_equal(scores, mse.astype(np.float32))
    assert scores.dtype == np.float32
    assert detector.name == "reconstruction_error"


def test_an_unknown_detector_is_answered_with_the_list() -> None:
    with pytest.raises(ConfigError, match="reconstruction_error"):
        DETECTORS.get("crystal_ball")
