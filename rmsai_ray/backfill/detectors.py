"""Which fitted detectors a backfill scores with, and which of them makes the anomaly score."""

from __future__ import annotations

from pathlib import Path

from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.detection.detector_set import DESCRIPTION_NAME, ENSEMBLE, DetectorSet, load_detector_set
from rmsai_ray.detection.detectors import DETECTORS
from rmsai_ray.detection.protocol import KeepsArrays
from rmsai_ray.detection.shelf import DETECTORS_FOLDER
from rmsai_ray.detection.thresholds import LITERAL_PROFILES
from rmsai_ray.errors import CheckpointError, ConfigError
from rmsai_ray.models.checkpoint import PRETRAINED
from rmsai_ray.models.profiles import DEFAULT_PROFILE, PROFILES

PACKAGED, NONE = "packaged", "none"
RECONSTRUCTION_ERROR = "reconstruction_error"


def choose_detector_set(config: BackfillConfig, model_id: str) -> DetectorSet | None:
    """The set that was asked for; by default the model's own, where it has one.

    Raises:
        ConfigError: it was fitted for another model, or there is none.
    """
    if config.detectors == NONE:
        return None
    is_own = config.detectors in (None, PACKAGED)
    folder = _beside_model(config) if is_own else Path(str(config.detectors))
    if folder is None or not (folder / DESCRIPTION_NAME).is_file():
        if config.detectors is None:
            return None
        rule = "brings no detectors of its own" if is_own else f"holds no {DESCRIPTION_NAME}"
        fix = f"Fit some with jobs/fit_detectors.py, or give --detectors {NONE}."
        raise ConfigError("detectors", config.detectors, f"{folder or 'the model'} {rule}", fix)
    try:
        detectors = load_detector_set(folder)
    except CheckpointError as error:
        raise ConfigError("detectors", config.detectors, str(error), "Fit them again.") from error
    detectors.check_model(model_id)
    return detectors


def choose_detector(config: BackfillConfig, detectors: DetectorSet | None) -> str:
    """The detector whose score becomes the anomaly score: one of the set, or one that needs no fit.

    By default the ensemble, but the error itself without a set, or with thresholds that were written for it.

    Raises:
        ConfigError: there is none of that name, or it was not fitted.
    """
    is_for_errors = config.threshold_profile in LITERAL_PROFILES
    name = config.detector or (ENSEMBLE if detectors and not is_for_errors else RECONSTRUCTION_ERROR)
    fitted = [*detectors.detectors, ENSEMBLE] if detectors else []
    if name in fitted:
        return name
    if name == ENSEMBLE or issubclass(DETECTORS.get(name), KeepsArrays):
        rule = f"is not among the fitted detectors ({', '.join(fitted) or 'none'})"
        raise ConfigError("detector", name, rule, "Fit it with jobs/fit_detectors.py, or name another.")
    return name


def _beside_model(config: BackfillConfig) -> Path | None:
    """The folder for detectors of a packaged model or of a checkpoint; None for a lone file."""
    model = config.model or config.profile or DEFAULT_PROFILE
    path = Path(model)
    if model in PROFILES and not path.exists():
        return PRETRAINED / model / DETECTORS_FOLDER
    return path / DETECTORS_FOLDER if path.is_dir() else None
