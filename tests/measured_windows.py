"""Made-up measurements of windows: normal ones of three leads, and others that stand out in one way each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rmsai_ray.detection.measured import Measured
from rmsai_ray.signals.rhythm import Rhythm

LEADS = ("ECG1", "ECG2", "vVX")
DIM = 8


def normal_windows(num_windows: int, seed: int, leads: tuple[str, ...] = LEADS) -> Measured:
    """Embeddings around a mean per lead, strongly correlated; log-normal errors; rates around 75 bpm."""
    rng = np.random.default_rng(seed)
    place_N = rng.integers(len(leads), size=num_windows)
    shape_EE = np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, DIM)))[0] * np.logspace(0, -2, DIM)
    embedding_NE = rng.standard_normal((num_windows, DIM)) @ shape_EE.T + 5 * place_N[:, None]
    mse_N = 0.1 * np.exp(0.3 * rng.standard_normal(num_windows)) * (1 + place_N)
    contrast_N = 4 * np.exp(0.2 * rng.standard_normal(num_windows))
    rate_N = 75 * np.exp(0.1 * rng.standard_normal(num_windows))
    return Measured(
        embedding_NE=embedding_NE.astype(np.float32),
        mse_N=mse_N.astype(np.float32),
        worst_mse_N=(contrast_N * mse_N).astype(np.float32),
        mae_N=np.sqrt(mse_N).astype(np.float32),
        rhythm=Rhythm(
            num_beats_N=np.full(num_windows, 15, np.int32),
            heart_rate_bpm_N=rate_N.astype(np.float32),
            rr_irregularity_N=rng.uniform(0.01, 0.05, num_windows).astype(np.float32),
            rr_sd_s_N=np.full(num_windows, 0.03, np.float32),
            rms_N=np.full(num_windows, 0.3, np.float32),
        ),
        leads_N=np.array(leads)[place_N],
    )


def with_rhythm(
    measured: Measured, *, rate_factor: float = 1.0, irregularity_factor: float = 1.0
) -> Measured:
    """The same windows with another rhythm."""
    rhythm = measured.rhythm
    other = replace(
        rhythm,
        heart_rate_bpm_N=np.float32(rhythm.heart_rate_bpm_N * rate_factor),
        rr_irregularity_N=np.float32(rhythm.rr_irregularity_N * irregularity_factor),
    )
    return replace(measured, rhythm=other)


def odd_windows() -> Measured:
    """Windows at the edges of what can be measured: no error, no beats, an unknown lead, or far away."""
    windows = normal_windows(6, seed=9)
    missing = np.full(6, np.nan, np.float32)
    return replace(
        windows,
        embedding_NE=np.stack(
            [windows.embedding_NE[0]] * 3 + [np.zeros(DIM)] * 2 + [np.full(DIM, 1e4)]
        ).astype(np.float32),
        mse_N=np.array([0, 1e-30, 0.1, 1e6, 0, 0.1], np.float32),
        worst_mse_N=np.zeros(6, np.float32),
        rhythm=Rhythm(
            num_beats_N=np.array([0, 1, 2, 0, 0, 3], np.int32),
            heart_rate_bpm_N=np.array([np.nan, np.nan, 70, np.nan, np.nan, 300], np.float32),
            rr_irregularity_N=np.array([np.nan, np.nan, np.nan, np.nan, np.nan, 0], np.float32),
            rr_sd_s_N=missing,
            rms_N=np.zeros(6, np.float32),
        ),
        leads_N=np.array(["ECG1", "aVL", "vVX", "ECG2", "nowhere", "ECG1"]),
    )
