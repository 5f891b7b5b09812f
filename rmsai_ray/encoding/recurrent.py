"""The source documents' network on lanes: models/recurrent.py in matrix products and compiled loops.

Shapes: L lanes (windows side by side), T samples, E dimensions of the embedding, H = 2E states, G gates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from rmsai_ray.encoding.kernels import lstm_gates, weighted_sum
from rmsai_ray.encoding.lanes import LaneResult
from rmsai_ray.encoding.lstm import Lstm
from rmsai_ray.models.bundle import ModelSpec

FloatArray = npt.NDArray[np.float32]


class RecurrentLanes:
    """A network of the family ``recurrent``. All layers of a half take a step before any takes the next, so
    that no layer's states are kept, and the decoder's first layer multiplies its constant input only once."""

    def __init__(self, spec: ModelSpec, tensors: Mapping[str, FloatArray]) -> None:
        self.embedding_dim = spec.embedding_dim
        self._layers = {
            name: Lstm(tensors, name)
            for name in ("encoder.rnn1", "encoder.rnn2", "decoder.rnn1", "decoder.rnn2")
        }
        self._output_H = np.ascontiguousarray(tensors["decoder.output_layer.weight"][0])
        self._output_bias = tensors["decoder.output_layer.bias"][0]
        self._constant = self._layers["decoder.rnn1"]

    @property
    def matrices(self) -> Iterator[FloatArray]:
        """Every matrix that lanes are multiplied by."""
        yield from (lstm.weight_GK for lstm in self._layers.values() if lstm is not self._constant)
        yield from (self._constant.hidden_GH, self._constant.input_GI)

    def run(self, x_LT: FloatArray) -> LaneResult:
        """Embeddings and reconstructions of normalised windows; no beats."""
        x_TL = np.ascontiguousarray(x_LT.T)
        embedding_EL = self._encode(x_TL)
        y_TL = self._decode(embedding_EL, np.empty_like(x_TL))
        return LaneResult(embedding_EL, x_TL, y_TL, np.zeros((len(x_LT), 0), np.bool_))

    def _encode(self, x_TL: FloatArray) -> FloatArray:
        first, second = (_Stepper(self._layers[f"encoder.rnn{n}"], x_TL.shape[1]) for n in (1, 2))
        for x_L in x_TL:
            first.inputs_IL[0] = x_L
            first.step(second.inputs_IL)
            second.step(second.states_HL)
        return second.states_HL

    def _decode(self, embedding_EL: FloatArray, y_TL: FloatArray) -> FloatArray:
        first = _Stepper(self._constant, y_TL.shape[1], constant_EL=embedding_EL)
        second = _Stepper(self._layers["decoder.rnn2"], y_TL.shape[1])
        for y_L in y_TL:
            first.step(second.inputs_IL)
            second.step(second.states_HL)
            weighted_sum(second.states_HL, self._output_H, self._output_bias, y_L)
        return y_TL


class _Stepper:
    """One layer between two steps. With a constant input, its part of the gates is made once."""

    def __init__(self, lstm: Lstm, num_lanes: int, constant_EL: FloatArray | None = None) -> None:
        self._gates_GL = np.empty((4 * lstm.num_states, num_lanes), np.float32)
        self._cell_HL = np.zeros((lstm.num_states, num_lanes), np.float32)
        self._added_GL: FloatArray | None = None
        num_rows = lstm.num_states if constant_EL is not None else lstm.weight_GK.shape[1]
        self._weight = lstm.weight_GK if constant_EL is None else lstm.hidden_GH
        if constant_EL is not None:
            self._added_GL = np.matmul(lstm.input_GI, constant_EL) + lstm.bias_G[:, None]
        self._rows_KL = np.ones((num_rows, num_lanes), np.float32)
        self._rows_KL[: lstm.num_states] = 0
        self.states_HL = self._rows_KL[: lstm.num_states]
        self.inputs_IL = self._rows_KL[lstm.num_states : -1]

    def step(self, next_inputs_HL: FloatArray) -> None:
        """One step; the new state goes to the next layer's inputs, too."""
        np.matmul(self._weight, self._rows_KL, out=self._gates_GL)
        if self._added_GL is not None:
            np.add(self._gates_GL, self._added_GL, out=self._gates_GL)
        lstm_gates(self._gates_GL, self._cell_HL, self.states_HL, next_inputs_HL)
