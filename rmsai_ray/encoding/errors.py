"""How far a reconstruction is from its window: as a mean, and in the worst part of the window.

Shapes: L lanes or B rows (windows), T samples.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmsai_ray.encoding.kernels import compiled, fused

FloatArray = npt.NDArray[np.float32]

SMOOTHING_S, WORST_STEP_S, WORST_SHARE = 0.045, 0.05, 0.05
"""Of the worst part: residuals are smoothed over the first, squared and averaged in steps of the second, and
the worst twentieth of the steps counts (0.6 s of 12 s)."""


def worst_part_samples(fs: float) -> tuple[int, int]:
    """(samples of a step, samples that are smoothed over)."""
    return max(1, round(WORST_STEP_S * fs)), 2 * round(SMOOTHING_S * fs / 2) + 1


def lane_errors(
    x_TL: FloatArray, y_TL: FloatArray, num_samples_L: npt.NDArray[np.int32], fs: float
) -> FloatArray:
    """Mean squared, mean absolute and worst squared error of each lane over its real samples, (3, L)."""
    step, width = worst_part_samples(fs)
    errors_3L = np.empty((3, x_TL.shape[1]), np.float32)
    steps_GL = np.empty((len(x_TL) // step, x_TL.shape[1]), np.float32)
    _lane_errors(x_TL, y_TL, num_samples_L, step, width, errors_3L, steps_GL)
    _worst_steps(steps_GL, num_samples_L, step, errors_3L)
    return errors_3L


@fused
def _lane_errors(
    x_TL: FloatArray,
    y_TL: FloatArray,
    num_samples_L: npt.NDArray[np.int32],
    step: int,
    width: int,
    errors_3L: FloatArray,
    steps_GL: FloatArray,
) -> None:
    """The two means, and the squared, smoothed difference of every whole step."""
    num_samples, num_lanes = x_TL.shape
    reach = width // 2
    difference_TL = np.zeros((num_samples + 2 * reach, num_lanes), np.float32)
    sums_2L, part_2L = np.zeros((2, num_lanes)), np.zeros((2, num_lanes), np.float32)
    for t in range(num_samples):
        for lane in range(num_lanes):
            difference = y_TL[t, lane] - x_TL[t, lane] if t < num_samples_L[lane] else np.float32(0)
            difference_TL[reach + t, lane] = difference
            part_2L[0, lane] += difference * difference
            part_2L[1, lane] += abs(difference)
        if t % step == step - 1 or t == num_samples - 1:
            for lane in range(num_lanes):
                for n in range(2):
                    sums_2L[n, lane] += part_2L[n, lane]
                    part_2L[n, lane] = 0
    for lane in range(num_lanes):
        errors_3L[0, lane] = sums_2L[0, lane] / num_samples_L[lane]
        errors_3L[1, lane] = sums_2L[1, lane] / num_samples_L[lane]
    smooth_L, scale = np.empty(num_lanes, np.float32), np.float32(1 / width)
    for g in range(len(steps_GL)):
        for lane in range(num_lanes):
            steps_GL[g, lane] = 0
        for t in range(g * step, (g + 1) * step):
            for lane in range(num_lanes):
                smooth_L[lane] = 0
            for k in range(width):
                for lane in range(num_lanes):
                    smooth_L[lane] += difference_TL[t + k, lane]
            for lane in range(num_lanes):
                smooth = smooth_L[lane] * scale
                steps_GL[g, lane] += smooth * smooth
        for lane in range(num_lanes):
            steps_GL[g, lane] /= np.float32(step)


@compiled
def _worst_steps(
    steps_GL: FloatArray, num_samples_L: npt.NDArray[np.int32], step: int, errors_3L: FloatArray
) -> None:
    """The mean of each lane's largest steps; its mean error where it has no whole step."""
    largest_N = np.empty(max(1, len(steps_GL)), np.float32)
    for lane in range(steps_GL.shape[1]):
        num_steps = min(len(steps_GL), num_samples_L[lane] // step)
        num_worst = max(1, round(num_steps * WORST_SHARE))
        if num_steps == 0:
            errors_3L[2, lane] = errors_3L[0, lane]
            continue
        for place in range(num_worst):
            largest_N[place] = -1
        for g in range(num_steps):
            place = num_worst - 1
            if steps_GL[g, lane] <= largest_N[place]:
                continue
            while place > 0 and largest_N[place - 1] < steps_GL[g, lane]:
                largest_N[place] = largest_N[place - 1]
                place -= 1
            largest_N[place] = steps_GL[g, lane]
        total = 0.0
        for place in range(num_worst):
            total += largest_N[place]
        errors_3L[2, lane] = total / num_worst
