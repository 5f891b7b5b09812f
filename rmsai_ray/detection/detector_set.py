"""Detectors that were fitted together for one model: their scores, their ensemble, and how normals score."""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rmsai_ray.detection.calibration import normal_quantiles
from rmsai_ray.detection.detectors import DETECTORS, Detector, Measured
from rmsai_ray.detection.measured import Float32Array
from rmsai_ray.detection.surprise import Tail, Tails, fit_tails, quadratic_mean, surprises
from rmsai_ray.errors import CheckpointError, ConfigError
from rmsai_ray.storage import replace_folder

ENSEMBLE = "ensemble"
DEFAULT_MEMBERS = ("worst_error", "error_contrast", "rhythm")
"""Each sees what the others do not: a badly drawn part, one that stands out of its window, and the rate and
irregularity of the beats. None of them has to have seen the patient's kind of heart before."""
DEFAULT_DETECTORS = (*DEFAULT_MEMBERS, "mahalanobis", "knn")
"""The last two look at the embedding: they find shapes that are rare among the normal patients of training,
which a new patient's healthy beats can be, too. So they are scored beside the ensemble, not in it."""

DESCRIPTION_NAME = "detectors.json"
FORMAT_VERSION = 1
MAX_DESCRIPTION_BYTES = 16 << 20
HASH_LENGTH = 8


@dataclass(frozen=True, kw_only=True)
class DetectorSet:
    """Fitted detectors of one model, and their ensemble.

    The ensemble's score is the quadratic mean of its members' surprise: −log10 of how many held-out normal
    windows of the lead score as high, see :mod:`rmsai_ray.detection.surprise`.
    """

    model_id: str
    """Whose embeddings and errors the detectors were fitted on; they mean nothing for another model."""
    detectors: Mapping[str, Detector]
    members: tuple[str, ...]
    """Of the ensemble."""
    tails: Mapping[str, Tails]
    """How held-out normal windows score, by member and lead."""
    calibration: Mapping[str, Mapping[str, Sequence[float]]]
    """Quantiles of the scores of held-out normals: detector (``ensemble`` too) → lead → one value per
    probability of :data:`rmsai_ray.detection.calibration.GRID`."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """For people and audits: data hash, patients, counts, run; they change no score and no identity."""

    @cached_property
    def set_id(self) -> str:
        """``<model_id>+<8 hex digits>``: changes with everything that can change a score or a threshold."""
        with tempfile.TemporaryDirectory() as folder:
            self._save_detectors(Path(folder))
            return f"{self.model_id}+{_fingerprint(Path(folder), self._learned())}"

    def scores(self, measured: Measured) -> dict[str, Float32Array]:
        """Scores of N windows by every detector, shape (N,) each, and ``ensemble`` last."""
        scores = {name: detector.anomaly_score(measured) for name, detector in self.detectors.items()}
        return {**scores, ENSEMBLE: _ensemble(scores, measured.leads_N, self.members, self.tails)}

    def check_model(self, model_id: str) -> None:
        """Raises ConfigError where the set was fitted for another model."""
        if model_id != self.model_id:
            raise ConfigError(
                "detectors",
                self.set_id,
                f"were fitted for the model {self.model_id}, not for {model_id}",
                "Fit detectors for this model: jobs/fit_detectors.py.",
            )

    def save(self, folder: str | Path) -> Path:
        """Writes the set as a folder, all of it or nothing; an older one of that name is replaced."""
        target = Path(folder).absolute()
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        temporary.mkdir(parents=True)
        self._save_detectors(temporary)
        description = {
            "format_version": FORMAT_VERSION,
            "model_id": self.model_id,
            "set_id": self.set_id,
            "detectors": list(self.detectors),
            **self._learned(),
            "facts": dict(self.facts),
        }
        (temporary / DESCRIPTION_NAME).write_text(json.dumps(description, indent=1) + "\n")
        replace_folder(temporary, target)
        return target

    def _save_detectors(self, folder: Path) -> None:
        for name, detector in self.detectors.items():
            (folder / name).mkdir()
            detector.save(folder / name)

    def _learned(self) -> dict[str, Any]:
        """What is kept beside the detectors and decides scores or thresholds."""
        return {
            "members": list(self.members),
            "tails": {
                name: {lead: tail.to_json() for lead, tail in tails.items()}
                for name, tails in self.tails.items()
            },
            "calibration": {
                name: {lead: list(values) for lead, values in by_lead.items()}
                for name, by_lead in self.calibration.items()
            },
        }


def fit_detector_set(
    train: Measured,
    validation: Measured,
    names: Sequence[str] = DEFAULT_DETECTORS,
    *,
    model_id: str,
    seed: int,
    facts: Mapping[str, Any] | None = None,
    members: Sequence[str] | None = None,
    validation_patients_N: npt.NDArray[np.str_] | None = None,
) -> DetectorSet:
    """Fits detectors on normal windows, and learns from held-out normal ones how normals score.

    Args:
        train: normal windows of training patients.
        validation: normal windows of other patients.
        names: of the detectors.
        model_id: of the model that measured the windows.
        seed: of everything random; the same arguments give the same set.
        facts: kept with the set.
        members: of the ensemble; :func:`default_members` of ``names`` where None.
        validation_patients_N: patient of each validation window; each then counts alike.

    Raises:
        ConfigError: no window, no such detector, or a member that is no detector of the set.
    """
    detectors = {name: fit_detector(name, train, seed) for name in names}
    return assemble_detector_set(
        detectors,
        validation,
        model_id=model_id,
        facts=facts,
        members=default_members(names) if members is None else members,
        validation_patients_N=validation_patients_N,
    )


def default_members(names: Sequence[str]) -> tuple[str, ...]:
    """Which of some detectors make the ensemble if nobody chose: the default ones, or all where none is."""
    return tuple(name for name in names if name in DEFAULT_MEMBERS) or tuple(names)


def fit_detector(name: str, train: Measured, seed: int) -> Detector:
    """One detector, fitted."""
    detector = DETECTORS.get(name)()
    detector.fit(train, seed=seed)
    return detector


def assemble_detector_set(
    detectors: Mapping[str, Detector],
    validation: Measured,
    *,
    model_id: str,
    facts: Mapping[str, Any] | None = None,
    members: Sequence[str] | None = None,
    validation_patients_N: npt.NDArray[np.str_] | None = None,
) -> DetectorSet:
    """A set of fitted detectors, all members where None are named; else as in :func:`fit_detector_set`."""
    chosen = tuple(detectors if members is None else members)
    _check(detectors, chosen, validation)
    leads_N = validation.leads_N
    scores = {name: detector.anomaly_score(validation) for name, detector in detectors.items()}
    tails = {name: fit_tails(scores[name], leads_N, validation_patients_N) for name in chosen}
    scores[ENSEMBLE] = _ensemble(scores, leads_N, chosen, tails)
    return DetectorSet(
        model_id=model_id,
        detectors=dict(detectors),
        members=chosen,
        tails=tails,
        calibration={
            name: normal_quantiles(score_N, leads_N, validation_patients_N)
            for name, score_N in scores.items()
        },
        facts=dict(facts or {}),
    )


def load_detector_set(folder: str | Path) -> DetectorSet:
    """The set that was saved there.

    Raises:
        CheckpointError: something else lies there, or something that was changed afterwards.
    """
    folder = Path(folder)
    description = _read_description(folder / DESCRIPTION_NAME)
    try:
        names = description["detectors"]
        detectors = {name: DETECTORS.get(_checked_name(name)).load(folder / name) for name in names}
        loaded = DetectorSet(
            model_id=str(description["model_id"]),
            detectors=detectors,
            members=tuple(description["members"]),
            tails={
                name: {lead: Tail.from_json(tail) for lead, tail in tails.items()}
                for name, tails in description["tails"].items()
            },
            calibration=description["calibration"],
            facts=description["facts"],
        )
        found = f"{loaded.model_id}+{_fingerprint(folder, loaded._learned())}"
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise CheckpointError(f"{folder}: expected a detector set, found another thing: {error!r}") from error
    if found != description.get("set_id"):
        raise CheckpointError(
            f"{folder}: expected the set {description.get('set_id')} of {DESCRIPTION_NAME}, found {found}: "
            "detectors and description do not belong together"
        )
    return loaded


def _ensemble(
    scores: Mapping[str, Float32Array],
    leads_N: npt.NDArray[np.str_],
    members: Sequence[str],
    tails: Mapping[str, Tails],
) -> Float32Array:
    return quadratic_mean([surprises(scores[name], leads_N, tails[name]) for name in members])


def _check(detectors: Mapping[str, Detector], members: Sequence[str], validation: Measured) -> None:
    foreign = [name for name in members if name not in detectors]
    if foreign or not members:
        known = ", ".join(detectors)
        raise ConfigError(
            "members", list(members), "is no ensemble of the detectors", f"Choose from {known}."
        )
    if ENSEMBLE in detectors:
        raise ConfigError("detectors", ENSEMBLE, "is what all of them make together", "Name its members.")
    if not len(validation):
        raise ConfigError("validation windows", 0, "are needed to calibrate", "Name more archives.")


def _fingerprint(folder: Path, learned: Mapping[str, Any]) -> str:
    """Over the files of the detectors and what is kept beside them."""
    hasher = hashlib.sha256(json.dumps(learned, sort_keys=True).encode())
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    for key in sorted(files.keys() - {DESCRIPTION_NAME}):
        content = files[key].read_bytes()
        hasher.update(f"{key} {len(content)}\n".encode())
        hasher.update(content)
    return hasher.hexdigest()[:HASH_LENGTH]


def _read_description(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_DESCRIPTION_BYTES:
            raise CheckpointError(f"{path}: expected at most {MAX_DESCRIPTION_BYTES} bytes, found more")
        description = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected the description of a detector set: {error}") from error
    if not isinstance(description, dict) or description.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(f"{path}: expected the description of a detector set, version {FORMAT_VERSION}")
    return description


def _checked_name(name: object) -> str:
    """A name that cannot leave the folder."""
    if not isinstance(name, str) or not name.isidentifier():
        raise CheckpointError(f"expected the name of a detector, found {name!r}")
    return name
