"""Actors, GPUs and fractions of a CPU: what the cluster has, turned into Ray arguments."""

from __future__ import annotations

from dataclasses import dataclass

from rmsai_ray.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What can be scheduled."""

    num_cpus: float
    num_gpus: float


@dataclass(frozen=True, kw_only=True)
class StageResources:
    """Ray arguments of the three stages of a backfill."""

    num_readers: int
    num_encoders: int
    encoder_num_gpus: float
    reader_num_cpus: float
    encoder_num_cpus: float
    writer_num_cpus: float


READER_CPUS = 0.5
ENCODER_CPUS = 0.4
WRITER_CPUS = 0.1
"""Fractions of a core that add up to 1, so that a core carries all three stages."""


def plan_stages(cluster: Cluster, *, num_encoders: int | None, num_gpus: float) -> StageResources:
    """Shares the cluster among reading, encoding and writing.

    Without GPUs every core carries one reader, one encoder and now and then a writer. With GPUs an encoder
    sits on each share of one, and the cores are the readers'.

    Raises:
        ConfigError: the stages cannot be scheduled together; says what is needed and what is there.
    """
    if num_gpus > 0:
        most = int(cluster.num_gpus // num_gpus) if num_gpus <= cluster.num_gpus else 0
    else:
        most = int(cluster.num_cpus)
    encoders = most if num_encoders is None else num_encoders
    if not 1 <= encoders <= most:
        raise ConfigError(
            "num_encoders",
            num_encoders,
            f"{max(encoders, 1)} encoders of {num_gpus or ENCODER_CPUS} {'GPU' if num_gpus else 'CPU'} each "
            f"do not fit into {cluster.num_cpus:g} CPUs and {cluster.num_gpus:g} GPUs",
            f"Ask for 1 to {most}." if most else "Start a cluster that has them, or set --num-gpus 0.",
        )
    return StageResources(
        num_readers=max(1, int(cluster.num_cpus)),
        num_encoders=encoders,
        encoder_num_gpus=num_gpus,
        reader_num_cpus=READER_CPUS,
        encoder_num_cpus=0.0 if num_gpus else ENCODER_CPUS,
        writer_num_cpus=WRITER_CPUS,
    )
