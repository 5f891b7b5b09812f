"""Actors, GPUs and fractions of a CPU: what the cluster has, turned into Ray arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rmsai_ray.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What can be scheduled."""

    num_cpus: float
    num_gpus: float


@dataclass(frozen=True, kw_only=True)
class StageResources:
    """Ray arguments of a backfill's actors.

    Without GPUs an encoder reads, encodes and writes, and there are neither readers nor writers.
    """

    num_encoders: int
    encoder_num_cpus: float
    encoder_num_gpus: float = 0.0
    num_readers: int = 0
    num_writers: int = 0
    feeder_num_cpus: float = 0.0
    """Of a reader and of a writer."""

    def busy_s(self, seconds: Mapping[str, float]) -> float:
        """Seconds for which work keeps the encoders busy, given those of each stage.

        With GPUs the stages work beside each other, and the one that takes longest binds.
        """
        if not self.encoder_num_gpus:
            return sum(seconds.values())
        actors = {"read": self.num_readers, "encode": self.num_encoders, "write": self.num_writers}
        return max(self.num_encoders * taken / actors[stage] for stage, taken in seconds.items())


FEEDER_CPUS = 0.5
READERS_PER_WRITER = 4
"""Reading a unit takes several times the work of writing it."""


def plan_stages(cluster: Cluster, *, num_encoders: int | None, num_gpus: float) -> StageResources:
    """Shares the cluster among reading, encoding and writing.

    Without GPUs every core carries one actor that does all three. With GPUs an encoder sits on each share of
    one, and the cores are the readers' and the writers'.

    Raises:
        ConfigError: the stages cannot be scheduled together; says what is needed and what is there.
    """
    if num_gpus > 0:
        most = int(cluster.num_gpus // num_gpus) if num_gpus <= cluster.num_gpus else 0
    else:
        most = int(cluster.num_cpus)
    encoders = most if num_encoders is None else num_encoders
    if not 1 <= encoders <= most or cluster.num_cpus < 1:
        raise ConfigError(
            "num_encoders",
            num_encoders,
            f"{max(encoders, 1)} encoders of {num_gpus or 1} {'GPU' if num_gpus else 'CPU'} each do not fit "
            f"into {cluster.num_cpus:g} CPUs and {cluster.num_gpus:g} GPUs",
            f"Ask for 1 to {most}." if most else "Start a cluster that has them, or set --num-gpus 0.",
        )
    if not num_gpus:
        return StageResources(num_encoders=encoders, encoder_num_cpus=1.0)
    num_readers = int(cluster.num_cpus)
    return StageResources(
        num_encoders=encoders,
        encoder_num_cpus=0.0,
        encoder_num_gpus=num_gpus,
        num_readers=num_readers,
        num_writers=max(1, num_readers // READERS_PER_WRITER),
        feeder_num_cpus=FEEDER_CPUS,
    )
