"""The default family's beats and their grid, window by window; the rule is models/framed.py's, to the bit.

Nothing here is contracted or reordered, so that no peak is a peak on one path alone.

Shapes: L lanes (windows), T samples, S frames, G places per frame of the beats' grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rmsai_ray.encoding.kernels import ONE, compiled
from rmsai_ray.models.beat_rule import (
    APART_S,
    BLUR_S,
    ENERGY_S,
    GRID_SAMPLES,
    LEAST_ENERGY,
    LEAST_SHARE,
    SECTION_S,
    SLOPE_S,
    odd_samples,
)

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


def find_beats(x_LT: FloatArray, fs: float) -> BoolArray:
    """Where each window has a beat, (L, T)."""
    is_beat_LT = np.zeros(x_LT.shape, np.bool_)
    widths = (odd_samples(ENERGY_S, fs), odd_samples(ENERGY_S / 2, fs), odd_samples(2 * APART_S, fs))
    section = min(x_LT.shape[1], round(SECTION_S * fs))
    least = np.float32(LEAST_SHARE), np.float32(LEAST_ENERGY)  # arguments: a constant would be kept compiled
    _find_beats(x_LT, max(1, round(SLOPE_S / 2 * fs)), *widths, section, *least, is_beat_LT)
    return is_beat_LT


def fill_grid(is_beat_LT: BoolArray, fs: float, grid_SGL: FloatArray) -> None:
    """The beats, blurred, on the grid, frame by frame."""
    radii = np.array([odd_samples(width_s, fs) // 2 for width_s in BLUR_S])
    grid_SGL[:] = 0
    _fill_grid(is_beat_LT, radii, GRID_SAMPLES, grid_SGL)


@compiled
def _find_beats(
    x_LT: FloatArray,
    reach: int,
    first_width: int,
    second_width: int,
    apart: int,
    section: int,
    least_share: Any,
    least_energy: Any,
    is_beat_LT: BoolArray,
) -> None:
    num_samples = x_LT.shape[1]
    slope_T, energy_T = np.zeros(num_samples, np.float32), np.empty(num_samples, np.float32)
    largest_T = np.empty(num_samples + apart - 1, np.float32)
    for lane in range(len(x_LT)):
        before_T, after_T = x_LT[lane, : -2 * reach], x_LT[lane, 2 * reach :]
        inner_T = slope_T[reach:]
        for t in range(len(after_T)):
            slope = after_T[t] - before_T[t]
            inner_T[t] = slope * slope
        for t in range(num_samples - reach, num_samples):
            slope_T[t] = 0
        for t in range(reach):
            slope_T[t] = 0
        _moving(slope_T, first_width, energy_T)
        _moving(energy_T, second_width, slope_T)
        level = _middle_maximum(slope_T, section)
        least = max(least_share * level, least_energy)
        _moving_maximum(slope_T, apart, largest_T)
        for t in range(num_samples):
            is_beat_LT[lane, t] = (slope_T[t] == largest_T[t]) & (slope_T[t] > least)


@compiled
def _moving(x_T: FloatArray, width: int, mean_T: FloatArray) -> None:
    """Means over ``width`` samples, summed from left to right, with zeros beyond both ends."""
    reach = width // 2
    for t in range(len(mean_T)):
        mean_T[t] = 0
    for k in range(-reach, reach + 1):
        target_T, source_T = mean_T[max(0, -k) :], x_T[max(0, k) :]
        for t in range(min(len(target_T), len(source_T))):
            target_T[t] += source_T[t]
    for t in range(len(mean_T)):
        mean_T[t] /= np.float32(width)


@compiled
def _middle_maximum(x_T: FloatArray, section: int) -> Any:
    """The median of the largest values of sections, in which the smallest is drawn out again and again."""
    num_sections = len(x_T) // section
    maxima_N = np.zeros(num_sections, np.float32)
    for n in range(num_sections):
        for t in range(n * section, (n + 1) * section):
            maxima_N[n] = max(maxima_N[n], x_T[t])
    for n in range(1, num_sections):
        value, place = maxima_N[n], n
        while place > 0 and maxima_N[place - 1] > value:
            maxima_N[place] = maxima_N[place - 1]
            place -= 1
        maxima_N[place] = value
    middle = num_sections // 2
    return (maxima_N[max(0, middle - 1)] + maxima_N[middle]) / np.float32(2)


@compiled
def _moving_maximum(x_T: FloatArray, width: int, largest_T: FloatArray) -> None:
    """The largest of ``width`` samples (odd) around each; energies are not negative.

    Windows double in length, until two of them cover the width; ``largest_T`` is ``width - 1`` longer.
    """
    reach, length = width // 2, 1
    for t in range(reach):
        largest_T[t] = 0
    for t in range(reach + len(x_T), len(largest_T)):
        largest_T[t] = 0
    inner_T = largest_T[reach:]
    for t in range(len(x_T)):
        inner_T[t] = x_T[t]
    while 2 * length <= width:
        later_T = largest_T[length:]
        for t in range(len(later_T)):
            largest_T[t] = max(largest_T[t], later_T[t])
        length *= 2
    later_T = largest_T[width - length :]
    for t in range(len(x_T)):
        largest_T[t] = max(largest_T[t], later_T[t])


@compiled
def _fill_grid(is_beat_LT: BoolArray, radii: Any, place_samples: int, grid_SGL: FloatArray) -> None:
    """Adds a triangle per beat and radius: how many samples two boxes share, averaged over each place."""
    num_lanes, num_samples = is_beat_LT.shape
    places = grid_SGL.shape[1] // len(radii)
    for lane in range(num_lanes):
        for beat in range(num_samples):
            if not is_beat_LT[lane, beat]:
                continue
            for b in range(len(radii)):
                radius = radii[b]
                share = ONE / np.float32((2 * radius + 1) * place_samples)
                for t in range(max(0, beat - 2 * radius), min(num_samples, beat + 2 * radius + 1)):
                    first = max(t - radius, beat - radius, 0)
                    last = min(t + radius, beat + radius, num_samples - 1)
                    place = t // place_samples
                    row = b * places + place % places
                    grid_SGL[place // places, row, lane] += (last - first + 1) * share
