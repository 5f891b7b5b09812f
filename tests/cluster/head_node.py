"""A Ray head node of its own for tests that submit jobs: own ports, own folder, ended by its own pids."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from ray.job_submission import JobSubmissionClient

from cluster.local_s3 import free_ports

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
START_TIMEOUT_S = 90.0
PORTS = (
    "--port",
    "--dashboard-port",
    "--ray-client-server-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--metrics-export-port",
)


@dataclass(frozen=True)
class HeadNode:
    """A running head node, and the job commands of Ray against it, run from the repository root."""

    address: str
    metrics_url: str
    """Of the node's exporter, as Prometheus scrapes it."""

    def client(self) -> JobSubmissionClient:
        """Ray's own client, for what its command line does not say."""
        return JobSubmissionClient(self.address)

    def job(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``ray job …`` to its end and give output and exit code."""
        return subprocess.run(
            [BIN / "ray", "job", *arguments],
            cwd=ROOT,
            env=self._env(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=240,
            check=False,
        )

    def _env(self) -> dict[str, str]:
        return os.environ | {"RAY_API_SERVER_ADDRESS": self.address}


@contextmanager
def head_node(*, num_cpus: int = 2, object_store_bytes: int = 500 * 2**20) -> Iterator[HeadNode]:
    """Start a head node whose jobs find this virtual environment, and end it with all that it started."""
    folder = tempfile.mkdtemp(prefix="ray-")  # short: Ray's sockets lie below it
    ports = free_ports(len(PORTS))
    command = [
        *(BIN / "ray", "start", "--head", "--block", "--disable-usage-stats"),
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}"),
        *(f"--num-cpus={num_cpus}", f"--object-store-memory={object_store_bytes}"),
        *(f"{option}={port}" for option, port in zip(PORTS, ports, strict=True)),
    ]
    log = Path(folder, "head.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        node = HeadNode(
            f"http://127.0.0.1:{ports[PORTS.index('--dashboard-port')]}",
            f"http://127.0.0.1:{ports[PORTS.index('--metrics-export-port')]}/metrics",
        )
        _wait_until_ready(node, process, log)
        yield node
    finally:
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(node: HeadNode, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            node.client().list_jobs()
        except (ConnectionError, RuntimeError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"no head node: {error}\n{log.read_text()[-2000:]}") from error
            time.sleep(0.5)
        else:
            return


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the node and its descendants, by their pids; an orderly end drains for half a minute."""
    family = [*psutil.Process(process.pid).children(recursive=True), process]
    for member in family:
        member.kill()
    process.wait()
