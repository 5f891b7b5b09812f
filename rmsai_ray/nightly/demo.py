"""Archives of a demo: three days of a ward, the third with a new amplifier."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
from scipy.signal import butter, sosfilt

from rmsai_ray.archives.reader import read_archive
from rmsai_ray.archives.records import Event, Signal
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.archives.writer import write_archive
from rmsai_ray.models.profiles import DEFAULT_PROFILE
from rmsai_ray.registry import CHAMPION, ModelRegistry

FIRST_DAY = date(2026, 10, 1)
NUM_DAYS = 3
SHIFTED_DAY = 3
PATIENTS_PER_DAY, EVENTS_PER_PATIENT = 12, 4
MIX = (0.7, 0.1, 0.1, 0.05, 0.05)
"""Normal, tachycardia, bradycardia, atrial fibrillation, ventricular tachycardia."""
FIRST_PATIENT = 9000
"""Nobody of these trained a packaged model."""
SEED = 2029

GAIN = 1.8
NOISE_MV = 0.03
HIGH_PASS_HZ = 4.0
ARRIVES_AT_HOUR = 20


def make_day(archives: str, day: int) -> date:
    """Writes the archives of day 1, 2 or 3 into a local folder, as if they had come on that evening.

    Returns:
        The day's date.
    """
    folder, the_date = Path(archives), FIRST_DAY + timedelta(days=day - 1)
    folder.mkdir(parents=True, exist_ok=True)
    evening = datetime(the_date.year, the_date.month, the_date.day, ARRIVES_AT_HOUR, tzinfo=UTC).timestamp()
    first = FIRST_PATIENT + (day - 1) * PATIENTS_PER_DAY
    for patient in range(first, first + PATIENTS_PER_DAY):
        name, content = simulate_archive(patient, EVENTS_PER_PATIENT, seed=SEED, proportions=MIX)
        path = folder / name
        if path.exists():
            continue
        if day == SHIFTED_DAY:
            content = through_new_amplifier(content, name, seed=SEED + patient)
        unfinished = path.with_suffix(".part")
        unfinished.write_bytes(content)
        os.utime(unfinished, (evening, evening))
        unfinished.replace(path)
    return the_date


def through_new_amplifier(content: bytes, name: str, *, seed: int) -> bytes:
    """The same events as another monitor would have recorded them: higher gain, more noise, and a high-pass
    of 4 Hz, with which T waves lose their shape."""
    archive = read_archive(content, name)
    rng = np.random.default_rng(seed)
    events = [_recorded_anew(event, rng) for event in archive.events]
    return write_archive(events, patient_id=archive.patient_id)


def _recorded_anew(event: Event, rng: np.random.Generator) -> Event:
    leads = {}
    for lead, signal in event.leads.items():
        sections = butter(2, HIGH_PASS_HZ, "highpass", fs=signal.fs, output="sos")
        filtered = sosfilt(sections, signal.samples) * GAIN
        noisy = filtered + NOISE_MV * rng.standard_normal(len(filtered))
        leads[lead] = Signal(samples=np.round(noisy, 6), fs=signal.fs, unit=signal.unit)
    return replace(event, leads=leads, problems=())


def register_demo_model(registry_uri: str, name: str) -> None:
    """Registers the packaged model as the champion, unless the name is known."""
    registry = ModelRegistry(registry_uri)
    if name not in registry.names():
        registry.register(name, DEFAULT_PROFILE, alias=CHAMPION)
