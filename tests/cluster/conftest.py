"""One local Ray with two CPUs for all cluster tests, which sees the S3 server of the session."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pytest
import ray

from cluster.local_s3 import LocalS3

OBJECT_STORE_BYTES = 500 * 2**20


@pytest.fixture(scope="session")
def local_ray(s3_server: LocalS3) -> Iterator[None]:
    """A local Ray with 2 CPUs; started after the S3 server because workers inherit the environment."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=2,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            _temp_dir=folder,
        )
        yield
        ray.shutdown()
