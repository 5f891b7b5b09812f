"""One local Ray with two CPUs for all cluster tests, which sees the S3 server of the session."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator

import pytest
import ray

from cluster.local_s3 import LocalS3
from rmsai_ray.backfill.config import BackfillConfig
from tests.cluster.corpus import run, simulate

OBJECT_STORE_BYTES = 500 * 2**20
NUM_ARCHIVES, NUM_EVENTS = 12, 2


@pytest.fixture(scope="session")
def local_ray(s3_server: LocalS3) -> Iterator[None]:
    """A local Ray with 2 CPUs, and a GPU that is none.

    Started after the S3 server because workers inherit the environment.
    """
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=2,
            num_gpus=1,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=folder,
        )
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def uninterrupted(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> BackfillConfig:
    """A folder of archives and a lake that one backfill without disturbance made of them: only to be read."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    archives = simulate(str(folder / "archives"), NUM_ARCHIVES, NUM_EVENTS)
    config = BackfillConfig(archives=archives.uri, lake=str(folder / "lake"))
    run(config)
    return config
