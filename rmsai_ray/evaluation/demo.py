"""Simulated patients for an evaluation that runs with nothing else."""

from __future__ import annotations

from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.storage import Store

FIRST_PATIENT, NUM_PATIENTS, NUM_EVENTS = 9000, 12, 12
SEED = 7


def make_demo_archives(uri: str) -> None:
    """Fills an empty folder with a few patients whose numbers no training uses."""
    store = Store(uri)
    if any(True for _ in store.list()):
        return
    for patient in range(FIRST_PATIENT, FIRST_PATIENT + NUM_PATIENTS):
        store.put(*simulate_archive(patient, NUM_EVENTS, seed=SEED, preset="balanced"))
