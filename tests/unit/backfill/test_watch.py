"""The loop of a watching backfill: what it waits for, what ends it, and what does not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rmsai_ray.backfill import watch as watching
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.plan import list_archives
from rmsai_ray.backfill.resolve import Run
from rmsai_ray.backfill.watch import pause_s, watch
from rmsai_ray.compute import Cluster
from rmsai_ray.errors import ConfigError, LakeError, RejectLimitError
from rmsai_ray.job import StopRequested
from rmsai_ray.models.checkpoint import save_checkpoint
from rmsai_ray.registry import ModelRegistry
from tests.local_backfill import tiny_bundle


@pytest.fixture
def config(tmp_path: Path) -> BackfillConfig:
    """Of a registry with two versions of a model, and a folder with one archive."""
    registry = ModelRegistry(str(tmp_path / "registry"))
    for number, alias in enumerate(("champion", "challenger")):
        bundle = replace(tiny_bundle(), trained=True)
        bundle = replace(bundle, normaliser=replace(bundle.normaliser, floor=0.01 * (1 + number)))
        registry.register("ecg", save_checkpoint(bundle, tmp_path / f"model-{number}"), alias=alias)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.h5").write_bytes(b"not looked at")
    return BackfillConfig(
        archives=str(tmp_path / "in"),
        lake=str(tmp_path / "lake"),
        model="ecg",
        registry=str(tmp_path / "registry"),
        threshold_profile="seed",
        watch=7.0,
        settle_s=0.0,
    )


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Begin and end of every Ray session that the loop opens."""
    seen: list[str] = []

    @contextmanager
    def session() -> Iterator[Cluster]:
        seen.append("begin")
        yield Cluster(num_cpus=1, num_gpus=0)
        seen.append("end")

    monkeypatch.setattr(watching, "ray_session", session)
    return seen


def waiting(monkeypatch: pytest.MonkeyPatch, *events: Callable[[], object]) -> list[float]:
    """Each wait of the loop takes no time and lets the next thing happen; the last one stops the loop."""
    waits: list[float] = []
    left = [*events]

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if not left:
            os.kill(os.getpid(), signal.SIGTERM)
            time.process_time()  # a bytecode boundary, where the signal is handled
            raise AssertionError("SIGTERM was not heard")
        left.pop(0)()

    monkeypatch.setattr(watching.time, "sleep", sleep)
    return waits


def nothing() -> None:
    return


def test_a_promoted_model_is_the_next_cycles_and_sigterm_ends_the_wait(
    config: BackfillConfig, sessions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = ModelRegistry(str(config.registry))
    waits = waiting(monkeypatch, lambda: registry.promote("ecg@challenger"))
    used: list[str] = []

    def work(run: Run, listing: pa.Table) -> None:
        used.append(run.bundle.model_id)
        assert listing.num_rows == 1

    handler = signal.getsignal(signal.SIGTERM)
    watch(config, work)
    first, second = registry.entry("ecg").versions
    assert used == [first.content_id, second.content_id]
    assert waits == [7.0, 7.0]
    assert sessions == ["begin", "end"], "one Ray for all cycles"
    assert signal.getsignal(signal.SIGTERM) is handler


def test_failures_are_waited_out_longer_and_longer(
    config: BackfillConfig, sessions: list[str], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    waits = waiting(monkeypatch, *[nothing] * 5)
    outcomes: list[Exception | None] = [
        LakeError("held by run x"), ConfigError("model", "m", "is gone", ""), None,
        RejectLimitError("too many"), ValueError("Ray has died"), LakeError("held again"),
    ]  # fmt: skip

    def work(run: Run, listing: pa.Table) -> None:
        if outcome := outcomes.pop(0):
            raise outcome

    watch(config, work)
    assert outcomes == []
    assert waits == [14.0, 28.0, 7.0, 7.0, 14.0, 14.0]
    assert sessions.count("begin") == 2, "what is not ours may have been Ray: it is started anew"
    for text in ("held by run x", "is gone", "too many", "Ray has died", "held again"):
        assert text in caplog.text


def test_pauses_are_capped() -> None:
    assert pause_s(5.0, 20) == 300.0
    assert pause_s(3600.0, 1) == 3600.0


def test_sigterm_at_work_is_told(
    config: BackfillConfig, sessions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting(monkeypatch)

    def work(run: Run, listing: pa.Table) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("SIGTERM was not heard")

    with pytest.raises(StopRequested):
        watch(config, work)


def test_a_cycle_without_work_leaves_nothing(
    config: BackfillConfig, sessions: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "in/a.h5").unlink()
    waiting(monkeypatch, nothing, nothing)

    def work(run: Run, listing: pa.Table) -> None:
        raise AssertionError("there is nothing to do")

    watch(config, work)
    assert not [path for path in Path(config.lake).rglob("*") if path.is_file()]


def test_what_may_still_be_written_is_left_for_later(config: BackfillConfig, tmp_path: Path) -> None:
    for name, age_s in (("old", 60.0), ("new", 0.5), ("ahead", -0.5), ("far ahead", -60.0)):
        path = tmp_path / f"in/{name}.h5"
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age_s,) * 2)

    def listed(**options: Any) -> set[str]:
        listing = list_archives(replace(config, **options))
        return {Path(uri).stem for uri in listing["uri"].to_pylist()}

    (tmp_path / "in/a.h5").unlink()
    assert listed(settle_s=None) == {"old", "far ahead"}
    assert listed(settle_s=120.0) == set()
    assert listed(settle_s=0.0) == listed(settle_s=None, watch=None) == {"old", "new", "ahead", "far ahead"}
    with pytest.raises(ConfigError, match="settle_s"):
        replace(config, settle_s=-1.0)
