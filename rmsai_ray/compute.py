"""Actors, GPUs and fractions of a CPU: what the cluster has, turned into Ray arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rmsai_ray.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Node:
    """One machine of a cluster, as Ray counts it."""

    node_id: str
    num_cpus: float
    num_gpus: float
    pool: str = ""
    """Its label ``pool``, where it has one."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What can be scheduled."""

    num_cpus: float
    num_gpus: float
    nodes: tuple[Node, ...] = ()
    """None named: one node that has it all."""
    most_cpus: float = 0.0
    """That an autoscaler may bring it to; 0 without one."""
    most_gpus: float = 0.0

    @property
    def machines(self) -> tuple[Node, ...]:
        """The nodes; an actor must fit into one of them."""
        return self.nodes or (Node(node_id="", num_cpus=self.num_cpus, num_gpus=self.num_gpus),)

    def __str__(self) -> str:
        have = f"{self.num_cpus:g} CPUs and {self.num_gpus:g} GPUs"
        each = ", ".join(f"{node.num_cpus:g} and {node.num_gpus:g}" for node in self.nodes)
        grown = f", growing to {self.most_cpus:g} and {self.most_gpus:g}" if self.most_cpus else ""
        return f"{have} ({each} by node)" + grown if len(self.nodes) > 1 else have + grown


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
    feeders_avoid: tuple[str, ...] = ()
    """Ids of nodes that are the encoders' alone."""
    elastic: bool = False
    """Whether more actors may start when nodes join."""

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

ENCODERS_ONLY = "gpu"
"""A node's label ``pool`` that keeps readers and writers away, also from nodes that are still to come."""


def plan_stages(cluster: Cluster, *, num_encoders: int | None, num_gpus: float) -> StageResources:
    """Shares the cluster among reading, encoding and writing.

    Without GPUs every core carries one actor that does all three. With GPUs an encoder sits on each share of
    one, and the cores of the other nodes are the readers' and the writers'; where there are none, those of
    the GPUs' nodes. A number of encoders that is not asked for grows with the cluster.

    Raises:
        ConfigError: the stages cannot be scheduled together; says what is needed and what is there.
    """
    fits = _fitting(cluster, num_gpus)
    most = max(fits, int(cluster.most_gpus // num_gpus if num_gpus else cluster.most_cpus))
    encoders = max(1, fits) if num_encoders is None else num_encoders
    feeders = _feeder_nodes(cluster) if num_gpus else cluster.machines
    num_cores = int(sum(node.num_cpus for node in feeders))
    if not 1 <= encoders <= most or max(num_cores, cluster.most_cpus) < 1:
        raise ConfigError(
            "num_encoders",
            num_encoders,
            f"{max(encoders, 1)} encoders of {num_gpus or 1} {'GPU' if num_gpus else 'CPU'} each do not fit "
            f"into {cluster}",
            f"Ask for 1 to {most}."
            if most and num_cores
            else f"Start a cluster that has them{', and cores for readers' if num_gpus else ''}, "
            "or set --num-gpus 0.",
        )
    elastic = num_encoders is None
    if not num_gpus:
        return StageResources(num_encoders=encoders, encoder_num_cpus=1.0, elastic=elastic)
    num_readers = max(1, num_cores)
    return StageResources(
        num_encoders=encoders,
        encoder_num_cpus=0.0,
        encoder_num_gpus=num_gpus,
        num_readers=num_readers,
        num_writers=max(1, num_readers // READERS_PER_WRITER),
        feeder_num_cpus=FEEDER_CPUS,
        feeders_avoid=tuple(node.node_id for node in cluster.nodes if node not in feeders),
        elastic=elastic,
    )


def _fitting(cluster: Cluster, num_gpus: float) -> int:
    """Encoders for which there is room now; one never spans two nodes."""
    if num_gpus:
        return sum(int(node.num_gpus // num_gpus) for node in cluster.machines)
    return sum(int(node.num_cpus) for node in cluster.machines)


def _feeder_nodes(cluster: Cluster) -> tuple[Node, ...]:
    """Where readers and writers run beside GPUs: on nodes without one, if there are any with a core."""
    allowed = tuple(node for node in cluster.machines if node.pool != ENCODERS_ONLY)
    beside = tuple(node for node in allowed if not node.num_gpus and node.num_cpus >= 1)
    return beside or allowed
