"""One run at a time holds a lake on S3, whoever comes, dies or sleeps: real processes, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rmsai_ray.storage import Store
from rmsai_ray.tables.lease import FOLDER, latest_claim

ROOT = Path(__file__).resolve().parents[2]
NUM_TAKERS = 4
HOLD = """
import sys
from rmsai_ray.errors import LakeError
from rmsai_ray.storage import Store
from rmsai_ray.tables import lease
lease.EXPIRES_S, lease.WATCH_S = 0.0, 1.0
sys.stdin.readline()
try:
    held = lease.Lease(Store(sys.argv[1]), "backfill-1").__enter__()
    print(f"holds {held.epoch}", flush=True)
    for _ in sys.stdin:
        held.confirm()
        print("still", flush=True)
    held.__exit__(None, None, None)
except LakeError as error:
    print(error, flush=True)
"""
"""Takes a lake at the first line of its input, confirms that at each other one, and gives it back."""


def test_of_those_that_come_at_once_one_holds_the_lake_until_it_dies(s3_uri: str) -> None:
    with takers(s3_uri, NUM_TAKERS) as several:
        for each in several:
            say(each)
        answers = {each: heard(each) for each in several}
        [holder] = [each for each, answer in answers.items() if answer.startswith("holds")]
        for told in answers.values():
            assert told == "holds 1" or f"process {holder.pid} on" in told or "taken by another" in told
        holder.kill()  # and is not waited for: a zombie is dead
        with takers(s3_uri, 1) as [heir]:
            say(heir)
            assert heard(heir) == "holds 2"
    assert len(list(Store(s3_uri).list(FOLDER))) == 1


def test_a_holder_of_another_machine_that_sleeps_is_replaced_and_told_when_it_wakes(s3_uri: str) -> None:
    with takers(s3_uri, 2) as [sleeper, heir]:
        say(sleeper)
        assert heard(sleeper) == "holds 1"
        os.kill(sleeper.pid, signal.SIGSTOP)
        move_elsewhere(s3_uri)
        say(heir)
        assert heard(heir) == "holds 2"
        os.kill(sleeper.pid, signal.SIGCONT)
        say(sleeper)
        assert f"lost {s3_uri} to run backfill-1 (process {heir.pid} on" in heard(sleeper)
        say(heir)
        assert heard(heir) == "still"


def test_a_second_backfill_is_told_and_ends_with_an_exit_code_of_its_own(s3_uri: str, tmp_path: Path) -> None:
    with takers(s3_uri, 1) as [holder]:
        say(holder)
        assert heard(holder) == "holds 1"
        done = subprocess.run(
            [sys.executable, ROOT / "jobs/backfill.py", "--archives", str(tmp_path), "--lake", s3_uri],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 4, done.stderr
        assert f"is held by run backfill-1 (process {holder.pid} on" in done.stderr


@contextmanager
def takers(lake: str, number: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that wait for a word."""
    made = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, lake],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(number)
    ]
    try:
        yield made
    finally:
        for each in made:
            each.kill()
            each.communicate()


def say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def move_elsewhere(lake: str) -> None:
    """The claim becomes that of another machine."""
    store = Store(lake)
    claim = latest_claim(store)
    assert claim is not None
    there = {**vars(claim.holder), "host": "elsewhere", "machine": "elsewhere"}
    store.put(claim.info.key, json.dumps(there).encode())
