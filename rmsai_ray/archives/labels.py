"""Names of rhythms: from annotations and statements to monitors' conditions, and to what counts as normal.

Shapes: N windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

NORMAL, TACHYCARDIA, BRADYCARDIA = "Normal", "Tachycardia", "Bradycardia"
ATRIAL_FIBRILLATION = "Atrial Fibrillation (PTB-XL)"
VENTRICULAR_TACHYCARDIA = "Ventricular Tachycardia (MIT-BIH)"
UNKNOWN = "Unknown"

BEAT_SYMBOLS = frozenset("NLRBAaJSVrFejnE/fQ?")
"""WFDB annotations that mark a QRS complex."""
NORMAL_BEATS = frozenset("NLRej")
"""Those that AAMI EC57 counts as class N."""

RHYTHMS = {
    "N": NORMAL,
    "AFIB": ATRIAL_FIBRILLATION,
    "VT": VENTRICULAR_TACHYCARDIA,
    "VFL": VENTRICULAR_TACHYCARDIA,
    "SBR": BRADYCARDIA,
    "SVTA": TACHYCARDIA,
    "AB": "Atrial Bigeminy",
    "AFL": "Atrial Flutter",
    "B": "Ventricular Bigeminy",
    "BII": "Second-Degree Heart Block",
    "IVR": "Idioventricular Rhythm",
    "NOD": "Junctional Rhythm",
    "P": "Paced Rhythm",
    "PREX": "Pre-Excitation",
    "T": "Ventricular Trigeminy",
    "VF": "Ventricular Fibrillation",
}
"""WFDB's rhythm codes, without their opening bracket."""

SCP_RHYTHMS = {
    "AFIB": ATRIAL_FIBRILLATION,
    "AFLT": "Atrial Flutter",
    "PACE": "Paced Rhythm",
    "SVTAC": TACHYCARDIA,
    "PSVT": TACHYCARDIA,
    "STACH": TACHYCARDIA,
    "SBRAD": BRADYCARDIA,
    "BIGU": "Bigeminy",
    "TRIGU": "Trigeminy",
    "SVARR": "Supraventricular Arrhythmia",
}
"""Rhythm statements that are no sinus rhythm of ordinary rate, the most telling first."""


def rhythm_condition(aux_note: str) -> str:
    """``(AFIB`` → the condition; a code that we do not know stays readable, without its bracket."""
    code = rhythm_code(aux_note)
    return RHYTHMS.get(code, code or UNKNOWN)


def rhythm_code(aux_note: str) -> str:
    """``(AFIB`` → ``AFIB``; notes may end in a NUL."""
    return aux_note.strip("\x00 ").removeprefix("(")


def scp_condition(likelihoods: Mapping[str, float], descriptions: Mapping[str, str]) -> str:
    """The condition behind PTB-XL's statements: an unusual rhythm, else Normal, else the likeliest finding.

    Args:
        likelihoods: per cent by SCP code, as in ``scp_codes``; 0 means that none was given.
        descriptions: readable text by SCP code.
    """
    for code, condition in SCP_RHYTHMS.items():
        if code in likelihoods:
            return condition
    if "NORM" in likelihoods:
        return NORMAL
    findings = sorted((-likelihood, code) for code, likelihood in likelihoods.items() if code != "SR")
    return descriptions.get(findings[0][1], findings[0][1]).capitalize() if findings else UNKNOWN


def normal_windows(
    condition: str,
    ecg_extras: Mapping[str, Any],
    starts_N: npt.NDArray[Any],
    ends_N: npt.NDArray[Any],
    samples_per_sample: float,
) -> npt.NDArray[np.bool_]:
    """Which windows of an event are normal: reported as such, with neither a beat nor a rhythm that is not.

    Args:
        condition: the event's, as reported; of any other than Normal, no window is normal.
        ecg_extras: may hold ``annotations``: places and symbols of beats, ``[place, code]`` of rhythms.
        starts_N: first sample of each window.
        ends_N: the sample after its last real one.
        samples_per_sample: samples of the annotations per sample of the windows.
    """
    if condition != NORMAL:
        return np.zeros(len(starts_N), np.bool_)
    annotations = ecg_extras.get("annotations") or {}
    marks = zip(annotations.get("samples", ()), annotations.get("symbols", ()), strict=True)
    beats = [sample for sample, symbol in marks if symbol in BEAT_SYMBOLS - NORMAL_BEATS]
    places = np.sort(np.asarray(beats, np.float64)) / samples_per_sample
    is_normal_N: npt.NDArray[np.bool_] = np.searchsorted(places, starts_N) == np.searchsorted(places, ends_N)
    for start, end in _abnormal_rhythms(annotations.get("rhythms", ())):
        is_normal_N &= (ends_N <= start / samples_per_sample) | (starts_N >= end / samples_per_sample)
    return is_normal_N


def _abnormal_rhythms(rhythms: Any) -> list[tuple[float, float]]:
    """(start, end) of the stretches in a rhythm other than the normal one; no code is no statement."""
    ends = [*(float(place) for place, _ in rhythms), np.inf][1:]
    return [
        (float(place), end)
        for (place, code), end in zip(rhythms, ends, strict=True)
        if code and rhythm_condition(code) != NORMAL
    ]
