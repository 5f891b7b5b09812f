"""The seven ECG leads: names, order and the fixed numbers 1-7."""

from __future__ import annotations

from collections.abc import Iterable

from rmsai_ray.errors import ConfigError

LEADS: tuple[str, ...] = ("ECG1", "ECG2", "ECG3", "aVR", "aVL", "aVF", "vVX")
"""In the order of the source documents. A lead's number is its place here, never its place in a selection."""

LEAD_NUMBERS: dict[str, int] = {lead: number for number, lead in enumerate(LEADS, start=1)}


def select_leads(names: Iterable[str]) -> tuple[str, ...]:
    """The named leads in canonical order; an empty selection means all seven.

    Raises:
        ConfigError: a name is not one of :data:`LEADS`.
    """
    wanted = set(names)
    for name in sorted(wanted - set(LEADS)):
        raise ConfigError("leads", name, "is not a lead", f"Choose from {', '.join(LEADS)}.")
    return tuple(lead for lead in LEADS if lead in wanted) or LEADS
