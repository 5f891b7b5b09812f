"""All detectors: importing this module registers the built-in ones."""

from __future__ import annotations

from rmsai_ray.detection import embedding_detectors, error_detectors, rhythm_detector
from rmsai_ray.detection.measured import Measured
from rmsai_ray.detection.protocol import DETECTORS, Detector

__all__ = ["DETECTORS", "Detector", "Measured", "embedding_detectors", "error_detectors", "rhythm_detector"]
