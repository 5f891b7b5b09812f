"""A Ray that takes orders from strangers is refused, and our own takes none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray

from cluster.local_s3 import free_ports
from rmsai_ray.errors import ConfigError
from rmsai_ray.exposure import ALLOW, answers_strangers, refuse_open_ray

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).with_name("ray")
START_TIMEOUT_S = 90.0
PORTS = (
    "--port",
    "--ray-client-server-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--metrics-export-port",
)
NO_TOKEN = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}

OWN_RAY = """
import psutil
from rmsai_ray.job import ray_session
with ray_session():
    for process in psutil.Process().children(recursive=True):
        for connection in process.net_connections("tcp"):
            if connection.status == "LISTEN":
                print(connection.laddr.ip.removeprefix("::ffff:"))
"""


@pytest.fixture
def open_ray() -> Iterator[str]:
    """``127.0.0.1:port`` of a head that was told to stay on loopback, and asks for no token."""
    ports = free_ports(len(PORTS))
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        command = [
            *(RAY, "start", "--head", "--block", "--disable-usage-stats", "--include-dashboard=false"),
            *("--node-ip-address=127.0.0.1", f"--temp-dir={folder}", "--num-cpus=1"),
            *("--object-store-memory=100000000", "--min-worker-port=0", "--max-worker-port=0"),
            *(f"{option}={port}" for option, port in zip(PORTS, ports, strict=True)),
        ]
        with Path(folder, "head.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=os.environ | NO_TOKEN, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            yield f"127.0.0.1:{ports[0]}"
        finally:
            for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                each.kill()
            process.wait()


@pytest.mark.skipif(
    all(
        address.address.startswith("127.")
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET
    ),
    reason="this machine has no address that others reach it by",
)
def test_an_open_ray_is_refused_unless_it_is_meant(open_ray: str, tmp_path: Path) -> None:
    without_token = os.environ | NO_TOKEN
    own = subprocess.Popen(
        [sys.executable, "-c", OWN_RAY], cwd=ROOT, env=without_token, stdout=subprocess.PIPE, text=True
    )
    wait_for(open_ray)

    job = [sys.executable, "jobs/simulate.py", "--output", str(tmp_path / "made"), "--events", "2"]
    done = subprocess.run(
        job,
        cwd=ROOT,
        env=without_token | {"RAY_ADDRESS": open_ray},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2, done.stderr
    assert "asks for no token" in done.stderr
    assert f"{ALLOW}=1" in done.stderr
    assert not list(tmp_path.rglob("*.h5*"))
    with pytest.raises(ConfigError, match="RAY_AUTH_MODE=token"):
        refuse_open_ray(open_ray)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(ALLOW, "1")
        refuse_open_ray(open_ray)

    listening = own.communicate(timeout=120)[0].split()
    assert own.returncode == 0
    assert len(listening) >= 3, "our own Ray, without a token, which nobody else reaches"
    assert set(listening) == {"127.0.0.1"}


def test_a_ray_with_a_token_answers_no_stranger(local_ray: None) -> None:
    address = ray.get_runtime_context().gcs_address
    with socket.create_connection(address.rsplit(":", 1), timeout=10):
        assert not answers_strangers(address)


def wait_for(address: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not answers_strangers(address):
        assert time.monotonic() < deadline, "the head does not start"
        time.sleep(0.2)
