"""Two rounds that need no S3: a disk that is full, and drivers whose clocks are wrong."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._chaos_drivers import Driver, wait_until
from benchmarks._chaos_scenes import RUN_TIMEOUT_S, RoundResult, Stage
from benchmarks.lake_check import check_visible, list_objects

DISK_BYTES = 64 << 20
NUM_FILLINGS = 2
HOURS = (5, -7, 30)


def disk(stage: Stage, dice: random.Random) -> RoundResult:
    """A lake in a folder whose disk is full, more than once, and then is not."""
    result = RoundResult()
    with small_disk(stage.folder / "disk") as folder:
        lake = stage.write_lake(str(folder / "lake"), stage.base)
        for _ in range(NUM_FILLINGS):
            filler = folder / "filler"
            free = dice.randrange(20_000, 300_000)
            _fill(filler, free)
            driver = stage.backfill(lake, "--min-free-bytes", "0")  # into the wall, not up to it
            code = driver.wait(RUN_TIMEOUT_S)
            filler.unlink()
            result.note("disk-full" if code else "", check_visible(lake))
            if code:
                stage.count("disk-full", kills=0)
        stage.finish(lake, "--retry-quarantined")
        return result.compared(stage, lake)


def _fill(path: Path, free: int) -> None:
    """Leaves so many bytes of a disk."""
    block = bytes(1 << 16)
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(block)
        except OSError:
            pass
        file.truncate(max(0, file.tell() - free))


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A tmpfs, for which one must be root.

    Raises:
        subprocess.CalledProcessError: this user or machine may not mount one.
    """
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


def clocks(stage: Stage, dice: random.Random) -> RoundResult:
    """Drivers whose clocks are hours off, one after the other, each killed in the middle."""
    result = RoundResult()
    lake = stage.write_lake(str(stage.folder / f"clocks-{dice.randrange(1 << 30)}"), stage.base)
    for number, hours in enumerate(dice.sample(HOURS, 2)):
        driver = stage.backfill(lake, shift_s=hours * 3600.0)
        _wait_for_unit(driver, lake)
        struck = driver.kill()
        driver.wait(RUN_TIMEOUT_S)
        if struck:
            stage.count("clock-jump")
        result.note(f"clock-jump ({hours:+} h)" if struck else "", check_visible(lake))
        if not struck and number == 0:
            result.wrong(f"a driver with a wrong clock ended with {driver.exit_code}: {driver.output()}")
    stage.finish(lake)
    return result.compared(stage, lake)


def _wait_for_unit(driver: Driver, lake: str) -> None:
    """Until a driver has one more finished unit, or has ended."""
    before = set(list_objects(lake, "ledger"))
    wait_until(
        lambda: driver.ended.is_set() or bool(set(list_objects(lake, "ledger")) - before), RUN_TIMEOUT_S
    )
