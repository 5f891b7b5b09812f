"""How far a window can be trusted: missing, flat, clipped or noisy samples, and one score of 0 to 100."""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too
# _N windows of _T samples; _n a few of them, cut to as many real samples, _t; _s segments of _k samples.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt

from rmsai_ray.errors import ConfigError
from rmsai_ray.signals.blocks import equally_long

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]
BoolArray = npt.NDArray[np.bool_]

FLAGS = ("nan", "flat", "clipped", "noise")

SEGMENT_S = 0.1
"""Flat lines and noise are looked for in segments of this length: about one QRS complex."""
SMALLEST_STD = {"mV": 0.005, "raw": 0.5}
"""By unit: half a step of a raw converter, one step of a common 12-bit monitor. Below it nothing moves."""
SMALLEST_STEP = {"mV": 1e-4, "raw": 0.01}
"""By unit: a segment whose samples differ by less from one to the next, on average, is constant."""
FLAT_SHARE = 0.2
"""Of the segments: from here on a window is ``flat``."""
CLIPPED_SHARE = 0.005
"""Of the samples: from here on a window is ``clipped``."""
CLIPPED_TOLERANCE = 1e-3
"""Of a window's range: samples this close to its extremes lie on them."""
CLIPPED_WEIGHT = 5.0
"""A fifth of the samples on the rails leaves nothing of the score."""
SMALLEST_SIGNAL = {"mV": 0.1, "raw": 0.0}
"""By unit, root mean square: noise is held against this much signal at least."""
SURELY_A_BEAT_S = 2.0
"""A longer window holds a beat at 30 bpm and more; a shorter one may lie between two."""
NO_SIGNAL_FACTOR = 5.0
"""A long window with an SNR of 0 dB holds no ECG, and with 3 dB surely some: 5 · 3 dB is a full score."""
NOISE_SNR_DB = 6.0
"""Noise of half the signal's amplitude: below it a window is ``noise``."""
CLEAR_SNR_DB = 15.0
"""From here on noise costs nothing of the score."""


@dataclass(frozen=True)
class Quality:
    """Flags and score of N windows; see :func:`assess`."""

    nan_N: BoolArray
    flat_N: BoolArray
    clipped_N: BoolArray
    noise_N: BoolArray
    score_N: npt.NDArray[np.float32]

    @property
    def raised_NF(self) -> BoolArray:  # noqa: N802
        """The flags as one array, in the order of :data:`FLAGS`."""
        return np.stack([self.nan_N, self.flat_N, self.clipped_N, self.noise_N], axis=1)

    def flag_names(self) -> list[list[str]]:
        """The raised flags of each window, in the order of :data:`FLAGS`."""
        return [list(compress(FLAGS, raised)) for raised in self.raised_NF.tolist()]


def fill_gaps(x_T: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], BoolArray]:
    """The signal with NaN and infinities replaced, and the mask that is True where that happened.

    Gaps are bridged by straight lines; before the first and after the last finite sample its value is held. A
    signal without any finite sample becomes zeros.
    """
    signal_T = np.array(x_T, dtype=np.float64)
    is_missing_T = ~np.isfinite(signal_T)
    known = np.flatnonzero(~is_missing_T)
    if len(known) == 0:
        return np.zeros_like(signal_T), is_missing_T
    gaps = np.flatnonzero(is_missing_T)
    signal_T[gaps] = np.interp(gaps, known, signal_T[known])
    return signal_T, is_missing_T


def assess(
    x_NT: FloatArray,
    num_samples_N: IntArray,
    fs: float,
    unit: str,
    *,
    num_missing_N: IntArray | None = None,
) -> Quality:
    """Flags and score of every window.

    ::

        score = 100 · (1 − missing) · (1 − flat) · max(0, 1 − 5 · clipped) · min(1, max(0, SNR) / 15 dB)

    missing
        share of samples that are not finite or were filled in before. Any raises ``nan``.
    flat
        share of 0.1-s segments in which nothing moves (a mean step below 0.1 µV; 1 where the standard
        deviation of the whole window is below 5 µV). From 20 % on it raises ``flat``.
    clipped
        share of samples in runs of three or more at the window's own minimum or maximum. From 0.5 % on it
        raises ``clipped``. Exact at the rate of recording; after resampling only long plateaus are seen.
    SNR
        10 · log10(signal / noise) in dB. noise: mean square of the second differences / 6, which is the
        variance of white noise, in the *median* segment, so that QRS complexes do not count as noise. signal:
        mean square of the differences over 40 ms / 2, which wander does not enter. White noise has 0 dB,
        mains hum and muscle noise less, clean ECG 20 to 35. Below 6 dB it raises ``noise``.
        In mV a signal below 0.1 mV counts as that much: a lead of low voltage is not a noisy one. Windows of
        2 s and more must show a beat for it: they get 5 times their own SNR at most.

    Args:
        x_NT: windows in ``unit``; only the first ``num_samples_N`` of a row are looked at.
        num_samples_N: real samples of each window.
        fs: sampling rate in Hz, 100 or more.
        unit: ``mV`` or ``raw``.
        num_missing_N: samples of each window that :func:`fill_gaps` had replaced, where it was called before.

    Raises:
        ConfigError: another unit.
    """
    if unit not in SMALLEST_STD:
        raise ConfigError("unit", unit, "has no quality limits", f"Choose from {', '.join(SMALLEST_STD)}.")
    shares_4N = _by_length(x_NT, num_samples_N, 4, lambda x_nt: _shares(x_nt, fs, unit))
    nonfinite_N, flat_N, clipped_N, snr_N = shares_4N
    missing_N = nonfinite_N
    if num_missing_N is not None:
        missing_N = np.maximum(nonfinite_N, num_missing_N / np.maximum(num_samples_N, 1))
    clear_N = np.clip(snr_N / CLEAR_SNR_DB, 0, 1)
    unclipped_N = np.clip(1 - CLIPPED_WEIGHT * clipped_N, 0, 1)
    return Quality(
        nan_N=missing_N > 0,
        flat_N=flat_N >= FLAT_SHARE,
        clipped_N=clipped_N >= CLIPPED_SHARE,
        noise_N=snr_N < NOISE_SNR_DB,
        score_N=(100 * (1 - missing_N) * (1 - flat_N) * unclipped_N * clear_N).astype(np.float32),
    )


def upstream_quality_score(x_NT: FloatArray, num_samples_N: IntArray, fs: float) -> npt.NDArray[np.float32]:
    """The source documents' data quality score, 0 to 100, of windows in mV.

    ``.3·finite + .2·range + .2·smooth + .15·spikes + .15·moving``, each of 0 to 100: share of finite samples;
    range of 10 mV or more; ``100 − 20·std(differences)``; ``100 − 200·share(|z| > 4)``; share of 0.1-s
    segments with a standard deviation of 0.01 mV or more (50 for windows of a second or less). Non-finite
    samples count as the mean of the others. It asks for ten times the amplitude of an ECG and hardly notices
    noise: kept for comparison, :func:`assess` decides.
    """
    score_1N = _by_length(x_NT, num_samples_N, 1, lambda x_nt: _upstream_score(x_nt, fs)[None])
    return np.asarray(score_1N[0], dtype=np.float32)


def _by_length(
    x_NT: FloatArray, num_samples_N: IntArray, num_results: int, measure: Callable[[FloatArray], FloatArray]
) -> npt.NDArray[np.float64]:
    """``measure`` of windows cut to their real samples, few at a time; shape (num_results, N).

    It never sees padding, and a window's result never depends on its neighbours.
    """
    results = np.zeros((num_results, len(x_NT)))
    for rows, length in equally_long(num_samples_N):
        results[:, rows] = measure(x_NT[rows, :length])
    return results


def _shares(x_nt: FloatArray, fs: float, unit: str) -> FloatArray:
    """Rows of: non-finite share, flat share, clipped share, SNR in dB."""
    num_rows, num_samples = x_nt.shape
    if num_samples < 3:
        return np.tile([[0.0], [1.0], [0.0], [0.0]], num_rows)
    is_finite_nt = np.isfinite(x_nt)
    nonfinite_n = np.zeros(num_rows) if is_finite_nt.all() else 1 - _share(is_finite_nt)
    centred_nt = _centred(x_nt, is_finite_nt)
    std_n = np.sqrt(_mean_square(centred_nt))
    moves_n = std_n >= SMALLEST_STD[unit]
    flat_n = np.where(moves_n, _flat_share(centred_nt, fs, SMALLEST_STEP[unit]), 1)
    clipped_n = np.where(moves_n, _clipped_share(centred_nt), 0)
    snr_n = np.where(moves_n, _snr_db(centred_nt, fs, unit), np.inf)
    return np.stack([nonfinite_n, flat_n, clipped_n, snr_n])


def _centred(x_nt: FloatArray, is_finite_nt: BoolArray) -> npt.NDArray[np.float32]:
    """Rows without their mean, non-finite samples at the mean."""
    is_whole = bool(is_finite_nt.all())
    finite_nt = x_nt if is_whole else np.where(is_finite_nt, x_nt, 0)
    known_n = x_nt.shape[1] if is_whole else np.maximum(np.count_nonzero(is_finite_nt, axis=1), 1)
    mean_n = (finite_nt.sum(axis=1) / known_n).astype(x_nt.dtype)
    centred_nt = np.asarray(finite_nt - mean_n[:, None], dtype=np.float32)
    if not is_whole:
        centred_nt[~is_finite_nt] = 0
    return centred_nt


def _flat_share(x_nt: FloatArray, fs: float, smallest_step: float) -> FloatArray:
    steps_nsk = _segments(np.abs(x_nt[:, 1:] - x_nt[:, :-1]), fs)
    return _share(np.einsum("nsk->ns", steps_nsk) < smallest_step * steps_nsk.shape[2])


def _clipped_share(x_nt: FloatArray) -> FloatArray:
    lowest_n, highest_n = x_nt.min(axis=1, keepdims=True), x_nt.max(axis=1, keepdims=True)
    tolerance_n = CLIPPED_TOLERANCE * (highest_n - lowest_n)
    num_threes_n = _num_threes(x_nt <= lowest_n + tolerance_n) + _num_threes(x_nt >= highest_n - tolerance_n)
    return np.asarray(num_threes_n / (x_nt.shape[1] - 2))


def _num_threes(is_so_nt: BoolArray) -> IntArray:
    """Places of each row from where on three in a row are so; fast where few are."""
    num_rows, num_samples = is_so_nt.shape
    place = np.flatnonzero(is_so_nt)
    first = place[:-2][place[2:] - place[:-2] == 2]
    row = first // num_samples
    return np.bincount(row[first + 2 < (row + 1) * num_samples], minlength=num_rows)


def _snr_db(x_nt: FloatArray, fs: float, unit: str) -> FloatArray:
    # Second differences about 5 ms apart, whatever the rate: their gain peaks at fs / (2 · lag) = 100 Hz.
    lag = max(1, min(round(fs / 200), (x_nt.shape[1] - 1) // 2))
    curvature_nt = x_nt[:, 2 * lag :] - 2 * x_nt[:, lag:-lag] + x_nt[:, : -2 * lag]
    segments_nsk = _segments(curvature_nt, fs)
    energy_ns = np.einsum("nsk,nsk->ns", segments_nsk, segments_nsk) / segments_nsk.shape[2]
    noise_n = np.maximum(_medians(energy_ns) / 6, np.finfo(np.float32).tiny)
    reach = max(1, min(round(0.04 * fs), x_nt.shape[1] - 1))
    signal_n = _mean_square(x_nt[:, reach:] - x_nt[:, :-reach]) / 2
    snr_n = _decibel(signal_n / noise_n)
    if SMALLEST_SIGNAL[unit] == 0:
        return snr_n
    lenient_n = _decibel(np.maximum(signal_n, SMALLEST_SIGNAL[unit] ** 2) / noise_n)
    if x_nt.shape[1] < SURELY_A_BEAT_S * fs:
        return lenient_n
    return np.asarray(np.maximum(snr_n, np.minimum(lenient_n, NO_SIGNAL_FACTOR * snr_n)))


def _medians(x_ns: FloatArray) -> FloatArray:
    """As ``np.median`` of each row, to the bit, in a tenth of its time."""
    sorted_ns = np.sort(x_ns, axis=1)  # puts what is not a number at the end
    middle = x_ns.shape[1] // 2
    median_n = sorted_ns[:, middle - 1 + x_ns.shape[1] % 2 : middle + 1].mean(axis=1)
    return np.asarray(np.where(np.isnan(sorted_ns[:, -1]), np.nan, median_n), x_ns.dtype)


def _decibel(ratio_n: FloatArray) -> FloatArray:
    return np.asarray(10 * np.log10(np.maximum(ratio_n, np.finfo(np.float32).tiny)))


def _segments(x_nt: FloatArray, fs: float) -> FloatArray:
    """Shape (rows, segments, samples): whole segments, without the rest at the end; one if all is shorter."""
    length = min(max(1, round(SEGMENT_S * fs)), x_nt.shape[1])
    num_segments = x_nt.shape[1] // length
    return x_nt[:, : num_segments * length].reshape(len(x_nt), num_segments, length)


def _share(is_so_nt: BoolArray) -> FloatArray:
    return np.asarray(np.count_nonzero(is_so_nt, axis=1) / is_so_nt.shape[1])


def _mean_square(x_nt: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("nt,nt->n", x_nt, x_nt) / x_nt.shape[1])


def _upstream_score(x_nt: FloatArray, fs: float) -> FloatArray:
    if x_nt.shape[1] < 3:
        return np.zeros(len(x_nt))
    is_finite_nt = np.isfinite(x_nt)
    x_nt = _centred(x_nt, is_finite_nt)
    std_n = x_nt.std(axis=1, keepdims=True)
    is_spike_nt = np.abs(x_nt) > 4 * std_n + 1e-10
    is_flat_ns = _segments(x_nt, fs).std(axis=2) < 0.01
    return np.asarray(
        0.3 * 100 * _share(is_finite_nt)
        + 0.2 * np.minimum(100, 10 * np.ptp(x_nt, axis=1))
        + 0.2 * np.maximum(0, 100 - 20 * np.diff(x_nt, axis=1).std(axis=1))
        + 0.15 * np.maximum(0, 100 - 200 * _share(is_spike_nt))
        + 0.15 * (100 * (1 - _share(is_flat_ns)) if x_nt.shape[1] > fs else 50)
    )
