"""Where a model's detector sets lie: beside its checkpoint, and in a lake, for every worker to find."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rmsai_ray.detection.detector_set import DESCRIPTION_NAME, DetectorSet, load_detector_set
from rmsai_ray.errors import CheckpointError
from rmsai_ray.models.shelf import fetch_files, shelve_files
from rmsai_ray.storage import Store

DETECTORS_FOLDER = "detectors"
"""Of a checkpoint folder: the set that comes with the model."""


def shelve_detector_set(lake: Store, detectors: DetectorSet) -> None:
    """Writes a set to ``models/<model_id>/detectors/<hash of the set's id>/``, unless it is there."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = detectors.save(Path(temporary) / DETECTORS_FOLDER)
        key = _key(detectors.model_id, detectors.set_id)
        shelve_files(lake, key, folder, last=DESCRIPTION_NAME)


def load_shelved_detector_set(lake: Store, model_id: str, set_id: str) -> DetectorSet:
    """The set that made the scores of the lake's rows with ``detector_set`` = ``set_id``.

    Raises:
        CheckpointError: the lake does not hold it.
    """
    with tempfile.TemporaryDirectory() as temporary:
        fetch_files(lake, _key(model_id, set_id), Path(temporary))
        detectors = load_detector_set(temporary)
    if detectors.set_id != set_id:
        raise CheckpointError(f"expected the detectors {set_id}, found {detectors.set_id} in their place")
    return detectors


def _key(model_id: str, set_id: str) -> str:
    """Without the plus sign of the id, which object stores write in different ways."""
    return f"models/{model_id}/{DETECTORS_FOLDER}/{set_id.rpartition('+')[2]}"
