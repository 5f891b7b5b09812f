"""A Ray cluster of its own for tests: a head and nodes that join and leave, ended by their own pids."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from ray.job_submission import JobSubmissionClient

from cluster.local_s3 import free_ports

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
START_TIMEOUT_S = 90.0
HEAD_PORTS = ("--port", "--dashboard-port", "--ray-client-server-port")
NODE_PORTS = ("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--metrics-export-port")
OBJECT_STORE_BYTES = 500 * 2**20
WORKER_OBJECT_STORE_BYTES = 200 * 2**20


@dataclass(frozen=True)
class Node:
    """A raylet with its workers, as the process that started them."""

    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """SIGKILL for all of it at once, as if the power had gone."""
        family = [*psutil.Process(self.process.pid).children(recursive=True), self.process]
        for member in family:
            member.kill()
        self.process.wait()


@dataclass(frozen=True)
class HeadNode:
    """A running head node, and the job commands of Ray against it, run from the repository root."""

    address: str
    metrics_url: str
    """Of the node's exporter, as Prometheus scrapes it."""
    gcs_address: str

    def client(self) -> JobSubmissionClient:
        """Ray's own client, for what its command line does not say."""
        return JobSubmissionClient(self.address)

    def job(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``ray job …`` to its end and give output and exit code."""
        return subprocess.run(
            [BIN / "ray", "job", *arguments],
            cwd=ROOT,
            env=os.environ | {"RAY_API_SERVER_ADDRESS": self.address},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=240,
            check=False,
        )

    @contextmanager
    def join(
        self,
        *arguments: str,
        ip: str = "127.0.0.2",
        num_cpus: int = 2,
        inside: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ) -> Iterator[Node]:
        """A further node, which has joined when the block begins.

        Args:
            arguments: of ``ray start``.
            ip: its own, so that Ray takes it for another machine.
            num_cpus: that Ray believes in.
            inside: a command that runs its command somewhere else, e.g. in a network namespace.
            environment: beside that of the tests, for the node's workers.
        """
        ports = zip(NODE_PORTS, free_ports(len(NODE_PORTS)), strict=True)
        command = (
            f"--address={self.gcs_address}",
            f"--node-ip-address={ip}",
            f"--num-cpus={num_cpus}",
            f"--object-store-memory={WORKER_OBJECT_STORE_BYTES}",
            *(f"{option}={port}" for option, port in ports),
        )
        with _started(*command, *arguments, inside=inside, environment=environment) as (node, log):
            _wait_until(lambda: "Ray runtime started" in log.read_text(), node, log)
            yield node


@contextmanager
def head_node(
    *, num_cpus: int = 2, object_store_bytes: int = OBJECT_STORE_BYTES, ip: str = "127.0.0.1"
) -> Iterator[HeadNode]:
    """Start a head node whose jobs find this virtual environment, and end it with all that it started."""
    options = HEAD_PORTS + NODE_PORTS
    ports = dict(zip(options, free_ports(len(options)), strict=True))
    command = (
        *("--head", f"--node-ip-address={ip}", "--dashboard-host=127.0.0.1"),
        *(f"--num-cpus={num_cpus}", f"--object-store-memory={object_store_bytes}"),
        *(f"{option}={port}" for option, port in ports.items()),
    )
    with _started(*command) as (process, log):
        node = HeadNode(
            address=f"http://127.0.0.1:{ports['--dashboard-port']}",
            metrics_url=f"http://127.0.0.1:{ports['--metrics-export-port']}/metrics",
            gcs_address=f"{ip}:{ports['--port']}",
        )
        _wait_until(lambda: _answers(node), process, log)
        agent = ports["--dashboard-agent-listen-port"]
        _wait_until(lambda: _listens(ip, agent), process, log)  # it starts the jobs' drivers
        yield node


@contextmanager
def _started(
    *arguments: str, inside: Sequence[str] = (), environment: dict[str, str] | None = None
) -> Iterator[tuple[Node, Path]]:
    folder = tempfile.mkdtemp(prefix="ray-")  # short: Ray's sockets lie below it
    log = Path(folder, "start.log")
    command = [*inside, BIN / "ray", "start", "--block", "--disable-usage-stats", f"--temp-dir={folder}"]
    with log.open("wb") as output:
        node = Node(
            subprocess.Popen(
                [*command, *arguments],
                env=os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | (environment or {}),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        )
    try:
        yield node, log
    finally:
        if node.process.poll() is None:
            node.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until(condition: Callable[[], bool], node: Node, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        if node.process.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError(f"no node:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)


def _listens(ip: str, port: int) -> bool:
    try:
        socket.create_connection((ip, port), timeout=1).close()
    except OSError:
        return False
    return True


def _answers(node: HeadNode) -> bool:
    try:
        node.client().list_jobs()
    except (ConnectionError, RuntimeError):
        return False
    return True
