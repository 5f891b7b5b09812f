"""What planning, listing and scheduling cost the driver, by number of archives and of nodes.

    python -m benchmarks.nodes [--archives 20000 200000 1000000] [--nodes 1 2 4] [--output result.json]

The nodes are raylets on this machine, with one logical CPU each: what they do with a unit costs nothing, so
that throughput says nothing here, and what the driver spends is all there is. Every size and number of nodes
is a driver of its own, which lists archives that do not exist, packs them as a backfill does, and sends every
unit through the backfill's pipeline; its memory is beside that of a driver with nothing to do.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import ray
import tyro

from benchmarks._measure import report
from benchmarks.planning import import_driver
from cluster.local_s3 import free_ports
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.plan import choose_unit_bytes, list_archives, pack_units
from rmsai_ray.tables.manifest import Manifest, difference

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
OBJECT_STORE_BYTES = 200 * 2**20
PORTS = ("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--metrics-export-port")
RUN = "backfill-0000000000000000"


@dataclass
class Options:
    """What to measure."""

    archives: tuple[int, ...] = (20_000, 200_000, 1_000_000)
    nodes: tuple[int, ...] = (1, 2, 4)
    output: Path | None = None


class CountUnits:
    """In the place of a backfill's worker: tells how many archives a unit has."""

    def __init__(self, tasks: object) -> None:
        self._node = ray.get_runtime_context().get_node_id()

    def __call__(self, block: pa.Table) -> pa.Table:
        """As ``ProcessUnits`` does."""
        units = (json.loads(unit) for unit in block["unit"].to_pylist())
        reports = [{"archives": len(unit["archives"]), "node": self._node} for unit in units]
        return pa.table({"report": [json.dumps(each) for each in reports]})


def main(options: Options) -> None:
    """Measures, prints, writes."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    rows: dict[str, Any] = {}
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for nodes in options.nodes:
        with cluster_of(nodes) as address:
            idle = alone(drive, address, 0)
            rows[f"{nodes} nodes, nothing to do: MiB"] = idle["peak_mib"]
            for archives in options.archives:
                each = found[nodes, archives] = alone(drive, address, archives)
                each["added_mib"] = each["peak_mib"] - idle["peak_mib"]
                for name, value in each.items():
                    rows[f"{nodes} nodes, {archives:,} archives: {name}"] = value
    report("Nodes", rows, compared(options, found), options.output)


def compared(options: Options, found: dict[tuple[int, int], dict[str, Any]]) -> dict[str, float]:
    """How far from flat it is, per archive and by nodes."""
    few, many = min(options.archives), max(options.archives)
    one, most = min(options.nodes), max(options.nodes)
    per_archive = {size: found[one, size]["cpu_s"] / size for size in (few, many)}
    return {
        f"driver CPU per archive, {many:,} / {few:,} archives": per_archive[many] / per_archive[few],
        f"driver CPU, {most} nodes / {one}": found[most, many]["cpu_s"] / found[one, many]["cpu_s"],
        f"driver memory, {most} nodes / {one}": found[most, many]["peak_mib"] / found[one, many]["peak_mib"],
        "KiB of the driver per archive": 1024 * found[one, many]["added_mib"] / many,
    }


def alone(step: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Runs it in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(step, *arguments).result()


def drive(address: str, num_archives: int) -> dict[str, Any]:
    """A driver: lists, plans and schedules; its seconds, CPU seconds and largest memory."""
    import_driver()
    pipeline = import_module("rmsai_ray.backfill.pipeline")
    compute = import_module("rmsai_ray.compute")
    job = import_module("rmsai_ray.job")
    pipeline.ProcessUnits = import_module("benchmarks.nodes").CountUnits  # not __main__'s, for the workers
    os.environ["RAY_ADDRESS"] = address
    seconds: dict[str, float] = {}
    job.show_logs()
    with job.ray_session() as cluster:
        before = time.process_time()
        started = time.perf_counter()
        listing = list_archives(BackfillConfig(archives=f"synthetic://{num_archives}", lake="/nowhere"))
        seconds["list_s"] = time.perf_counter() - started
        started = time.perf_counter()
        todo = difference(listing, Manifest.of([]), RUN, retry=False)
        stages = compute.plan_stages(cluster, num_encoders=None, num_gpus=0)
        units = list(
            pack_units(
                todo,
                run_id=RUN,
                unit_bytes=lambda left: choose_unit_bytes(left, stages.num_encoders),
                max_archive_bytes=2**30,
            )
        )
        seconds["plan_s"] = time.perf_counter() - started
        started = time.perf_counter()
        reports = list(pipeline.run_units(units, None, stages)) if units else []
        seconds["schedule_s"] = time.perf_counter() - started
        cpu_s = time.process_time() - before
    assert sum(each["archives"] for each in reports) == num_archives
    return {
        "units": len(units),
        **seconds,
        "cpu_s": cpu_s,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "nodes that worked": len({each["node"] for each in reports}),
    }


@contextmanager
def cluster_of(num_nodes: int) -> Iterator[str]:
    """The address of a cluster of raylets with one logical CPU each, which end with the block."""
    with ExitStack() as stack:
        [port] = free_ports(1)
        for number in range(num_nodes):
            ip = "127.0.0.1" if number == 0 else f"127.0.0.{number + 1}"
            role = ("--head", f"--port={port}") if number == 0 else (f"--address=127.0.0.1:{port}",)
            stack.enter_context(raylet(*role, f"--node-ip-address={ip}"))
        yield f"127.0.0.1:{port}"


@contextmanager
def raylet(*arguments: str) -> Iterator[None]:
    """One node, in a folder of its own, ended by its own pids."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        ports = zip(PORTS, free_ports(len(PORTS)), strict=True)
        command = [
            *(BIN / "ray", "start", "--block", "--disable-usage-stats", "--include-dashboard=false"),
            *(f"--temp-dir={folder}", "--num-cpus=1", f"--object-store-memory={OBJECT_STORE_BYTES}"),
            *(f"{option}={port}" for option, port in ports),
            *arguments,
        ]
        log = Path(folder, "start.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            deadline = time.monotonic() + 90
            while "Ray runtime started" not in log.read_text():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"no node:\n{log.read_text()[-2000:]}")
                time.sleep(0.2)
            yield
        finally:
            if process.poll() is None:
                for member in [*psutil.Process(process.pid).children(recursive=True), process]:
                    member.kill()
                process.wait()


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
