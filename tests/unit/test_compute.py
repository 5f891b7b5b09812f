from __future__ import annotations

import pytest

from rmsai_ray.compute import Cluster, plan_stages
from rmsai_ray.errors import ConfigError

LAPTOP = Cluster(num_cpus=2, num_gpus=0)
GPU_BOX = Cluster(num_cpus=16, num_gpus=2)


def test_without_gpus_every_core_carries_an_actor_that_does_all_three() -> None:
    stages = plan_stages(LAPTOP, num_encoders=None, num_gpus=0)
    assert (stages.num_encoders, stages.encoder_num_cpus) == (2, 1.0)
    assert (stages.num_readers, stages.num_writers) == (0, 0)
    assert plan_stages(Cluster(num_cpus=1, num_gpus=0), num_encoders=None, num_gpus=0).num_encoders == 1


def test_an_encoder_sits_on_each_share_of_a_gpu() -> None:
    stages = plan_stages(GPU_BOX, num_encoders=None, num_gpus=0.5)
    assert (stages.num_encoders, stages.encoder_num_gpus, stages.encoder_num_cpus) == (4, 0.5, 0.0)
    assert plan_stages(GPU_BOX, num_encoders=3, num_gpus=0.5).num_encoders == 3


@pytest.mark.parametrize("num_cpus", [1, 2, 16, 64])
def test_readers_and_writers_of_gpus_fit_on_the_cores(num_cpus: int) -> None:
    stages = plan_stages(Cluster(num_cpus=num_cpus, num_gpus=1), num_encoders=None, num_gpus=1)
    assert stages.num_readers >= 1
    assert stages.num_writers >= 1
    assert (stages.num_readers + stages.num_writers) * stages.feeder_num_cpus <= num_cpus


@pytest.mark.parametrize(
    ("cluster", "num_encoders", "num_gpus"),
    [(LAPTOP, 3, 0.0), (LAPTOP, None, 1.0), (GPU_BOX, 3, 1.0), (GPU_BOX, None, 4.0),
     (Cluster(num_cpus=0, num_gpus=0), None, 0.0), (Cluster(num_cpus=0, num_gpus=1), None, 1.0)],
)  # fmt: skip
def test_what_cannot_be_scheduled_is_refused_with_the_numbers(
    cluster: Cluster, num_encoders: int | None, num_gpus: float
) -> None:
    with pytest.raises(ConfigError, match=f"{cluster.num_cpus:g} CPUs and {cluster.num_gpus:g} GPUs"):
        plan_stages(cluster, num_encoders=num_encoders, num_gpus=num_gpus)
