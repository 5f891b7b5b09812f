"""A cluster of two nodes: one joins, works, and dies in mid-run; a stop; the next submission ends it all.

The second node lies in a network namespace where the machine has them, and has an address of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ray.job_submission import JobStatus

from benchmarks.lake_check import compare, unsettled_objects
from cluster.local_s3 import LocalS3
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.storage import Store
from tests.cluster.corpus import run, simulate
from tests.cluster.head_node import ROOT, HeadNode, Node, head_node
from tests.cluster.networks import Namespace, SlowDoor, namespace, slow_door, why_no_namespace

NUM_ARCHIVES = 120
READ_S = 0.6
"""That an archive takes to come, so that nodes can come and go in mid-run without work for the cores."""
COUNTED = ("runs_total", "archives_total", "events_total", "windows_total", "units_total", "bytes_total")
JOB = ("python", "jobs/backfill.py")
RUNTIME_ENV = "cluster/runtime_env.yaml"

AROUND_A_GPU = """
import json, sys
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.pipeline import run_units
from rmsai_ray.backfill.plan import list_archives
from rmsai_ray.backfill.resolve import find_todo, plan_units, resolve, shelve, tasks_of
from rmsai_ray.compute import plan_stages
from rmsai_ray.errors import ConfigError
from rmsai_ray.job import ray_session
from rmsai_ray.tables.manifest import Manifest
from rmsai_ray.tables.units import settle
run = resolve(BackfillConfig(archives=sys.argv[1], lake=sys.argv[2], unit_bytes=1))
shelve(run)
run.vectors.ensure_exists()
todo = find_todo(run, list_archives(run.config), Manifest.of([])).slice(0, 12)
with ray_session() as cluster:
    try:
        plan_stages(cluster, num_encoders=None, num_gpus=2)
    except ConfigError as error:
        refused = str(error)
    stages = plan_stages(cluster, num_encoders=None, num_gpus=1)
    reports = list(run_units(plan_units(run, todo, num_workers=1), tasks_of(run, on_gpu=False), stages))
    gpus = [node.node_id for node in cluster.nodes if node.num_gpus]
settle(run.lake, run.vectors, run.bundle.model_id)
nodes = [dict(pair.split("\\t") for pair in report["nodes"]) for report in reports]
print(json.dumps({"gpus": gpus, "nodes": nodes, "refused": refused}))
"""

CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1].rpartition(':')[2])))"


@dataclass(frozen=True)
class Site:
    """Where the nodes and the store of these tests are."""

    head: HeadNode
    door: SlowDoor
    second_door: SlowDoor
    """The second node's own, which counts what that node asks for."""
    archives: str
    second: Namespace | None
    """None: the second node is on our own network, under an address of its own."""


@pytest.fixture(scope="module")
def site(s3_server: LocalS3) -> Iterator[Site]:
    with ExitStack() as stack:
        second = None if why_no_namespace() else stack.enter_context(namespace())
        archives = simulate("s3://tests/nodes/archives", NUM_ARCHIVES, 1)
        ip = second.our_ip if second else "127.0.0.1"
        port = urlsplit(s3_server.endpoint).port
        assert port is not None
        door, second_door = (stack.enter_context(slow_door(port, ip, READ_S)) for _ in range(2))
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("AWS_ENDPOINT_URL", f"http://{ip}:{door.port}")  # the nodes inherit it
        head = stack.enter_context(head_node(num_cpus=1, ip=ip))
        yield Site(head, door, second_door, archives.uri, second)


@pytest.mark.timeout(600)
def test_nodes_come_and_go_and_nothing_is_lost(
    site: Site, local_ray: None, s3_uri: str, tmp_path: Path
) -> None:
    head, lake = site.head, Store(f"{s3_uri}/lake")
    entrypoint = ("--", *JOB, "--archives", site.archives, "--lake", lake.uri)
    code, revision = packed_code(tmp_path), head_revision()

    packed = ("--runtime-env", RUNTIME_ENV, "--working-dir", str(code))
    submitted = head.job(
        "submit", *packed, "--no-wait", "--submission-id", "first", *entrypoint, "--unit-bytes", "1"
    )
    assert submitted.returncode == 0, submitted.stdout
    wait_for(lambda: len(finished_units(lake)) >= 2, "the first units")
    with joined(site) as node:
        wait_for(lambda: site.second_door.num_archives >= 4, "work for the node that joined")
        node.kill()
    before = len(finished_units(lake))
    wait_for(lambda: len(finished_units(lake)) >= before + 3, "units after the loss of a node")
    assert "RUNNING" in head.job("status", "first").stdout
    assert head.job("stop", "first").returncode == 0
    assert head.client().get_job_status("first") == JobStatus.STOPPED
    assert "first" in head.job("logs", "first").stdout  # the last lines come after the record, or never
    stopped = record(lake)
    assert stopped["status"] == "stopped"
    assert stopped["code_version"].endswith(revision[:12])
    assert len(stopped["counts"]["units_by_node"]["write"]) == 2, "one of the nodes did nothing"
    assert not any("lease" in path for path in unsettled_objects(lake.uri))
    assert len(finished_units(lake)) < NUM_ARCHIVES

    site.door.delay_s = site.second_door.delay_s = 0
    second = head.job("submit", "--runtime-env", RUNTIME_ENV, "--submission-id", "second", *entrypoint)

    assert second.returncode == 0, second.stdout
    assert [each["status"] for each in record(lake)["invocations"]] == ["stopped", "done"]
    wait_for(lambda: exported_counts(head) != {}, "the driver's last metrics", timeout_s=30)
    assert exported_counts(head) == recorded_counts(lake)
    undisturbed = BackfillConfig(archives=site.archives, lake=f"{s3_uri}/undisturbed")
    run(undisturbed)
    assert not compare(lake.uri, undisturbed.lake)


def test_encoders_stay_where_gpus_are_and_readers_where_none_is(site: Site, s3_uri: str) -> None:
    """With a GPU that only Ray believes in: its encoder computes on the CPU."""
    site.door.delay_s = site.second_door.delay_s = 0
    command = [sys.executable, "-W", "ignore", "-c", AROUND_A_GPU, site.archives, f"{s3_uri}/lake"]
    with joined(site, "--num-gpus=1", num_cpus=2):
        done = subprocess.run(
            command,
            env=os.environ | {"RAY_ADDRESS": site.head.gcs_address},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["gpus"]) == 1
    assert len(found["nodes"]) == 12
    assert {unit["encode"] for unit in found["nodes"]} == set(found["gpus"])
    elsewhere = {unit[stage] for unit in found["nodes"] for stage in ("read", "write")}
    assert len(elsewhere) == 1
    assert not elsewhere & set(found["gpus"])
    assert "1 encoders of 2 GPU each do not fit into 3 CPUs and 1 GPUs" in found["refused"]


def test_the_second_node_is_on_a_network_of_its_own(site: Site) -> None:
    if site.second is None:
        pytest.skip(why_no_namespace())
    loopback = subprocess.run(
        [*site.second.inside, sys.executable, "-c", CONNECT, site.head.address],
        capture_output=True,
        check=False,
    )
    assert b"ConnectionRefusedError" in loopback.stderr, "the namespace sees our loopback"


def test_exit_code_reaches_whoever_submitted(site: Site) -> None:
    bad_option = ("--archives", site.archives, "--lake", "s3://tests/lake", "--max-reject-fraction", "7")
    submitted = site.head.job(
        "submit", "--runtime-env", RUNTIME_ENV, "--submission-id", "bad", "--", *JOB, *bad_option
    )
    assert submitted.returncode == 1
    assert "max_reject_fraction=7" in submitted.stdout
    assert site.head.client().get_job_info("bad").driver_exit_code == 2


def joined(site: Site, *arguments: str, num_cpus: int = 1) -> AbstractContextManager[Node]:
    """The second node."""
    endpoint = urlsplit(os.environ["AWS_ENDPOINT_URL"])
    own = {"AWS_ENDPOINT_URL": f"http://{endpoint.hostname}:{site.second_door.port}"}
    if site.second is None:
        return site.head.join(*arguments, num_cpus=num_cpus, environment=own)
    second = site.second
    return site.head.join(
        *arguments, ip=second.their_ip, num_cpus=num_cpus, inside=second.inside, environment=own
    )


def packed_code(folder: Path) -> Path:
    """The package at the present revision, as an operator packs it."""
    packed = folder / "code.zip"
    command = ["git", "archive", "--format=zip", f"--output={packed}", "HEAD", "rmsai_ray", "jobs"]
    subprocess.run(command, cwd=ROOT, check=True)
    return packed


def head_revision() -> str:
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def finished_units(lake: Store) -> list[str]:
    return [info.key for info in lake.list("ledger") if info.key.endswith(".json")]


def exported_counts(head: HeadNode) -> dict[str, float]:
    """What the exporter says of the last driver: every driver has series of its own, until the node ends."""
    with urllib.request.urlopen(head.metrics_url, timeout=30) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [sample for family in families for sample in family.samples if "ray_rmsai_" in sample.name]
    ended = {sample.labels["WorkerId"] for sample in samples if sample.labels.get("status") == "done"}
    return {
        "/".join([sample.name.removeprefix("ray_rmsai_"), *own_labels(sample.labels)]): sample.value
        for sample in samples
        if sample.labels["WorkerId"] in ended and sample.name.removeprefix("ray_rmsai_") in COUNTED
    }


def own_labels(labels: dict[str, str]) -> list[str]:
    return [labels[name] for name in ("command", "status", "reason", "kind") if name in labels]


def recorded_counts(lake: Store) -> dict[str, float]:
    """The same as the run record has it."""
    counts = record(lake)["counts"]
    return {
        "runs_total/backfill/done": 1,
        "events_total": counts["events"],
        "windows_total": counts["windows"],
        "units_total": counts["units"],
        **{f"archives_total/{status}": count for status, count in counts["archives"].items()},
        **{f"bytes_total/{kind}": count for kind, count in counts["bytes"].items()},
    }


def record(lake: Store) -> dict[str, Any]:
    """That of the lake's only run."""
    [key] = [info.key for info in lake.list("runs") if info.key.endswith("/run.json")]
    found: dict[str, Any] = json.loads(lake.get(key))
    return found


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 180.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.1)
