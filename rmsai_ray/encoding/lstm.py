"""An LSTM over lanes: one matrix product and one pass over the gates per step.

Shapes: L lanes (windows side by side), S steps, H states, I inputs, K = H + I + 1 rows of a step's block
(state, input, and the 1 that the bias is multiplied by), G = 4H gates.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from rmsai_ray.encoding.kernels import lstm_gates

FloatArray = npt.NDArray[np.float32]


class Lstm:
    """One direction of one layer, from torch's tensors.

    The gates come in the order input, forget, output, candidate, the first three halved, as
    :func:`lstm_gates` wants them.
    """

    def __init__(self, tensors: Mapping[str, FloatArray], name: str, suffix: str = "l0") -> None:
        self.hidden_GH = _reordered(tensors[f"{name}.weight_hh_{suffix}"])
        self.input_GI = _reordered(tensors[f"{name}.weight_ih_{suffix}"])
        self.bias_G = _reordered(tensors[f"{name}.bias_ih_{suffix}"] + tensors[f"{name}.bias_hh_{suffix}"])
        self.weight_GK = np.concatenate([self.hidden_GH, self.input_GI, self.bias_G[:, None]], 1)
        self.num_states, self.num_inputs = self.hidden_GH.shape[1], self.input_GI.shape[1]

    def run(self, block_SKL: FloatArray, states_SHL: FloatArray) -> None:
        """All steps; the state after each goes to ``states_SHL``, and to the next step's rows.

        Args:
            block_SKL: rows of the state (overwritten), of the input, and a row of ones.
            states_SHL: the states, from the first step to the last.
        """
        num_lanes, last = block_SKL.shape[2], len(block_SKL) - 1
        gates_GL = np.empty((4 * self.num_states, num_lanes), np.float32)
        cell_HL = np.zeros((self.num_states, num_lanes), np.float32)
        block_SKL[0, : self.num_states] = 0
        for s, rows_KL in enumerate(block_SKL):
            np.matmul(self.weight_GK, rows_KL, out=gates_GL)
            lstm_gates(gates_GL, cell_HL, block_SKL[min(s + 1, last)], states_SHL[s])


def _reordered(weights: FloatArray) -> FloatArray:
    """Torch's order of the gates is input, forget, candidate, output."""
    i, f, g, o = np.split(weights, 4)
    return np.concatenate([i / 2, f / 2, o / 2, g]).astype(np.float32)
