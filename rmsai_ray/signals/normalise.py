"""Bringing windows to the scale that a model was trained on: stateless, or with statistics from training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rmsai_ray.errors import ConfigError
from rmsai_ray.signals.blocks import equally_long

NormaliserKind = Literal["window", "lead", "identity"]
KINDS: tuple[NormaliserKind, ...] = ("window", "lead", "identity")

DEFAULT_FLOOR = 0.005
"""One step of a common 12-bit monitor in mV: below it there is no signal whose shape could be scaled up."""


@dataclass(frozen=True)
class Normaliser:
    """normalised = (signal − offset) / scale; part of a model, never fitted on what it is applied to.

    ``window``: offset and scale are the mean and the standard deviation of the window's own real samples;
    ``lead``: they are constants per lead, fitted in training; ``identity``: 0 and 1.
    """

    kind: NormaliserKind
    offset: Mapping[str, float] = field(default_factory=dict)
    """By lead, in the signal's unit; empty unless ``kind`` is ``lead``."""
    scale: Mapping[str, float] = field(default_factory=dict)
    """By lead, in the signal's unit; empty unless ``kind`` is ``lead``."""
    floor: float = DEFAULT_FLOOR
    """Smallest scale in the signal's unit, so that a flat line becomes zeros and not amplified noise."""
    baseline_samples: int = 0
    """Odd width of the moving average that is taken off first, against wandering baselines; 0 for none."""
    smoothing_samples: int = 0
    """Odd width of the moving average that is applied twice before scaling, against noise; 0 for none."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError("normaliser", self.kind, "is not a kind", f"Choose from {', '.join(KINDS)}.")
        if not self.floor > 0:
            raise ConfigError("normaliser floor", self.floor, "must be positive", "Give a scale in mV.")
        for name in ("baseline_samples", "smoothing_samples"):
            if (width := getattr(self, name)) < 0 or (width and width % 2 == 0):
                raise ConfigError(f"normaliser {name}", width, "is no odd width", "Give an odd number, or 0.")

    def apply(
        self, x_NT: npt.NDArray[Any], num_samples_N: npt.NDArray[np.integer[Any]], leads: Sequence[str]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Normalised windows with the offset and scale of each.

        x = y · scale + offset gives the signal back, or what the filters left of it.

        Args:
            x_NT: windows in the signal's unit; finite in the first ``num_samples_N`` of a row, the rest does
                not matter.
            num_samples_N: real samples of each window.
            leads: lead of each window.

        Returns:
            y_NT (padding is 0), offset_N and scale_N. A row's result depends on that row alone, to the bit.

        Raises:
            ConfigError: ``kind`` is ``lead`` and a lead was not there in training.
        """
        y_NT = np.empty(x_NT.shape, np.float32)
        offset_N, scale_N = self._constants(leads)
        for rows, length in equally_long(num_samples_N):
            # float64: the sums of raw counts with a large offset would lose the signal in float32.
            signal_nt = self._filter(x_NT[rows, :length].astype(np.float64))
            if self.kind == "window":
                offset_N[rows], std_n = _mean_and_std(signal_nt)
                scale_N[rows] = np.maximum(std_n, self.floor)
            # Rounded to float32, as the table stores them, before they are used.
            signal_nt -= offset_N[rows, None]
            np.divide(signal_nt, scale_N[rows, None], out=signal_nt)
            y_NT[rows, :length] = signal_nt
            y_NT[rows, length:] = 0
        return y_NT, offset_N, scale_N

    def _filter(self, signal_nt: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if self.baseline_samples:
            signal_nt -= moving_average(signal_nt, self.baseline_samples)
        for _ in range(2 if self.smoothing_samples else 0):
            signal_nt = moving_average(signal_nt, self.smoothing_samples)
        return signal_nt

    def _constants(self, leads: Sequence[str]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Offset and scale of each window as far as its lead decides them."""
        if self.kind != "lead":
            return np.zeros(len(leads), np.float32), np.ones(len(leads), np.float32)
        offset_N = np.array([self._of_lead(self.offset, lead) for lead in leads], np.float32)
        scale_N = np.array([self._of_lead(self.scale, lead) for lead in leads], np.float64)
        return offset_N, np.maximum(scale_N, self.floor).astype(np.float32)

    def _of_lead(self, values: Mapping[str, float], lead: str) -> float:
        if lead not in values:
            raise ConfigError(
                "leads",
                lead,
                "the model's normaliser has no statistics of this lead",
                f"Choose from {', '.join(values)}, or a model trained on it.",
            )
        return values[lead]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, without the filters that are not there; :meth:`from_json` gives it back."""
        return {name: value for name, value in asdict(self).items() if value != 0}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Normaliser:
        """From the JSON object of a checkpoint."""
        return cls(**data)


def fit_lead_normaliser(
    x_NT: npt.NDArray[Any],
    num_samples_N: npt.NDArray[np.integer[Any]],
    leads: Sequence[str],
    *,
    floor: float = DEFAULT_FLOOR,
) -> Normaliser:
    """A ``lead`` normaliser with each lead's mean and standard deviation over all real samples given."""
    names = np.asarray(leads)
    is_real_NT = np.arange(x_NT.shape[1]) < np.asarray(num_samples_N)[:, None]
    offset, scale = {}, {}
    for lead in dict.fromkeys(leads):
        is_lead_N = names == lead
        samples = x_NT[is_lead_N][is_real_NT[is_lead_N]].astype(np.float64)
        offset[lead], scale[lead] = float(samples.mean()), max(float(samples.std()), floor)
    return Normaliser("lead", offset=offset, scale=scale, floor=floor)


def moving_average(x_NT: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """Centred means over ``width`` samples (odd), of each row alone; fewer samples at both ends.

    Args:
        x_NT: rows without padding.
        width: odd number of samples.
    """
    num_samples, reach = x_NT.shape[1], min(width // 2, x_NT.shape[1])
    running_NT = np.empty((len(x_NT), num_samples + 1))
    running_NT[:, 0] = 0
    np.cumsum(x_NT, axis=1, out=running_NT[:, 1:])
    means_NT = np.empty(x_NT.shape)
    means_NT[:, : num_samples - reach] = running_NT[:, reach + 1 :]
    means_NT[:, num_samples - reach :] = running_NT[:, -1:]
    means_NT[:, reach:] -= running_NT[:, : num_samples - reach]
    means_NT /= _num_averaged(num_samples, reach)
    return means_NT


@lru_cache(maxsize=8)
def _num_averaged(num_samples: int, reach: int) -> npt.NDArray[np.float64]:
    """Samples of a signal that lie within reach of each of them."""
    places_T = np.arange(num_samples)
    return np.asarray(np.minimum(places_T + reach + 1.0, num_samples) - np.maximum(places_T - reach, 0))


def _mean_and_std(
    signal_nt: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Of each row. A row of nothing gives 0 and 0."""
    num_samples = max(signal_nt.shape[1], 1)
    mean_n = signal_nt.sum(axis=1) / num_samples
    deviation_nt = signal_nt - mean_n[:, None]
    return mean_n, np.sqrt(np.einsum("nt,nt->n", deviation_nt, deviation_nt) / num_samples)
