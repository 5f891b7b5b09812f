"""Real jobs in processes of their own, started within a tenth of a second: forked from one that has imported
everything, which a driver spends most of its start with. What they fork into are ordinary drivers, with a
session, a log and a Ray job of their own, and they die by real signals.
"""

from __future__ import annotations

import itertools
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 120.0
LOOK_S = 0.005


@dataclass
class Driver:
    """One job that was started."""

    job: str
    log: Path
    pid: int = 0
    exit_code: int | None = None
    """Negative: the signal that ended it."""
    started: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def kill(self, number: int = signal.SIGKILL) -> bool:
        """Sends a signal; False where the driver has ended already."""
        if self.ended.is_set():
            return False
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False

    def wait(self, timeout_s: float) -> int:
        """Waits for its end; kills it where that does not come.

        Raises:
            TimeoutError: it had to be killed.
        """
        if not self.ended.wait(timeout_s):
            self.kill()
            self.ended.wait(30)
            raise TimeoutError(f"{self.job} still ran after {timeout_s:.0f} s:\n{self.output()}")
        assert self.exit_code is not None
        return self.exit_code

    def output(self) -> str:
        """What it has said."""
        return self.log.read_text(errors="replace")[-4000:]


class Nursery:
    """The process from which drivers are forked."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._drivers: dict[int, Driver] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._chaos_drivers"],
            cwd=ROOT,
            env={**environment, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def start(
        self, job: str, *argv: str, tweaks: Mapping[str, float] | None = None, shift_s: float = 0.0
    ) -> Driver:
        """Starts ``jobs/<job>.py``.

        Args:
            job: the name of a file.
            argv: its options.
            tweaks: values of ``rmsai_ray`` that are otherwise, e.g. ``tables.lease.WATCH_S``: waits that this
                driver need not sit through.
            shift_s: how far ahead its clock is.
        """
        number = next(self._numbers)
        driver = Driver(job, self._folder / f"driver-{number}.log")
        self._drivers[number] = driver
        request = {
            "number": number,
            "job": job,
            "argv": argv,
            "log": str(driver.log),
            "tweaks": tweaks or {},
            "shift_s": shift_s,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        if not driver.started.wait(START_TIMEOUT_S):
            raise TimeoutError(f"no driver was forked in {START_TIMEOUT_S:.0f} s")
        return driver

    def close(self) -> None:
        """Ends every driver, and the process."""
        for driver in self._drivers.values():
            driver.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            news = json.loads(line)
            driver = self._drivers[news["number"]]
            if "pid" in news:
                driver.pid = news["pid"]
                driver.started.set()
            else:
                driver.exit_code = news["exit_code"]
                driver.ended.set()


@contextmanager
def nursery(folder: Path, environment: Mapping[str, str]) -> Iterator[Nursery]:
    """Runs while the block lasts."""
    made = Nursery(folder, environment)
    try:
        yield made
    finally:
        made.close()


def serve() -> None:
    """Forks a driver for each line of stdin; tells of starts and ends on stdout."""
    import rmsai_ray.backfill.maintain  # noqa: F401 - what makes a start slow

    alive: dict[int, int] = {}
    is_open = True
    while is_open or alive:
        ready, _, _ = select.select([sys.stdin] if is_open else [], [], [], LOOK_S)
        if ready:
            line = sys.stdin.readline()
            is_open = bool(line)
            if line:
                request = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    _become(request)
                alive[pid] = request["number"]
                _tell(number=request["number"], pid=pid)
        for pid in list(alive):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                _tell(number=alive.pop(pid), exit_code=os.waitstatus_to_exitcode(status))


def _become(request: dict[str, Any]) -> None:
    """The rest of a forked process's life."""
    code = 1
    try:
        os.setsid()
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        for name, value in request["tweaks"].items():
            module, _, attribute = name.rpartition(".")
            setattr(sys.modules[f"rmsai_ray.{module}"], attribute, value)
        script = ROOT / "jobs" / f"{request['job']}.py"
        if request["shift_s"]:
            _shift_clock(request["shift_s"])
        sys.argv = [str(script), *request["argv"]]
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _shift_clock(seconds: float) -> None:
    """Moves Python's wall clock, for whatever the package and its libraries ask for the time."""
    clock, now = time.time, sys.modules["rmsai_ray.runs"].now
    time.time = lambda: clock() + seconds
    for module in list(sys.modules.values()):
        if getattr(module, "now", None) is now:
            module.now = lambda: now() + timedelta(seconds=seconds)  # type: ignore[attr-defined]


def _tell(**news: int) -> None:
    sys.stdout.write(json.dumps(news) + "\n")
    sys.stdout.flush()


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether a condition came true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_S)
    return True


if __name__ == "__main__":
    serve()
