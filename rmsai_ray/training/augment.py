"""Changes to training windows after which they are still ECGs: other rates, other places, other polarity.

Shapes: B windows, T samples of a window.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FLIPPED_SHARE = 0.2
SLOWEST, FASTEST = 0.75, 1.2
"""Factors on the heart rate."""
CUT_SHARE, MOST_CUT = 0.25, 0.25
"""So many windows lose up to so much of their beginning; what is left moves forward, padding follows."""


def augment(
    x_BT: npt.NDArray[np.float32], num_samples_B: npt.NDArray[np.int32], rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Changed copies of windows, and how many samples of each are real."""
    y_BT, num_real_B = np.zeros_like(x_BT), np.empty_like(num_samples_B)
    for row, (x_T, num_samples) in enumerate(zip(x_BT, num_samples_B.tolist(), strict=True)):
        y_T = _stretch(_cut(x_T[:num_samples], rng), rng, x_BT.shape[1])
        y_BT[row, : len(y_T)] = -y_T if rng.random() < FLIPPED_SHARE else y_T
        num_real_B[row] = len(y_T)
    return y_BT, num_real_B


def _cut(x_T: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    return x_T[int(rng.uniform(0, MOST_CUT) * len(x_T)) :] if rng.random() < CUT_SHARE else x_T


def _stretch(
    x_T: npt.NDArray[np.float32], rng: np.random.Generator, max_samples: int
) -> npt.NDArray[np.float64]:
    """At another speed; from a random place on where it became too long."""
    speed = np.exp(rng.uniform(np.log(SLOWEST), np.log(FASTEST)))
    num_samples = max(1, min(max_samples, int(len(x_T) / speed)))
    spare = max(0.0, len(x_T) - num_samples * speed)
    places = rng.uniform(0, spare) + speed * np.arange(num_samples)
    y_T: npt.NDArray[np.float64] = np.interp(places, np.arange(len(x_T)), x_T)
    return y_T
