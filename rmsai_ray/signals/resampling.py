"""Bringing signals, and the marks on their samples, to another sampling rate."""

from __future__ import annotations

from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import firwin, resample_poly

MAX_RATIO_TERM = 10_000
"""Largest numerator or denominator of the rate ratio; a filter has about 20 taps for each."""


def resample(x_T: npt.ArrayLike, fs_in: float, fs_out: float) -> npt.NDArray[np.float64]:
    """The signal, shape (num_samples,), at ``fs_out`` Hz: polyphase filtering with a Kaiser low-pass.

    Equal rates return the samples untouched. Output sample ``i`` belongs to time ``i / fs_out``; there are
    ``ceil(num_samples · fs_out / fs_in)`` of them. Beyond its ends the signal counts as held.

    Raises:
        ValueError: a rate is not positive, or samples are not finite (``quality.fill_gaps`` comes first).
    """
    signal_T = np.asarray(x_T, dtype=np.float64)
    ratio = rate_ratio(fs_in, fs_out)
    if ratio == 1 or len(signal_T) == 0:
        return signal_T
    if not np.isfinite(signal_T).all():
        raise ValueError("the signal holds non-finite samples: fill its gaps before resampling")
    up, down = ratio.numerator, ratio.denominator
    taps: Any = _low_pass(up, down)  # an array of taps is allowed, scipy's type stubs do not know it
    resampled_T = resample_poly(signal_T, up, down, window=taps, padtype="edge")
    return np.asarray(resampled_T, dtype=np.float64)


def resample_mask(mask_T: npt.NDArray[np.bool_], fs_in: float, fs_out: float) -> npt.NDArray[np.bool_]:
    """The marks of a signal's samples at the other rate, of the length that :func:`resample` gives.

    A sample is marked where an original beside it is, and no mark gets lost between two samples.
    """
    ratio = rate_ratio(fs_in, fs_out)
    if ratio == 1 or len(mask_T) == 0:
        return mask_T
    num_out = -(-len(mask_T) * ratio.numerator // ratio.denominator)
    before = np.arange(num_out) * ratio.denominator // ratio.numerator
    after = -(-np.arange(num_out) * ratio.denominator // ratio.numerator)
    out_T = mask_T[before] | mask_T[np.minimum(after, len(mask_T) - 1)]
    out_T[np.flatnonzero(mask_T) * ratio.numerator // ratio.denominator] = True
    return np.asarray(out_T, dtype=np.bool_)


@lru_cache(maxsize=64)
def rate_ratio(fs_in: float, fs_out: float) -> Fraction:
    """``fs_out / fs_in`` as a fraction of small terms (360 → 200 Hz is 5/9).

    Raises:
        ValueError: a rate is not a positive number.
    """
    for fs in (fs_in, fs_out):
        if not 0 < fs < float("inf"):
            raise ValueError(f"a sampling rate is a positive number of Hz, not {fs}")
    terms = [Fraction(fs).limit_denominator(MAX_RATIO_TERM) for fs in (fs_out, fs_in)]
    return (terms[0] / terms[1]).limit_denominator(MAX_RATIO_TERM)


@cache
def _low_pass(up: int, down: int) -> npt.NDArray[np.float64]:
    """Kaiser-windowed sinc at the lower Nyquist frequency, 10 zero crossings to a side.

    Each of the ``up`` interleaved filters sums to the same, so that an offset comes out as exactly that
    offset; scaled as a whole only, they turn it into a faint tone (2e-4 of it at 360 → 200 Hz).
    """
    half_length = 10 * max(up, down)
    taps = firwin(2 * half_length + 1, 1 / max(up, down), window=("kaiser", 5.0))
    for phase in range(up):
        taps[phase::up] /= up * taps[phase::up].sum()
    return np.asarray(taps, dtype=np.float64)
