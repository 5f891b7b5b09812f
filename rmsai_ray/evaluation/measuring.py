"""What a model, an untrained one like it and the rhythm say of every window, measured once."""

from __future__ import annotations

from dataclasses import replace

from rmsai_ray.detection.measured import Measured
from rmsai_ray.encoding.encoder import WindowEncoder
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.checkpoint import untrained_like
from rmsai_ray.signals.rhythm import Rhythm, rhythm
from rmsai_ray.training.data import WindowSet


class Measurer:
    """Measures the windows of one corpus, each model once."""

    def __init__(self, windows: WindowSet, *, seed: int) -> None:
        self.windows, self._seed = windows, seed
        self._measured: dict[str, Measured] = {}
        self._rhythm: Rhythm | None = None

    def measured(self, bundle: ModelBundle) -> Measured:
        """Of every window."""
        if bundle.model_id not in self._measured:
            self._measured[bundle.model_id] = self._measure(bundle)
        return self._measured[bundle.model_id]

    def untrained(self, bundle: ModelBundle) -> Measured:
        """The same by a network of the same kind whose weights were drawn at random."""
        like = untrained_like(bundle.spec, seed=self._seed)
        return self.measured(replace(like, normaliser=bundle.normaliser))

    def _measure(self, bundle: ModelBundle) -> Measured:
        windows, fs = self.windows, bundle.spec.sampling_rate_hz
        if self._rhythm is None:
            self._rhythm = rhythm(windows.signals_NT, windows.num_samples_N, fs)
        encoded = WindowEncoder(bundle).encode(
            windows.signals_NT, windows.num_samples_N, windows.leads_N.tolist()
        )
        return Measured(
            embedding_NE=encoded.embedding_NE,
            mse_N=encoded.mse_N,
            worst_mse_N=encoded.worst_mse_N,
            mae_N=encoded.mae_N,
            rhythm=self._rhythm,
            leads_N=windows.leads_N,
        )
