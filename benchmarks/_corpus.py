"""Simulated archives in any number: a few are simulated, the rest are those of other patients."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.storage import Store

EVENTS_PER_ARCHIVE = 10
DISTINCT_ARCHIVES = 40
MOST_PATIENTS = 10_000
"""Of which there are numbers of four digits."""
UPLOADS_IN_FLIGHT = 8


def make_archives(uri: str, num_events: int) -> int:
    """Writes archives of ten events each below a URI; returns their bytes.

    Each has a patient, a content and an id of its own; waveforms recur after 40 archives.

    Raises:
        ValueError: there are not so many patients.
    """
    num_archives = num_events // EVENTS_PER_ARCHIVE
    if num_archives > MOST_PATIENTS:
        raise ValueError(f"{num_events} events are more than {MOST_PATIENTS * EVENTS_PER_ARCHIVE}")
    store = Store(uri)
    simulated = [
        simulate_archive(patient, EVENTS_PER_ARCHIVE, seed=1)
        for patient in range(min(DISTINCT_ARCHIVES, num_archives))
    ]

    def put(patient: int) -> int:
        name, content = simulated[patient % len(simulated)]
        old, new = name[:6], f"PT{patient:04d}"
        store.put(name.replace(old, new), content.replace(old.encode(), new.encode()))
        return len(content)

    with ThreadPoolExecutor(UPLOADS_IN_FLIGHT) as pool:
        return sum(pool.map(put, range(num_archives)))
