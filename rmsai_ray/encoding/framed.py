"""The default family on lanes: the network of models/framed.py in matrix products and compiled loops.

Shapes: L lanes (windows side by side), T samples, S frames of F samples, G places per frame of the beats'
grid, H states of one direction, D of a stem, E dimensions of the embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from rmsai_ray.encoding.beats import fill_grid, find_beats
from rmsai_ray.encoding.kernels import frame_moments, gelu, tanh_rows
from rmsai_ray.encoding.lanes import Buffers, LaneResult
from rmsai_ray.encoding.lstm import Lstm
from rmsai_ray.models.bundle import ModelSpec

FloatArray = npt.NDArray[np.float32]

LEAST_VARIANCE = np.float32(1e-6)


class FramedLanes:
    """A network of the family ``framed``."""

    def __init__(self, spec: ModelSpec, tensors: Mapping[str, FloatArray]) -> None:
        self.embedding_dim = spec.embedding_dim
        self._fs = float(spec.architecture["sampling_rate_hz"])
        self._frame_samples = int(spec.architecture["frame_samples"])
        self._num_frames = spec.window_samples // self._frame_samples
        self._buffers = Buffers()
        self._encoder = _BothWays(tensors, "encoder")
        self._decoder = _BothWays(tensors, "decoder")
        self._to_embedding_E4H = tensors["to_embedding.weight"]
        self._embedding_bias_E = tensors["to_embedding.bias"]
        self._head_in, self._head_in_bias = tensors["head.0.weight"], tensors["head.0.bias"]
        self._head_out, self._head_out_bias = tensors["head.2.weight"], tensors["head.2.bias"]
        self._samples_DF = np.ascontiguousarray(self._encoder.stem_DI[:, : self._frame_samples])
        self._beats_DG = np.ascontiguousarray(self._encoder.stem_DI[:, self._frame_samples :])
        self._embedding_DE = np.ascontiguousarray(self._decoder.stem_DI[:, : spec.embedding_dim])
        self._places_DG = np.ascontiguousarray(self._decoder.stem_DI[:, spec.embedding_dim :])

    @property
    def matrices(self) -> Iterator[FloatArray]:
        """Every matrix that lanes are multiplied by."""
        yield from (self._encoder.stem_DI, self._embedding_DE, self._places_DG, self._to_embedding_E4H)
        yield from (lstm.weight_GK for half in (self._encoder, self._decoder) for lstm in half.directions)
        yield from (self._head_in, self._head_out)

    def run(self, x_LT: FloatArray) -> LaneResult:
        """Embeddings, reconstructions and beats of normalised windows."""
        num_frames, num_lanes, num_places = self._num_frames, len(x_LT), self._places_DG.shape[1]
        is_beat_LT = find_beats(x_LT, self._fs)
        grid_SGL = self._buffers.get("grid", num_frames, num_places, num_lanes)
        fill_grid(is_beat_LT, self._fs, grid_SGL)
        x_SFL = self._buffers.get("x", num_frames, self._frame_samples, num_lanes)
        x_SFL[:] = x_LT.T.reshape(x_SFL.shape)
        embedding_EL = self._encode(x_SFL, grid_SGL)
        y_SFL = self._decode(embedding_EL, grid_SGL)
        x_TL, y_TL = (frames.reshape(-1, num_lanes) for frames in (x_SFL, y_SFL))
        return LaneResult(embedding_EL, x_TL, y_TL, is_beat_LT)

    def _encode(self, x_SFL: FloatArray, grid_SGL: FloatArray) -> FloatArray:
        num_lanes = x_SFL.shape[2]
        input_SIL = self._buffers.get("input", len(x_SFL), self._encoder.stem_DI.shape[1], num_lanes)
        input_SIL[:, : self._frame_samples], input_SIL[:, self._frame_samples :] = x_SFL, grid_SGL
        bias_DL = np.repeat(self._encoder.stem_bias_D[:, None], num_lanes, 1)
        states_SHL = self._encoder.run(self._encoder.stem_DI, input_SIL, bias_DL, self._buffers)
        moments_KL = self._buffers.get("moments", 2 * states_SHL.shape[1], num_lanes)
        frame_moments(states_SHL, x_SFL, moments_KL, LEAST_VARIANCE)
        embedding_EL: FloatArray = np.matmul(self._to_embedding_E4H, moments_KL)
        return embedding_EL + self._embedding_bias_E[:, None]

    def _decode(self, embedding_EL: FloatArray, grid_SGL: FloatArray) -> FloatArray:
        added_DL = np.matmul(self._embedding_DE, embedding_EL) + self._decoder.stem_bias_D[:, None]
        states_SHL = self._decoder.run(self._places_DG, grid_SGL, added_DL, self._buffers)
        num_frames, num_lanes = len(states_SHL), states_SHL.shape[2]
        head_SKL = self._buffers.get("head", num_frames, len(self._head_in), num_lanes)
        gelu(np.matmul(self._head_in, states_SHL, out=head_SKL), self._head_in_bias)
        y_SFL = self._buffers.get("y", num_frames, len(self._head_out), num_lanes)
        np.matmul(self._head_out, head_SKL, out=y_SFL)
        y_SFL += self._head_out_bias[:, None]
        return y_SFL


class _BothWays:
    """A stem (linear, tanh) and an LSTM that reads the frames from both ends."""

    def __init__(self, tensors: Mapping[str, FloatArray], half: str) -> None:
        self.stem_DI, self.stem_bias_D = tensors[f"{half}_stem.0.weight"], tensors[f"{half}_stem.0.bias"]
        self.directions = [Lstm(tensors, f"{half}_rnn", suffix) for suffix in ("l0", "l0_reverse")]

    def run(
        self, stem_DI: FloatArray, input_SIL: FloatArray, added_DL: FloatArray, buffers: Buffers
    ) -> FloatArray:
        """States of both directions, one below the other, (S, 2H, L)."""
        num_frames, _, num_lanes = input_SIL.shape
        num_states = self.directions[0].num_states
        rows = slice(num_states, num_states + len(stem_DI))
        num_rows = self.directions[0].weight_GK.shape[1]
        forth, back = (buffers.get(name, num_frames, num_rows, num_lanes) for name in ("forth", "back"))
        forth[:, -1] = back[:, -1] = 1  # what the biases are multiplied by
        np.matmul(stem_DI, input_SIL, out=forth[:, rows])
        tanh_rows(forth, num_states, added_DL)
        back[:, rows] = forth[::-1, rows]
        states_SHL = buffers.get("states", num_frames, 2 * num_states, num_lanes)
        self.directions[0].run(forth, states_SHL[:, :num_states])
        self.directions[1].run(back, states_SHL[::-1, num_states:])
        return states_SHL
