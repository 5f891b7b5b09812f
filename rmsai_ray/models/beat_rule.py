"""The numbers of the rule by which the default family finds beats and draws them on a grid."""

from __future__ import annotations

GRID_SAMPLES = 4
"""Samples per place of the beats' grid."""
BLUR_S = (0.02, 0.14)
"""Widths of the triangles that a beat becomes on the grid: one for its place, one for its neighbourhood."""

SLOPE_S, ENERGY_S, APART_S, SECTION_S = 0.02, 0.1, 0.2, 1.2
"""Of the beat finder: the slope's length, its energy's window, the least distance of beats, and the sections
of which the median of the largest energies is the level."""
LEAST_SHARE, LEAST_ENERGY = 0.25, 1e-4
"""Of that level, and absolutely (normalised units squared), below which a peak is no beat."""


def odd_samples(seconds: float, fs: float) -> int:
    """The odd number of samples nearest to a length."""
    return 2 * round(seconds * fs / 2) + 1
