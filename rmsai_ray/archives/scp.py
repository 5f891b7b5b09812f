"""PTB-XL's statements as data: the diagnostic superclass of each, and which ones name a rhythm."""

from __future__ import annotations

from collections.abc import Iterable

NORM = "NORM"

_CODES_BY_SUPERCLASS = {
    NORM: "NORM",
    "MI": "IMI ASMI ILMI AMI ALMI INJAS LMI INJAL IPLMI IPMI INJIN INJLA PMI INJIL",
    "STTC": "NDT NST_ DIG LNGQT ISC_ ISCAL ISCIN ISCIL ISCAS ISCLA ANEUR EL ISCAN",
    "CD": "LAFB IRBBB 1AVB IVCD CRBBB CLBBB LPFB WPW ILBBB 3AVB 2AVB",
    "HYP": "LVH LAO/LAE RVH RAO/RAE SEHYP",
}
SUPERCLASSES = tuple(_CODES_BY_SUPERCLASS)
SUPERCLASS_OF = {
    code: superclass for superclass, codes in _CODES_BY_SUPERCLASS.items() for code in codes.split()
}
"""``diagnostic_class`` of ``scp_statements.csv``, doi:10.13026/kfzx-aw45."""

_RHYTHMS = "SR AFIB STACH SARRH SBRAD PACE SVARR BIGU AFLT SVTAC PSVT TRIGU"
RHYTHM_CODES = tuple(_RHYTHMS.split())
"""Statements whose ``rhythm`` column is set in the same table."""


def superclasses(codes: Iterable[str]) -> frozenset[str]:
    """Of all diagnostic statements, whatever likelihood they have, as the PTB-XL benchmark counts them."""
    return frozenset(SUPERCLASS_OF[code] for code in codes if code in SUPERCLASS_OF)
