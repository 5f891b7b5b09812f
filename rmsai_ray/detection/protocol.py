"""What a detector is, where detectors are found by name, and how a fitted one is kept.

Shapes: N windows, E dimensions of the embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from rmsai_ray.detection.arrays import Arrays, load_arrays, save_arrays
from rmsai_ray.detection.measured import Float32Array, Measured
from rmsai_ray.errors import ConfigError
from rmsai_ray.plugins import Registry

ARRAYS_NAME = "arrays.npz"

FEWEST_OF_A_LEAD = 50
"""A lead with fewer windows has no statistics of its own, and is taken for an average one."""
ANY_LEAD = "*"
"""Every lead that has no statistics of its own."""


class Detector(Protocol):
    """Scores windows; higher is more anomalous, always.

    A score is finite for every window, and depends on that window alone, to the bit.
    """

    name: str

    def fit(self, normal: Measured, *, seed: int) -> None:
        """Learns what is normal; the same windows and seed give the same detector."""

    def anomaly_score(self, measured: Measured) -> Float32Array:
        """Anomaly scores, shape (N,)."""

    def save(self, folder: Path) -> None:
        """Writes the detector into an existing, empty folder, as data: never a pickle."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The detector that was saved there.

        Raises:
            CheckpointError: something else lies there.
        """


DETECTORS: Registry[type[Detector]] = Registry("detector")
"""Classes of detectors, by name: ``DETECTORS.get("reconstruction_error")()``."""


class NeedsNoFit:
    """Half a detector: one that learns nothing."""

    def fit(self, normal: Measured, *, seed: int) -> None:
        """Nothing to learn."""

    def save(self, folder: Path) -> None:
        """Nothing to keep."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """A new one."""
        return cls()


class KeepsArrays:
    """Half a detector: what it learns are arrays by name."""

    kept: ClassVar[dict[str, tuple[str, int]]]
    """Kind (as in numpy) and number of dimensions of each array, by name."""

    def __init__(self) -> None:
        self._arrays: Arrays | None = None

    def save(self, folder: Path) -> None:
        """Writes ``arrays.npz``."""
        save_arrays(folder / ARRAYS_NAME, self.learned)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """From ``arrays.npz``; CheckpointError where something else lies there."""
        detector = cls()
        detector._learn(**load_arrays(folder / ARRAYS_NAME, cls.kept))
        return detector

    @property
    def learned(self) -> Arrays:
        """The arrays.

        Raises:
            ConfigError: it was not fitted.
        """
        if self._arrays is None:
            raise ConfigError("detector", type(self).__name__, "is not fitted", "Fit it, or load one.")
        return self._arrays

    def _learn(self, **arrays: npt.NDArray[Any]) -> None:
        assert arrays.keys() == self.kept.keys(), arrays.keys()
        self._arrays = arrays


def own_leads(leads_N: npt.NDArray[np.str_]) -> npt.NDArray[np.str_]:
    """``*``, and the leads that have enough windows for statistics of their own, sorted."""
    leads, counts = np.unique(leads_N, return_counts=True)
    return np.array([ANY_LEAD, *leads[counts >= FEWEST_OF_A_LEAD]])


def rows_of(leads_N: npt.NDArray[np.str_], lead: str) -> npt.NDArray[np.int64]:
    """The windows of a lead; all of them for ``*``."""
    return np.arange(len(leads_N)) if lead == ANY_LEAD else np.flatnonzero(leads_N == lead)


def places_of(leads_N: npt.NDArray[np.str_], known: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """Index of each window's lead among the known ones, whose first is ``*``; 0 where it is not known."""
    place = {str(lead): index for index, lead in enumerate(known)}
    names, inverse_N = np.unique(leads_N, return_inverse=True)
    return np.array([place.get(str(name), 0) for name in names], np.int64)[inverse_N]


def check_fit(normal: Measured, fewest: int = 2) -> None:
    """Raises ConfigError where there are too few windows to learn from."""
    if len(normal) < fewest:
        raise ConfigError(
            "normal windows", len(normal), f"are too few, {fewest} are needed", "Name more archives."
        )
