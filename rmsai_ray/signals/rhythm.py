"""Beats of a window, and what their intervals say: rate, irregularity, spread.

Shapes: N windows, T samples of a window; _n a few windows of equal length, _t samples.
"""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import butter, sosfilt, sosfilt_zi

# detect_heartbeats spends nine tenths of its time on filtering one signal at a time. Its compiled parts, fed
# with all windows filtered at once, take a third; a test holds both to the same beats.
from sleepecg.heartbeats import _squared_moving_integration, _thresholding

from rmsai_ray.signals.blocks import equally_long

FloatArray = npt.NDArray[np.floating[Any]]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

SHORTEST_S = 2.0
"""The detector learns its thresholds from so much signal; in a shorter window no beat is looked for."""
LOWEST_FS_HZ = 80.0
"""Below it the QRS band, 5 to 30 Hz, is not in the signal, and no beat is looked for."""
BAND_HZ = (5.0, 30.0)
EDGE = 15
"""Samples by which a signal is carried on beyond its ends before it is filtered, as scipy does."""
SLOPE = np.array([-1.0, -2.0, 0.0, 2.0, 1.0])
"""Five-point derivative of Pan and Tompkins, doi:10.1109/TBME.1985.325532."""
INTEGRATION_S = 0.15
LONGEST_LEAD_IN_S = 0.1
"""A longer flat stretch before the signal begins would spoil the learned thresholds, and is left out."""
RELATIVE_FLOOR = 1e-6
"""Of a window's largest value: a QRS band below it is the rounding of a constant."""


@dataclass(frozen=True)
class Rhythm:
    """Beats of N windows. A row depends on its own window alone, and only ``rms`` on gain."""

    num_beats_N: npt.NDArray[np.int32]
    heart_rate_bpm_N: Float32Array
    """60 / median RR interval; NaN below 2 beats."""
    rr_irregularity_N: Float32Array
    """Mean absolute difference of successive RR intervals over their mean; NaN below 3 beats."""
    rr_sd_s_N: Float32Array
    """Standard deviation of the RR intervals (n in the denominator); NaN below 3 beats."""
    rms_N: Float32Array
    """Root mean square of the window without its mean, in the signal's unit."""

    def take(self, rows: Any) -> Rhythm:
        """The windows that a mask, a slice or an index array selects."""
        return Rhythm(*(getattr(self, field.name)[rows] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.num_beats_N)


def rhythm(x_NT: FloatArray, num_samples_N: npt.NDArray[np.integer[Any]], fs: float) -> Rhythm:
    """Rhythm of every window.

    R peaks by Pan and Tompkins as in ``sleepecg``. It looks for upward peaks: a window whose QRS band is
    skewed downward is turned over first. A pacer's spike of the size of a QRS complex counts as a beat.
    Without beats, and for windows that are flat, shorter than 2 s or sampled below 80 Hz, rate, irregularity
    and spread are NaN.

    Args:
        x_NT: windows in any unit; finite in the first ``num_samples_N`` of a row, the rest is not looked at.
        num_samples_N: real samples of each window.
        fs: sampling rate in Hz.
    """
    rows, peaks = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    rms_N = np.zeros(len(x_NT), np.float32)
    places_N = np.arange(len(x_NT))
    for some, length in equally_long(num_samples_N):
        x_nt = x_NT[some, :length].astype(np.float64)
        rms_N[some] = x_nt.std(axis=1) if length else 0
        if length < SHORTEST_S * fs or fs < LOWEST_FS_HZ:
            continue
        row, peak = divmod(np.flatnonzero(_beats(x_nt, fs)), length)
        rows.append(places_N[some][row])
        peaks.append(peak)
    row_B, peak_B = np.concatenate(rows), np.concatenate(peaks)
    order = np.argsort(row_B, kind="stable")
    return _statistics(row_B[order], peak_B[order] / fs, rms_N)


def _beats(x_nt: npt.NDArray[np.float64], fs: float) -> BoolArray:
    """True at every R peak."""
    starts_n = _late_starts(x_nt, fs)
    is_late_n = starts_n > 0
    if not is_late_n.any():
        return _beats_from_start(x_nt, fs)
    beats_nt = np.zeros(x_nt.shape, np.bool_)
    beats_nt[~is_late_n] = _beats_from_start(x_nt[~is_late_n], fs)
    for row in np.flatnonzero(is_late_n):
        start = starts_n[row]
        if x_nt.shape[1] - start >= SHORTEST_S * fs:
            beats_nt[row, start:] = _beats_from_start(x_nt[row : row + 1, start:], fs)[0]
    return beats_nt


def _late_starts(x_nt: npt.NDArray[np.float64], fs: float) -> npt.NDArray[np.int64]:
    """Where the signal of each row begins after a long flat stretch; 0 where it begins at once, or never."""
    starts_n = np.zeros(len(x_nt), np.int64)
    longest = int(LONGEST_LEAD_IN_S * fs)
    rows = np.flatnonzero((x_nt[:, : longest + 1] == x_nt[:, :1]).all(axis=1))
    starts_n[rows] = np.argmax(x_nt[rows] != x_nt[rows, :1], axis=1)
    return starts_n


def _beats_from_start(x_nt: npt.NDArray[np.float64], fs: float) -> BoolArray:
    """As :func:`_beats`, for windows whose signal begins at once."""
    band_nt = _qrs_band(x_nt, fs)
    moves_n = np.abs(band_nt).max(axis=1) > RELATIVE_FLOOR * np.abs(x_nt).max(axis=1)
    beats_nt = np.zeros(x_nt.shape, np.bool_)
    width = int(INTEGRATION_S * fs)
    for row in np.flatnonzero(moves_n):
        slope_t = np.correlate(band_nt[row], SLOPE, mode="same")
        beats_nt[row] = _thresholding(band_nt[row], _squared_moving_integration(slope_t, width), fs)
    return beats_nt


def _qrs_band(x_nt: npt.NDArray[np.float64], fs: float) -> npt.NDArray[np.float64]:
    """The QRS band of each row, with its larger peaks upwards."""
    band_nt = filter_both_ways(x_nt, fs)
    band_nt *= np.where((band_nt * band_nt * band_nt).sum(axis=1) < 0, -1.0, 1.0)[:, None]
    return band_nt


def filter_both_ways(x_nt: npt.NDArray[np.float64], fs: float) -> npt.NDArray[np.float64]:
    """What ``scipy.signal.sosfiltfilt`` makes of each row with the band-pass, to the bit, in less time."""
    sos, steady_s12 = _band_pass(fs), _steady_state(fs)
    padded_nt = np.empty((len(x_nt), x_nt.shape[1] + 2 * EDGE))
    padded_nt[:, EDGE:-EDGE] = x_nt
    np.subtract(2 * x_nt[:, :1], x_nt[:, EDGE:0:-1], out=padded_nt[:, :EDGE])
    np.subtract(2 * x_nt[:, -1:], x_nt[:, -2 : -EDGE - 2 : -1], out=padded_nt[:, -EDGE:])
    there_nt, _ = sosfilt(sos, padded_nt, axis=1, zi=steady_s12 * padded_nt[:, :1])
    and_back_nt, _ = sosfilt(sos, there_nt[:, ::-1], axis=1, zi=steady_s12 * there_nt[:, -1:])
    return np.ascontiguousarray(and_back_nt[:, -EDGE - 1 : EDGE - 1 : -1])


@cache
def _band_pass(fs: float) -> FloatArray:
    return np.asarray(butter(2, BAND_HZ, "bandpass", output="sos", fs=fs))


@cache
def _steady_state(fs: float) -> FloatArray:
    """Of the band-pass when it has seen ones for ever, shape (sections, 1, 2)."""
    return np.asarray(sosfilt_zi(_band_pass(fs)))[:, None]


def _statistics(row_B: npt.NDArray[np.int64], time_s_B: FloatArray, rms_N: Float32Array) -> Rhythm:
    """From the beats of all windows, ordered by window and time, to one number a window."""
    num_windows = len(rms_N)
    num_beats_N = np.bincount(row_B, minlength=num_windows)
    inside_B = row_B[1:] == row_B[:-1]
    rr_s_I, row_I = np.diff(time_s_B)[inside_B], row_B[1:][inside_B]
    follows_I = row_I[1:] == row_I[:-1]
    num_rr_N = np.maximum(num_beats_N - 1, 1)
    mean_s_N = _sums(rr_s_I, row_I, num_windows) / num_rr_N
    variance_N = _sums((rr_s_I - mean_s_N[row_I]) ** 2, row_I, num_windows) / num_rr_N
    jump_s_N = _sums(np.abs(np.diff(rr_s_I))[follows_I], row_I[1:][follows_I], num_windows)
    median_s_N = _medians(rr_s_I, row_I, num_windows)
    some_N, enough_N = num_beats_N >= 2, num_beats_N >= 3
    with np.errstate(divide="ignore", invalid="ignore"):
        rate_N = np.where(some_N, 60 / median_s_N, np.nan)
        irregularity_N = np.where(enough_N, jump_s_N / np.maximum(num_beats_N - 2, 1) / mean_s_N, np.nan)
    return Rhythm(
        num_beats_N=num_beats_N.astype(np.int32),
        heart_rate_bpm_N=rate_N.astype(np.float32),
        rr_irregularity_N=irregularity_N.astype(np.float32),
        rr_sd_s_N=np.where(enough_N, np.sqrt(variance_N), np.nan).astype(np.float32),
        rms_N=rms_N,
    )


def _sums(values_I: FloatArray, row_I: npt.NDArray[np.int64], num_windows: int) -> npt.NDArray[np.float64]:
    return np.asarray(np.bincount(row_I, weights=values_I, minlength=num_windows), np.float64)


def _medians(values_I: FloatArray, row_I: npt.NDArray[np.int64], num_windows: int) -> FloatArray:
    """Median of the values of each row; 0 for a row without any."""
    sorted_I = np.append(values_I[np.lexsort((values_I, row_I))], 0.0)
    num_N = np.bincount(row_I, minlength=num_windows)
    first_N = np.cumsum(num_N) - num_N
    lower_N, upper_N = first_N + (num_N - 1) // 2, first_N + num_N // 2
    return np.where(num_N > 0, (sorted_I[np.minimum(lower_N, len(values_I))] + sorted_I[upper_N]) / 2, 0.0)
