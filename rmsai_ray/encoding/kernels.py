"""The inner loops that numpy has no fast function for, compiled by numba when they are first called.

Shapes: L lanes, i.e. windows side by side, always the last axis, so that one instruction works on many
windows and none of them meets another; H states, K rows of a block, S frames, T samples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

FloatArray = npt.NDArray[np.float32]
Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(kernel: Kernel, **options: Any) -> Kernel:
    """``numba.njit`` that leaves the type alone; frees the interpreter while it runs.

    Machine code is kept beside the source or in the user's cache, so that only the first process compiles.
    """
    compile_ = functools.partial(njit, nogil=True, error_model="numpy", **options)
    try:
        return cast("Kernel", compile_(cache=True)(kernel))
    except RuntimeError:  # neither place can be written to: every process compiles
        return cast("Kernel", compile_()(kernel))


def fused(kernel: Kernel) -> Kernel:
    """:func:`compiled`, and multiplications and additions may become one instruction: a lane's bits still
    depend on that lane alone."""
    return compiled(kernel, fastmath={"contract", "nnan", "ninf", "nsz"})


ONE, HALF = np.float32(1), np.float32(0.5)

# x · P(x²) / Q(x²), fitted to the largest error, with Q(0) = 1; the first to tanh, the second to erf.
TANH_END = np.float32(8.0)
P0, P1, P2, P3, P4 = map(np.float32, (0.99999997, 0.134382357, 0.00356420893, 2.1774116e-05, 1.50630288e-08))
Q1, Q2, Q3, Q4 = map(np.float32, (0.467715565, 0.0261362167, 0.000339926574, 8.45415728e-07))
ERF_END = np.float32(3.9)
E0, E1, E2, E3, E4, E5 = map(
    np.float32, (1.12837903, 0.191939405, 0.0529667043, 0.00383680633, 0.000287455532, 2.05039798e-06)
)
F1, F2, F3, F4, F5 = map(np.float32, (0.503433647, 0.114757536, 0.0151090654, 0.00118171718, 3.82307617e-05))


@fused
def tanh_ratio(x: Any) -> Any:
    """(numerator, denominator) of tanh, to 4e-7: whoever needs several divides once."""
    x = min(max(x, -TANH_END), TANH_END)
    y = x * x
    return x * ((((P4 * y + P3) * y + P2) * y + P1) * y + P0), (((Q4 * y + Q3) * y + Q2) * y + Q1) * y + ONE


@fused
def erf(x: Any) -> Any:
    """The error function, to 5e-7."""
    x = min(max(x, -ERF_END), ERF_END)
    y = x * x
    numerator = ((((E5 * y + E4) * y + E3) * y + E2) * y + E1) * y + E0
    return x * numerator / (((((F5 * y + F4) * y + F3) * y + F2) * y + F1) * y + ONE)


@fused
def lstm_gates(gates_GL: FloatArray, cell_HL: FloatArray, state_KL: FloatArray, copy_KL: FloatArray) -> None:
    """One step of an LSTM after its matrix product; updates the cell, writes the new state twice.

    Args:
        gates_GL: input, forget and output gate (halved: σ(2x) = (1 + tanh x) / 2) and the candidate, H rows
            each, before their activation.
        cell_HL: the cell, replaced.
        state_KL, copy_KL: get the state in their first H rows.
    """
    num_states, num_lanes = cell_HL.shape
    for h in range(num_states):
        for lane in range(num_lanes):
            i, i_q = tanh_ratio(gates_GL[h, lane])
            f, f_q = tanh_ratio(gates_GL[num_states + h, lane])
            o, o_q = tanh_ratio(gates_GL[2 * num_states + h, lane])
            g, g_q = tanh_ratio(gates_GL[3 * num_states + h, lane])
            ig_q = i_q * g_q
            kept, added = (f + f_q) * cell_HL[h, lane] * ig_q, (i + i_q) * g * f_q
            cell = HALF * (kept + added) / (f_q * ig_q)
            cell_HL[h, lane] = cell
            c, c_q = tanh_ratio(cell)
            state_KL[h, lane] = HALF * c * (o + o_q) / (c_q * o_q)
        for lane in range(num_lanes):
            copy_KL[h, lane] = state_KL[h, lane]


@fused
def tanh_rows(block_SKL: FloatArray, first: int, added_RL: FloatArray) -> None:
    """Rows ``first`` and following of every step of a block become tanh(x + added)."""
    for s in range(block_SKL.shape[0]):
        for r in range(added_RL.shape[0]):
            for lane in range(added_RL.shape[1]):
                x, x_q = tanh_ratio(block_SKL[s, first + r, lane] + added_RL[r, lane])
                block_SKL[s, first + r, lane] = x / x_q


@fused
def gelu(x_SKL: FloatArray, bias_K: FloatArray) -> None:
    """x becomes GELU(x + bias), the exact one, in place."""
    scale = np.float32(0.7071067811865476)
    for s in range(x_SKL.shape[0]):
        for k in range(x_SKL.shape[1]):
            for lane in range(x_SKL.shape[2]):
                x = x_SKL[s, k, lane] + bias_K[k]
                x_SKL[s, k, lane] = HALF * x * (ONE + erf(scale * x))


@fused
def weighted_sum(x_KL: FloatArray, weight_K: FloatArray, bias: Any, sum_L: FloatArray) -> None:
    """``weight · x + bias``, row after row."""
    for lane in range(sum_L.shape[0]):
        sum_L[lane] = bias
    for k in range(weight_K.shape[0]):
        for lane in range(sum_L.shape[0]):
            sum_L[lane] += weight_K[k] * x_KL[k, lane]


@fused
def frame_moments(states_SHL: FloatArray, x_SFL: FloatArray, moments_KL: FloatArray, floor: Any) -> None:
    """Mean (first H rows) and deviation (next H) of the states over the frames that are not all 0."""
    num_frames, num_states, num_lanes = states_SHL.shape
    real_SL = np.zeros((num_frames, num_lanes), np.float32)
    num_real_L = np.zeros(num_lanes, np.float32)
    for s in range(num_frames):
        for f in range(x_SFL.shape[1]):
            for lane in range(num_lanes):
                real_SL[s, lane] = ONE if x_SFL[s, f, lane] != 0 else real_SL[s, lane]
        for lane in range(num_lanes):
            num_real_L[lane] += real_SL[s, lane]
    for lane in range(num_lanes):
        num_real_L[lane] = max(num_real_L[lane], ONE)
    for k in range(2 * num_states):
        for lane in range(num_lanes):
            moments_KL[k, lane] = 0
    for s in range(num_frames):
        for h in range(num_states):
            for lane in range(num_lanes):
                moments_KL[h, lane] += states_SHL[s, h, lane] * real_SL[s, lane]
    for h in range(num_states):
        for lane in range(num_lanes):
            moments_KL[h, lane] /= num_real_L[lane]
    for s in range(num_frames):
        for h in range(num_states):
            for lane in range(num_lanes):
                difference = states_SHL[s, h, lane] - moments_KL[h, lane]
                moments_KL[num_states + h, lane] += difference * difference * real_SL[s, lane]
    for h in range(num_states):
        for lane in range(num_lanes):
            variance = moments_KL[num_states + h, lane] / num_real_L[lane]
            moments_KL[num_states + h, lane] = np.sqrt(variance + floor)
