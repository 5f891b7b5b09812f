"""Kills backfills at seeded points, lets each be finished, and compares every lake with an undisturbed one.

    python -m benchmarks.kills [--rounds 20] [--seed 0]

The lake of every round starts with some archives in it, of which a few have changed since, so that a run
adds and replaces rows. The round's driver is killed with SIGKILL where its kill point says, and the same
command then runs to its end. Drivers share one local Ray, as on a cluster. Prints a line per round and then
the sum of rows that are lost, added, twice or different; exits with 1 where there is one.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.lake_check import Findings, compare

JOB = Path(__file__).resolve().parents[1] / "jobs" / "backfill.py"
NUM_ARCHIVES, NUM_BEFORE, NUM_CHANGED, EVENTS_PER_ARCHIVE = 24, 8, 3, 4
UNIT_BYTES = 2_000_000
"""Two archives each: ten units."""
RUN_TIMEOUT_S = 600.0

Sign = Literal["start", "part", "unit", "version", "manifest"]
KILL_POINTS: tuple[tuple[Sign, int, float], ...] = (
    ("start", 1, 2.0),
    ("part", 12, 0.1),
    ("unit", 10, 0.3),
    ("unit", 10, 0.3),
    ("version", 2, 0.02),
    ("manifest", 1, 0.01),
)
"""(what appears in the lake, how often at most, seconds at most from there to the kill)."""


@dataclass
class Options:
    """How often, and at which points."""

    rounds: int = 20
    """Kill points."""
    seed: int = 0
    """Of the kill points; the archives are always the same."""


@dataclass(frozen=True, kw_only=True)
class KillPoint:
    """When a driver dies: some time after the lake shows something for the n-th time."""

    sign: Sign
    count: int
    delay_s: float

    def __str__(self) -> str:
        return f"{self.sign} {self.count} + {self.delay_s * 1000:.0f} ms"

    @staticmethod
    def draw(rng: random.Random) -> KillPoint:
        """Any moment in the stream of units, and often the few in which a run starts or settles."""
        sign, most, longest_s = rng.choice(KILL_POINTS)
        return KillPoint(sign=sign, count=rng.randint(1, most), delay_s=rng.uniform(0, longest_s))


class LakeWatch:
    """Counts signs of progress in a lake, beyond what is there already."""

    def __init__(self, lake: Path) -> None:
        self._lake = lake
        self._before = self._signs()

    def count(self, sign: str) -> int:
        """How many new or rewritten objects of that kind there have been."""
        return len(self._signs()[sign] - self._before[sign])

    def _signs(self) -> dict[str, set[tuple[str, int]]]:
        patterns = {
            "start": "runs/lease.json",
            "part": "windows/*/*/*.parquet",
            "unit": "ledger/*/*.json",
            "version": "lance/*/_versions/*.manifest",
            "manifest": "archives/*/manifest.parquet",
        }
        return {sign: set(_stamps(self._lake.glob(pattern))) for sign, pattern in patterns.items()}


def _stamps(paths: Iterator[Path]) -> Iterator[tuple[str, int]]:
    for path in paths:
        try:
            yield path.name, path.stat().st_mtime_ns
        except FileNotFoundError:
            continue


def main(options: Options) -> int:
    """Prepares, kills, compares; the exit code."""
    warnings.filterwarnings("ignore", message="lancedb fork support")  # drivers are executed, not only forked
    rng = random.Random(options.seed)
    points = [KillPoint.draw(rng) for _ in range(options.rounds)]
    total, num_killed = Findings(), 0
    with tempfile.TemporaryDirectory(prefix="rmsai-kills-") as name, shared_ray() as environment:
        folder = Path(name)
        archives, base, reference = prepare(folder, environment)
        for number, point in enumerate(points, 1):
            lake = Path(shutil.copytree(base, folder / "lake"))
            started = time.perf_counter()
            was_killed = run_and_kill(archives, lake, environment, point)
            run_to_the_end(archives, lake, environment)
            found = compare(str(lake), str(reference))
            shutil.rmtree(lake)
            total, num_killed = total + found, num_killed + was_killed
            what = "killed" if was_killed else "ended before"
            print(
                f"{number:>3}  {what} at {point}, {time.perf_counter() - started:.0f} s: {found}", flush=True
            )
    print(f"{num_killed} of {options.rounds} runs killed: {total}")
    return 1 if total or not num_killed else 0


@contextmanager
def shared_ray() -> Iterator[dict[str, str]]:
    """A local Ray with two CPUs; yields the environment by which drivers find it."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    import ray  # reads the token when it is imported

    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=500 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    try:
        yield os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address, "PYTHONWARNINGS": "ignore"}
    finally:
        ray.shutdown()


def prepare(folder: Path, environment: dict[str, str]) -> tuple[Path, Path, Path]:
    """(archives, the lake before every round, the lake after an undisturbed run)."""
    archives, base = folder / "archives", folder / "base"
    archives.mkdir()
    make_archives(archives, range(NUM_BEFORE), seed=0)
    run_to_the_end(archives, base, environment)
    make_archives(archives, range(NUM_CHANGED), seed=1)
    make_archives(archives, range(NUM_BEFORE, NUM_ARCHIVES), seed=0)
    unchanged = sorted(archives.iterdir())[NUM_BEFORE - 1]
    shutil.copy(unchanged, archives / "copy.h5")
    reference = Path(shutil.copytree(base, folder / "reference"))
    run_to_the_end(archives, reference, environment)
    return archives, base, reference


def make_archives(folder: Path, patients: range, *, seed: int) -> None:
    """Writes simulated archives, over those of another seed."""
    from rmsai_ray.archives.simulator import simulate_archive

    for patient in patients:
        name, content = simulate_archive(patient, EVENTS_PER_ARCHIVE, seed=seed)
        (folder / name).write_bytes(content)


def run_to_the_end(archives: Path, lake: Path, environment: dict[str, str]) -> None:
    """One backfill; whatever it says is shown where it fails."""
    with driver(archives, lake, environment) as process:
        output, _ = process.communicate(timeout=RUN_TIMEOUT_S)
    if process.returncode != 0:
        raise RuntimeError(f"the backfill ended with exit code {process.returncode}:\n{output}")


def run_and_kill(archives: Path, lake: Path, environment: dict[str, str], point: KillPoint) -> bool:
    """Starts a backfill and kills its driver; False where it ended before its kill point came."""
    watch = LakeWatch(lake)
    with driver(archives, lake, environment) as process:
        came = _wait(lambda: watch.count(point.sign) >= point.count, process)
        time.sleep(point.delay_s)
        if not came or process.poll() is not None:
            return False
        os.killpg(process.pid, signal.SIGKILL)
    return True


def _wait(condition: Callable[[], bool], process: subprocess.Popen[str]) -> bool:
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while process.poll() is None:
        if condition():
            return True
        if time.monotonic() > deadline:
            raise TimeoutError(f"the backfill still runs after {RUN_TIMEOUT_S:.0f} s")
        time.sleep(0.002)
    return False


@contextmanager
def driver(archives: Path, lake: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """The job in a session of its own, which does not outlive the block."""
    options = ["--archives", archives, "--lake", lake, "--unit-bytes", str(UNIT_BYTES)]
    process = subprocess.Popen(
        [sys.executable, JOB, *options],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
