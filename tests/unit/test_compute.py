from __future__ import annotations

import pytest

from rmsai_ray.compute import ENCODERS_ONLY, Cluster, Node, plan_stages
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


def of_nodes(*nodes: tuple[float, float], pool: str = "", **more: float) -> Cluster:
    """A cluster of nodes, each with CPUs and GPUs; those with a GPU are of the pool."""
    each = tuple(
        Node(node_id=str(place), num_cpus=cpus, num_gpus=gpus, pool=pool if gpus else "")
        for place, (cpus, gpus) in enumerate(nodes)
    )
    cpus, gpus = (sum(node[kind] for node in nodes) for kind in (0, 1))
    return Cluster(num_cpus=cpus, num_gpus=gpus, nodes=each, **more)


def test_an_actor_never_spans_two_nodes() -> None:
    assert plan_stages(of_nodes((1.5, 0), (1.5, 0)), num_encoders=None, num_gpus=0).num_encoders == 2
    with pytest.raises(ConfigError, match=r"0 CPUs and 1 GPUs \(0 and 0.5, 0 and 0.5 by node\)"):
        plan_stages(of_nodes((0, 0.5), (0, 0.5)), num_encoders=None, num_gpus=1)


def test_readers_and_writers_keep_off_the_nodes_of_gpus_where_there_are_others() -> None:
    stages = plan_stages(of_nodes((0, 0), (8, 1), (4, 0), (4, 0)), num_encoders=None, num_gpus=1)
    assert (stages.num_encoders, stages.num_readers, stages.feeders_avoid) == (1, 8, ("0", "1"))
    alone = plan_stages(of_nodes((0, 0), (8, 1)), num_encoders=None, num_gpus=1)
    assert (alone.num_readers, alone.feeders_avoid) == (8, ())
    with pytest.raises(ConfigError, match="cores for readers"):
        plan_stages(of_nodes((0, 0), (8, 1), pool=ENCODERS_ONLY), num_encoders=None, num_gpus=1)


def test_a_number_that_is_asked_for_stays_and_any_other_grows_with_the_cluster() -> None:
    assert plan_stages(LAPTOP, num_encoders=None, num_gpus=0).elastic
    assert not plan_stages(LAPTOP, num_encoders=2, num_gpus=0).elastic


def test_what_an_autoscaler_may_bring_counts() -> None:
    empty = of_nodes((0, 0), most_cpus=32, most_gpus=2)
    assert plan_stages(empty, num_encoders=None, num_gpus=0).num_encoders == 1
    assert plan_stages(empty, num_encoders=8, num_gpus=0).num_encoders == 8
    assert plan_stages(empty, num_encoders=None, num_gpus=1).num_readers == 1
    with pytest.raises(ConfigError, match="growing to 32 and 2"):
        plan_stages(empty, num_encoders=33, num_gpus=0)
