"""Archives, models and runs of the cluster tests; changes when their common corpus does."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from benchmarks.lake_check import list_objects, model_ids, open_filesystem
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.flow import backfill
from rmsai_ray.errors import RejectLimitError
from rmsai_ray.models.checkpoint import save_checkpoint, untrained_model
from rmsai_ray.storage import Store

SEED = 11
NUM_LEADS = 7


def simulate(uri: str, num_archives: int, num_events: int) -> Store:
    """Writes archives ``PT….h5`` of patients 0, 1, …, always the same."""
    store = Store(uri)
    for patient in range(num_archives):
        store.put(*simulate_archive(patient, num_events, seed=SEED))
    return store


def untrained(folder: Path, *, seed: int) -> str:
    """A second model of the default profile, as the path of its checkpoint."""
    return str(save_checkpoint(untrained_model("framed-2400x64", seed=seed), folder))


def run(config: BackfillConfig, **options: object) -> None:
    """Backfills on the Ray of this session, however many archives are broken."""
    backfill(replace(config, max_reject_fraction=1.0, **options))  # type: ignore[arg-type]


def ends_with_too_many_rejects(config: BackfillConfig) -> bool:
    try:
        backfill(config)
    except RejectLimitError:
        return True
    return False


def only_model(lake_uri: str) -> str:
    [model_id] = model_ids(lake_uri)
    return model_id


def digests(uri: str) -> dict[str, str]:
    """Path → hash of the content, of every object that is no record of a run."""
    filesystem, root = open_filesystem(uri)
    found = {}
    for path in list_objects(uri):
        key = path.removeprefix(f"{root}/")
        if not key.startswith("runs/"):
            with filesystem.open_input_file(path) as file:
                found[key] = hashlib.sha256(file.read()).hexdigest()
    return found
