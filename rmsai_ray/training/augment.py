"""Changes to training windows after which they are still ECGs: other rates, places, sizes, disturbances.

Shapes: B windows, T samples of a window, K keypoints (R peaks, say) of a window.

Every module takes the real samples of one window with the places of its keypoints, and gives both back; what
it draws comes from the window's own generator, so that a window's fate depends on its seed alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rmsai_ray.errors import ConfigError

Array = npt.NDArray[np.floating[Any]]

WARP_KNOTS = 4
MOST_LOCAL_SPEED = 1.5
"""However the knots of a warp fall, no part runs faster than this, nor slower than its inverse."""
MAINS_HZ = (50.0, 60.0)
WANDER_HZ = (0.05, 0.5)
"""From slow drift to breathing."""


class Module(Protocol):
    """One kind of change."""

    def __call__(
        self, x_T: Array, places_K: Array, rng: np.random.Generator, *, fs: float, max_samples: int
    ) -> tuple[Array, Array]:
        """At most ``max_samples`` changed samples, and the keypoints' new places; NaN for those gone."""
        ...


@dataclass(frozen=True)
class Stretch:
    """Another speed, from a random place on where the window became too long; moves keypoints."""

    slowest: float
    fastest: float
    """Factors on the heart rate."""
    warp: float = 0.0
    """Standard deviation of the logarithm of the local speed at the knots of a further, uneven stretch."""

    def __call__(
        self, x_T: Array, places_K: Array, rng: np.random.Generator, *, fs: float, max_samples: int
    ) -> tuple[Array, Array]:
        """Interpolates linearly."""
        speed = np.exp(rng.uniform(np.log(self.slowest), np.log(self.fastest)))
        num_samples = max(1, min(max_samples, int(len(x_T) / speed)))
        spare = max(0.0, len(x_T) - 1 - (num_samples - 1) * speed)
        from_T = rng.uniform(0, spare) + speed * np.arange(num_samples)
        if self.warp:
            from_T = _warped(from_T, self.warp, rng)
        y_T: Array = np.interp(from_T, np.arange(len(x_T)), x_T)
        moved_K = np.interp(places_K, from_T, np.arange(num_samples), left=np.nan, right=np.nan)
        return y_T, np.where(np.isnan(places_K), np.nan, moved_K)  # one sample alone takes NaN for itself


@dataclass(frozen=True)
class Cut:
    """A share of the windows loses up to so much of its beginning; the rest moves forward."""

    share: float
    most: float

    def __call__(
        self, x_T: Array, places_K: Array, rng: np.random.Generator, *, fs: float, max_samples: int
    ) -> tuple[Array, Array]:
        """Keypoints of what was cut are NaN."""
        lost, wanted = int(rng.uniform(0, self.most) * len(x_T)), rng.random() < self.share
        if not wanted or not lost:
            return x_T, places_K
        return x_T[lost:], np.where(places_K >= lost, places_K - lost, np.nan)


@dataclass(frozen=True)
class Amplitude:
    """Another gain; a share of the windows is turned upside down."""

    lowest: float
    highest: float
    flipped_share: float = 0.0
    """More than 0 only where polarity carries no label: it also exchanges aVR for lead II, more or less."""

    def __call__(
        self, x_T: Array, places_K: Array, rng: np.random.Generator, *, fs: float, max_samples: int
    ) -> tuple[Array, Array]:
        """Keypoints stay."""
        gain = rng.uniform(self.lowest, self.highest)
        return x_T * (-gain if rng.random() < self.flipped_share else gain), places_K


@dataclass(frozen=True)
class Noise:
    """White Gaussian noise, and in a share of the windows mains hum; relative to the signal's size."""

    lowest: float
    highest: float
    mains_share: float = 0.0

    def __call__(
        self, x_T: Array, places_K: Array, rng: np.random.Generator, *, fs: float, max_samples: int
    ) -> tuple[Array, Array]:
        """Keypoints stay."""
        size = x_T.std()
        noise_T = rng.standard_normal(len(x_T), dtype=np.float32) * (
            size * rng.uniform(self.lowest, self.highest)
        )
        has_hum, mains_hz = rng.random() < self.mains_share, MAINS_HZ[rng.integers(len(MAINS_HZ))]
        if has_hum:
            noise_T += _sine(len(x_T), mains_hz, rng, fs) * (size * rng.uniform(self.lowest, self.highest))
        return x_T + noise_T, places_K


@dataclass(frozen=True)
class Wander:
    """A share of the windows on a moving baseline: one slow sine, up to so many times the signal's size."""

    share: float
    most: float

    def __call__(
        self, x_T: Array, places_K: Array, rng: np.random.Generator, *, fs: float, max_samples: int
    ) -> tuple[Array, Array]:
        """Keypoints stay."""
        height, wander_hz = rng.uniform(0, self.most) * x_T.std(), rng.uniform(*WANDER_HZ)
        wanted = rng.random() < self.share
        return (x_T + height * _sine(len(x_T), wander_hz, rng, fs) if wanted else x_T), places_K


@dataclass(frozen=True)
class Dropout:
    """A share of the windows loses contact for up to so many seconds: a flat stretch at the window's mean."""

    share: float
    most_s: float

    def __call__(
        self, x_T: Array, places_K: Array, rng: np.random.Generator, *, fs: float, max_samples: int
    ) -> tuple[Array, Array]:
        """Keypoints in the flat stretch are NaN."""
        num_lost = min(int(rng.uniform(0, self.most_s) * fs), len(x_T) - 1)
        start, wanted = int(rng.uniform(0, len(x_T) - num_lost)), rng.random() < self.share
        if not wanted:
            return x_T, places_K
        y_T = x_T.copy()
        y_T[start : start + num_lost] = x_T.mean()
        is_lost_K = (places_K >= start) & (places_K < start + num_lost)
        return y_T, np.where(is_lost_K, np.nan, places_K)


PRESETS: dict[str, tuple[Module, ...]] = {
    "none": (),
    "pretrain": (Cut(0.25, 0.25), Stretch(0.75, 1.2), Amplitude(1.0, 1.0, flipped_share=0.2)),
    "light": (
        Stretch(0.95, 1.05, warp=0.05),
        Cut(0.1, 0.1),
        Amplitude(0.95, 1.05),
        Noise(0.0, 0.01),
        Wander(0.1, 0.25),
    ),
    "medium": (
        Stretch(0.9, 1.1, warp=0.1),
        Cut(0.2, 0.1),
        Amplitude(0.9, 1.1),
        Noise(0.0, 0.03, mains_share=0.1),
        Wander(0.2, 0.5),
        Dropout(0.1, 0.5),
    ),
    "heavy": (
        Stretch(0.8, 1.2, warp=0.2),
        Cut(0.3, 0.1),
        Amplitude(0.8, 1.2),
        Noise(0.01, 0.05, mains_share=0.2),
        Wander(0.3, 1.0),
        Dropout(0.2, 1.0),
    ),
}
"""``pretrain`` is for learning waveforms whatever their rate and polarity; the next three keep polarity."""


def get_preset(name: str) -> tuple[Module, ...]:
    """The modules of a preset, in the order in which they are applied.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError("augmentation", name, "is no preset", f"Choose from {', '.join(PRESETS)}.")
    return PRESETS[name]


def augment(
    x_BT: npt.NDArray[np.float32],
    num_samples_B: npt.NDArray[np.int32],
    modules: Sequence[Module],
    seeds_B: Sequence[Sequence[int]],
    *,
    fs: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Changed copies of windows, and how many samples of each are real; padding is 0.

    Args:
        x_BT: windows, in any unit.
        num_samples_B: real samples of each.
        modules: what to do, in this order.
        seeds_B: non-negative integers that decide a window's fate.
        fs: sampling rate.
    """
    y_BT, num_real_B = np.zeros_like(x_BT), np.empty_like(num_samples_B)
    for row, (num_samples, seeds) in enumerate(zip(num_samples_B.tolist(), seeds_B, strict=True)):
        y_T, _ = augment_one(
            x_BT[row, :num_samples], _NO_PLACES, modules, seeds, fs=fs, max_samples=x_BT.shape[1]
        )
        y_BT[row, : len(y_T)], num_real_B[row] = y_T, len(y_T)
    return y_BT, num_real_B


def augment_one(
    x_T: Array,
    places_K: Array,
    modules: Sequence[Module],
    seeds: Sequence[int],
    *,
    fs: float,
    max_samples: int,
) -> tuple[Array, Array]:
    """One window's real samples and keypoints through all modules."""
    rng = np.random.Generator(np.random.PCG64(seeds))
    for module in modules:
        x_T, places_K = module(x_T, places_K, rng, fs=fs, max_samples=max_samples)
    return x_T, places_K


def augment_batch(
    batch: Mapping[str, Any], *, preset: str, seed: int, fs: float, epoch: int = 0
) -> dict[str, Any]:
    """For Ray Data's ``map_batches``, batch format numpy.

    Takes and gives ``signal`` (B, T) float32, ``num_samples`` (B,) int32 and, where it is there, ``r_peaks``
    (B, K) float, places in samples, NaN where there are fewer. ``number`` (B,) decides with seed and epoch
    each window's fate. Other columns pass through.
    """
    modules, x_BT = get_preset(preset), np.asarray(batch["signal"], np.float32)
    peaks_BK = np.asarray(batch.get("r_peaks", np.empty((len(x_BT), 0))), np.float64).copy()
    y_BT, num_real_B = np.zeros_like(x_BT), np.asarray(batch["num_samples"], np.int32).copy()
    for row, number in enumerate(np.asarray(batch["number"]).tolist()):
        y_T, peaks_BK[row] = augment_one(
            x_BT[row, : num_real_B[row]],
            peaks_BK[row],
            modules,
            (seed, epoch, number),
            fs=fs,
            max_samples=x_BT.shape[1],
        )
        y_BT[row, : len(y_T)], num_real_B[row] = y_T, len(y_T)
    moved = {"r_peaks": peaks_BK} if "r_peaks" in batch else {}
    return {**batch, "signal": y_BT, "num_samples": num_real_B, **moved}


_NO_PLACES = np.empty(0)


def _warped(from_T: Array, sigma: float, rng: np.random.Generator) -> Array:
    """The same way at an uneven speed: places between the same ends, still in order."""
    bound = np.log(MOST_LOCAL_SPEED) / 2  # halved: the scaling to the same ends can double a deviation
    knots = np.exp(np.clip(rng.normal(0, sigma, WARP_KNOTS), -bound, bound))
    steps_T = np.interp(np.linspace(0, WARP_KNOTS - 1, len(from_T)), np.arange(WARP_KNOTS), knots)
    way_T = np.cumsum(steps_T) - steps_T[0]
    share_T = way_T / way_T[-1] if way_T[-1] > 0 else way_T
    warped_T: Array = from_T[0] + (from_T[-1] - from_T[0]) * share_T
    return warped_T


def _sine(num_samples: int, frequency_hz: float, rng: np.random.Generator, fs: float) -> Array:
    phase = rng.uniform(0, 2 * np.pi)
    wave_T: Array = np.sin(
        np.arange(num_samples, dtype=np.float32) * np.float32(2 * np.pi * frequency_hz / fs)
        + np.float32(phase)
    )
    return wave_T
