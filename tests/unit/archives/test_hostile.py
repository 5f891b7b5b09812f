"""Hostile files cost themselves alone: no kind gets more memory or time than it may, or opens a file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rmsai_ray.archives import guard, packs
from rmsai_ray.archives.guard import close_parser, parser_pid
from rmsai_ray.archives.hostile import hostile_reasons
from rmsai_ray.archives.hostile_bytes import BYTES
from rmsai_ray.archives.hostile_hdf5 import HDF5, plain, rewritten
from rmsai_ray.archives.hostile_packs import PACKS
from rmsai_ray.archives.limits import DEFAULT_LIMITS, MEBIBYTE, Budget, Limits
from rmsai_ray.archives.problems import PROBLEMS
from rmsai_ray.archives.reader import DEFAULTS, read_archive, read_by_library
from rmsai_ray.archives.transport import from_json, from_parts, to_json, to_parts
from rmsai_ray.errors import ArchiveError, ConfigError
from tests.both_ways import exactly

ROOT = Path(__file__).resolve().parents[3]
NAME = "PT9499_2026-10.h5"
SLACK_MIB = 96.0
READ_ALL = """
import json, sys
seen = []
def watch(event, arguments):
    if event in ("socket.connect", "os.system", "os.exec", "pickle.find_class"):
        seen.append([event, str(arguments)])
    elif event == "open" and isinstance(arguments[0], str):
        seen.append([event, arguments[0]])
from benchmarks.hostile import asdict, measured
from rmsai_ray.archives.guard import close_parser
from rmsai_ray.archives.hostile import hostile_files
files = hostile_files()
measured(files["layout_latest"].content, "PT1_2026-10.h5")
sys.addaudithook(watch)
found = {kind: asdict(measured(file.content, file.file_name)) for kind, file in files.items()}
close_parser()
json.dump({"seen": seen, "readings": found, "names": [file.file_name for file in files.values()]}, sys.stdout)
"""


@pytest.fixture(scope="module")
def readings() -> dict[str, Any]:
    """What became of every kind, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ_ALL],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_there_are_many_kinds(readings: dict[str, Any]) -> None:
    reasons = hostile_reasons()
    assert len(reasons) >= 40
    assert len(set(readings["names"])) == len(reasons)
    assert set(reasons.values()) - {None} <= set(PROBLEMS)


def test_every_kind_ends_as_it_should(readings: dict[str, Any]) -> None:
    expected = {kind: [reason] if reason else [] for kind, reason in hostile_reasons().items()}
    found = {kind: reading["reasons"] for kind, reading in readings["readings"].items()}
    assert found == expected
    costs = {PROBLEMS[reason].costs for reasons in found.values() for reason in reasons}
    assert costs == {"archive"}


def test_no_kind_takes_more_memory_or_time_than_it_may(readings: dict[str, Any]) -> None:
    most_mib = DEFAULT_LIMITS.memory_bytes / MEBIBYTE + SLACK_MIB
    for kind, reading in readings["readings"].items():
        assert reading["worker_mib"] < most_mib, kind
        assert reading["parser_mib"] < most_mib, kind
        assert reading["cpu_s"] < DEFAULT_LIMITS.seconds + 1, kind


def test_no_kind_opens_a_file_or_connects(readings: dict[str, Any]) -> None:
    """The worker looks at memory, and starts a parser where one died; that one's doors are shut by itself."""
    own = ("/proc/", "/dev/null")
    assert [each for each in readings["seen"] if each[0] != "open" or not each[1].startswith(own)] == []


@pytest.fixture
def parser() -> Iterator[int]:
    """The process id of a parser that has read something."""
    read_archive(newest(), NAME)
    pid = parser_pid()
    assert pid is not None
    yield pid
    close_parser()


def newest() -> bytes:
    """A good archive that only the library can read."""
    return rewritten(lambda file: None, libver="latest")()


def test_the_parser_answers_as_the_library_does() -> None:
    raw = newest()
    found = read_archive(raw, NAME)
    expected = read_by_library(raw, NAME, options=DEFAULTS, archive_id=found.archive_id)
    assert found.detour is not None
    assert exactly(found) == exactly(expected)


def test_a_parser_that_is_killed_costs_nothing(parser: int) -> None:
    os.kill(parser, signal.SIGKILL)
    assert read_archive(newest(), NAME).events
    assert parser_pid() not in (None, parser)


def test_a_crash_of_the_library_costs_one_archive(parser: int) -> None:
    with pytest.raises(ArchiveError, match="crashed on it: ended by SIGSEGV") as caught:
        read_archive(BYTES["tree_of_itself"][1](), NAME)
    assert caught.value.reason == "parser_died"
    assert read_archive(newest(), NAME).events


def test_a_parser_that_does_not_answer_is_given_up(parser: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "START_S", 0.0)
    os.kill(parser, signal.SIGSTOP)
    budget = Budget(0, Limits(seconds=0.05, patience=1.0))
    started = time.monotonic()
    with pytest.raises(ArchiveError) as caught:
        read_archive(newest(), NAME, budget=budget)
    assert caught.value.reason == "too_slow"
    assert time.monotonic() - started < 5
    assert not psutil.pid_exists(parser)


def test_too_little_time_and_memory_are_told_apart(parser: int) -> None:
    slow, large = HDF5["members_vitals"][1](), HDF5["members_in_a_fractal_heap"][1]()
    with pytest.raises(ArchiveError) as caught:
        read_archive(slow, NAME, budget=Budget(len(slow), Limits(seconds=0.02)))
    assert caught.value.reason == "too_slow"
    with pytest.raises(ArchiveError) as caught:
        read_archive(large, NAME, budget=Budget(len(large), Limits(memory_bytes=MEBIBYTE)))
    assert caught.value.reason == "too_large"


def test_the_parser_holds_no_secret_and_no_file(parser: int) -> None:
    process = psutil.Process(parser)
    assert {name for name in process.environ() if "AWS" in name or "KEY" in name or "TOKEN" in name} == set()
    assert [file.path for file in process.open_files() if not file.path.startswith("/proc/")] == []
    if sys.platform == "linux":
        assert process.rlimit(psutil.RLIMIT_NOFILE)[0] <= 4
        assert process.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)


def test_the_parser_ends_with_its_parent() -> None:
    code = (
        "import os, signal; from tests.unit.archives.test_hostile import *\n"
        "read_archive(newest(), NAME); print(parser_pid(), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while is_running(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(int(done.stdout))


def is_running(pid: int) -> bool:
    """Whether the process is there, and not only its exit code, for which nobody has asked."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_threads_take_turns() -> None:
    raw, found = newest(), []
    threads = [threading.Thread(target=lambda: found.append(read_archive(raw, NAME))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({str(exactly(each)) for each in found}) == 1
    assert len(found) == 4


def _without_an_event(head: dict[str, Any]) -> None:
    head["events"][0].pop("uuid")


def _a_number_for_a_name(head: dict[str, Any]) -> None:
    head["patient_id"] = 7


def _more_samples_than_came(head: dict[str, Any]) -> None:
    head["events"][0]["leads"]["ECG1"][2] = 1 << 40


def _an_unknown_problem(head: dict[str, Any]) -> None:
    head["problems"] = [["no_such_code", "", ""]]


@pytest.mark.parametrize(
    "change", [_without_an_event, _a_number_for_a_name, _more_samples_than_came, _an_unknown_problem]
)
def test_an_answer_is_checked(change: Callable[[dict[str, Any]], None]) -> None:
    head, samples = to_parts(read_archive(plain(), NAME))
    head = from_json(to_json(head))
    whole = memoryview(b"".join(samples))
    assert from_parts(head, whole).events
    change(head)
    with pytest.raises((KeyError, TypeError, ValueError)):
        from_parts(head, whole)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(memory_bytes=MEBIBYTE), None),
        (Limits(depth=1), "too_deep"),
        (Limits(events=0), "too_many"),
        (Limits(members=20), "too_many"),
        (Limits(rates=0), "too_many"),
        (Limits(seconds=1e-9), "too_slow"),
    ],
)
@pytest.mark.parametrize("is_direct", [True, False])
def test_limits_hold_on_both_ways(limits: Limits, reason: str | None, is_direct: bool) -> None:
    def read() -> object:
        budget = Budget(len(plain()), limits)
        if is_direct:
            return read_archive(plain(), NAME, budget=budget)
        return read_by_library(plain(), NAME, options=DEFAULTS, archive_id="x", budget=budget)

    if reason is None:
        assert read()
        return
    with pytest.raises(ArchiveError) as caught:
        read()
    assert caught.value.reason == reason


def test_attributes_are_counted_where_all_are_looked_at() -> None:
    with pytest.raises(ArchiveError, match="more than 1 attributes"):
        read_archive(plain(), NAME, budget=Budget(len(plain()), Limits(attributes=1)))


@pytest.mark.parametrize("values", [{"memory_bytes": 1}, {"seconds": 0.0}, {"seconds": float("nan")}])
def test_limits_that_are_none(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Limits(**values)


def test_members_of_a_pack_share_no_bytes() -> None:
    with pytest.raises(ArchiveError, match="share bytes"):
        packs.read_index(raw := PACKS["pack_members_that_overlap"][1](), len(raw))


@pytest.mark.parametrize(
    "content",
    ["[" + "{}," * 9000 + "{}]", "[" + "[]," * 9000 + "1]", '{"b":[' + "1.5," * 9000 + "1]}",
     "[" + '{"":0},' * 9000 + "0]", '"' + "\\u4e2d" * 9000 + '"',
     '{"' + '":"","'.join(map(str, range(9000))) + '":0}'],
)  # fmt: skip
def test_what_json_is_charged_is_more_than_it_becomes(content: str) -> None:
    tracemalloc.start()
    parsed = json.loads(content)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert parsed
    assert Budget(1 << 30).charge_json(content, "here") >= size
