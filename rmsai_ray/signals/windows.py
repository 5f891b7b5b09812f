"""Cutting a signal into windows of fixed length so that every sample lies in at least one of them."""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from rmsai_ray.errors import ConfigError


@dataclass(frozen=True)
class WindowPlaces:
    """Where the N windows of one signal lie."""

    starts_N: npt.NDArray[np.int32]
    """Index of the first sample of each window in the signal."""
    num_samples_N: npt.NDArray[np.int32]
    """Real samples per window; smaller than T only where the whole signal is shorter than a window."""
    is_tail_N: npt.NDArray[np.bool_]
    """True for the window that was aligned to the signal's end instead of to the stride."""

    def __len__(self) -> int:
        return len(self.starts_N)


@dataclass(frozen=True)
class Windows(WindowPlaces):
    """N windows of T samples each, cut from one signal."""

    samples_NT: npt.NDArray[np.float32]
    """In the signal's unit. Only the first ``num_samples_N`` of a row are real, the rest is zeros."""


def cut_windows(
    x_T: npt.ArrayLike, window_samples: int, stride_samples: int, *, tail: bool = True
) -> Windows:
    """Cuts one signal, shape (num_samples,), at the places that :func:`window_starts` gives.

    Raises:
        ConfigError: see :func:`window_starts`.
        ValueError: the signal is not one-dimensional.
    """
    signal_T = np.ascontiguousarray(x_T)
    if signal_T.ndim != 1:
        raise ValueError(f"a signal has one dimension, not the shape {signal_T.shape}")
    places = window_places(len(signal_T), window_samples, stride_samples, tail=tail)
    samples_NT = np.empty((len(places), window_samples), np.float32)
    copy_windows(signal_T, stride_samples, samples_NT)
    return Windows(samples_NT=samples_NT, **vars(places))


@lru_cache(maxsize=64)
def window_places(
    num_samples: int, window_samples: int, stride_samples: int, *, tail: bool = True
) -> WindowPlaces:
    """Places of the windows of a signal; signals of one length share them.

    Raises:
        ConfigError: see :func:`window_starts`.
    """
    starts_N = window_starts(num_samples, window_samples, stride_samples, tail=tail)
    places = WindowPlaces(
        starts_N=starts_N.astype(np.int32),
        num_samples_N=np.full(len(starts_N), min(window_samples, num_samples), np.int32),
        is_tail_N=starts_N % stride_samples != 0,
    )
    for array in vars(places).values():
        array.flags.writeable = False
    return places


def copy_windows(x_T: npt.NDArray[Any], stride_samples: int, out_NT: npt.NDArray[np.float32]) -> None:
    """Writes the windows of a contiguous signal into N rows, as :func:`window_starts` places them."""
    num_windows, window_samples = out_NT.shape
    if len(x_T) < window_samples:
        out_NT[:, : len(x_T)] = x_T
        out_NT[:, len(x_T) :] = 0
        return
    num_strided = min(num_windows, (len(x_T) - window_samples) // stride_samples + 1)
    strides = (stride_samples * x_T.itemsize, x_T.itemsize)
    out_NT[:num_strided] = np.ndarray((num_strided, window_samples), x_T.dtype, x_T, strides=strides)
    if num_strided < num_windows:
        out_NT[num_strided] = x_T[-window_samples:]


def window_starts(
    num_samples: int, window_samples: int, stride_samples: int, *, tail: bool = True
) -> npt.NDArray[np.int64]:
    """First sample of every window, ascending.

    The strided windows, and with ``tail`` one more that ends with the signal where the strides leave samples
    over: 2400 samples in windows of 140 every 70 give 34 starts, the last at 2260 (33 without the tail).
    A signal shorter than a window gives the one start 0, an empty signal none.

    Raises:
        ConfigError: a length is not positive, or the stride would leave gaps between windows.
    """
    if window_samples < 1:
        raise ConfigError("window_samples", window_samples, "must be positive", "Give 1 or more samples.")
    if not 1 <= stride_samples <= window_samples:
        raise ConfigError(
            "stride_samples",
            stride_samples,
            f"must lie between 1 and the window's {window_samples} samples, or samples are never looked at",
            "Give the window's length or less.",
        )
    if num_samples == 0:
        return np.zeros(0, np.int64)
    last = max(0, num_samples - window_samples)
    starts_N = np.arange(0, last + 1, stride_samples, dtype=np.int64)
    return np.append(starts_N, last) if tail and starts_N[-1] != last else starts_N


def count_in_windows(mask_T: npt.NDArray[np.bool_], windows: WindowPlaces) -> npt.NDArray[np.int32]:
    """Marked samples in each window, shape (N,): e.g. how many of its samples were missing."""
    running = np.concatenate([np.zeros(1, np.int64), np.cumsum(mask_T, dtype=np.int64)])
    counts_N = running[windows.starts_N + windows.num_samples_N] - running[windows.starts_N]
    return np.asarray(counts_N, dtype=np.int32)
