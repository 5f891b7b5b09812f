"""What an archive holds, in memory: the common ground of reader, simulator, importers and encoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Severity = Literal["degraded", "fatal"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One deviation from the format.

    ``code`` is a stable identifier (``missing_lead``, ``short_signal`` …), ``where`` the path inside the file
    (``event_1001/ecg/aVL``), ``detail`` one sentence for people.
    """

    code: str
    severity: Severity
    where: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Vital:
    """One vital sign of an event; ``value`` is None where the monitor had none."""

    value: float | None
    units: str
    time_s: float | None = None
    """Epoch seconds, UTC."""
    lower_threshold: float | None = None
    upper_threshold: float | None = None
    history: tuple[tuple[float, float], ...] = ()
    """(epoch seconds, value), oldest first."""
    extras: dict[str, Any] = field(default_factory=dict)
    """Whatever else the extras hold (step_count, history_source …)."""


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One waveform."""

    samples: npt.NDArray[np.floating[Any]]
    """float32 or float64, shape (num_samples,); NaN where unknown."""
    fs: float
    """Sampling rate in Hz."""
    unit: str = "mV"


@dataclass(frozen=True, kw_only=True)
class Event:
    """One alarm capture."""

    event_id: str
    """The group's name as written, e.g. ``event_1001`` or ``event_001``."""
    uuid: str
    """Falls back to ``<patient>_<event>`` where the file has none."""
    time_s: float | None
    """Epoch seconds, UTC."""
    condition: str
    """As the monitor reported it; ``Unknown`` where it said nothing."""
    heart_rate_bpm: float | None
    leads: dict[str, Signal]
    """ECG by lead name; absent leads are absent."""
    ppg: Signal | None = None
    resp: Signal | None = None
    vitals: dict[str, Vital] = field(default_factory=dict)
    pacer_info: int | None = None
    pacer_offset: int | None = None
    ecg_extras: dict[str, Any] = field(default_factory=dict)
    """Everything in ``ecg/extras`` but the pacer (fiducials, annotations …)."""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One HDF5 file, read."""

    archive_id: str
    stem: str
    """File name without folder and suffix."""
    patient_id: str
    period: str
    """``YYYY-MM`` from the file name, else from the first dated event, else ``unknown``."""
    variant: str
    """``v1``, ``v2``, ``v3`` or ``vdx``."""
    metadata: dict[str, Any]
    events: tuple[Event, ...]
    problems: tuple[Problem, ...] = ()
    """Of the archive itself; each event carries its own."""
    detour: str | None = field(default=None, compare=False)
    """Why HDF5's library had to read it; None where its bytes were of the known layout, and read directly."""

    @property
    def status(self) -> Literal["ok", "degraded"]:
        """``degraded`` when the archive or one of its events has a problem."""
        return "degraded" if self.problems or any(event.problems for event in self.events) else "ok"
