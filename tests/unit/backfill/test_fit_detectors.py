"""What can be asked of the fitting of detectors."""

from __future__ import annotations

from typing import Any

import pytest

from rmsai_ray.backfill.fit_detectors import FitDetectorsConfig
from rmsai_ray.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detectors": ("crystal_ball",)}, "is not registered"),
        ({"members": ("isolation_forest",)}, "not among the fitted"),
        ({"detectors": ()}, "not among the fitted"),
        ({"max_windows": 1}, "too few"),
    ],
)
def test_bad_values_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FitDetectorsConfig(lake="lake", output="set", **options)
