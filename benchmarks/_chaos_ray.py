"""A Ray of two nodes on this machine, whose processes can be killed and whose second node can come back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

NODE: dict[str, Any] = {
    "num_cpus": 1,
    "object_store_memory": 200 * 2**20,
    "node_ip_address": "127.0.0.1",
}
ENCODER = "ray::MapWorker(MapBatches(ProcessUnits))"
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""A raylet ends with its agents; with the head's, all of Ray would be lost."""


@dataclass
class TwoNodes:
    """The cluster."""

    cluster: Any
    second: Any

    @property
    def address(self) -> str:
        """For ``RAY_ADDRESS``."""
        return str(self.cluster.address)

    def kill_encoder(self, rng: random.Random) -> bool:
        """Kills the process of an encoder actor; False where there is none."""
        return _kill(rng, [p for p, title in self._workers() if title.startswith(ENCODER)])

    def kill_worker(self, rng: random.Random) -> bool:
        """Kills any other process that runs Python for Ray: a task's, another actor's, an idle one."""
        return _kill(rng, [p for p, title in self._workers() if not title.startswith((ENCODER, *AGENTS))])

    def kill_second_node(self) -> bool:
        """Kills the raylet of the second node, and with it all that works there."""
        raylet = self._raylet(self.second)
        raylet.kill()
        raylet.wait()
        return True

    def rejoin(self) -> None:
        """A fresh node takes the place of the killed one."""
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.second = self.cluster.add_node(**NODE)

    def _workers(self) -> Iterator[tuple[psutil.Process, str]]:
        for node in (self.cluster.head_node, self.second):
            try:
                for process in self._raylet(node).children(recursive=True):
                    title = " ".join(process.cmdline())
                    if title.startswith("ray::"):
                        yield process, title
            except psutil.NoSuchProcess:
                continue

    @staticmethod
    def _raylet(node: Any) -> psutil.Process:
        [raylet] = node.all_processes["raylet"]
        return psutil.Process(raylet.process.pid)


def _kill(rng: random.Random, processes: list[psutil.Process]) -> bool:
    if not processes:
        return False
    chosen = rng.choice(sorted(processes, key=lambda process: process.pid))
    try:
        chosen.kill()
    except psutil.NoSuchProcess:
        return False
    return True


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """Runs while the block lasts; its processes inherit the environment of now."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        yield TwoNodes(cluster, cluster.add_node(**NODE))
    finally:
        cluster.shutdown()
