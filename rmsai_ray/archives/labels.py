"""Names of rhythms: from WFDB annotations and PTB-XL statements to the conditions that monitors report."""

from __future__ import annotations

from collections.abc import Mapping

NORMAL, TACHYCARDIA, BRADYCARDIA = "Normal", "Tachycardia", "Bradycardia"
ATRIAL_FIBRILLATION = "Atrial Fibrillation (PTB-XL)"
VENTRICULAR_TACHYCARDIA = "Ventricular Tachycardia (MIT-BIH)"
UNKNOWN = "Unknown"

BEAT_SYMBOLS = frozenset("NLRBAaJSVrFejnE/fQ?")
"""WFDB annotations that mark a QRS complex."""

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
