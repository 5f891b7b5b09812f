from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from rmsai_ray import job
from rmsai_ray.errors import ArchiveError, ConfigError, LakeError, RejectLimitError


@dataclass(frozen=True, kw_only=True)
class SumConfig:
    """Adds."""

    first: int
    """The first number."""
    second: int = 1
    """The second number."""

    def __post_init__(self) -> None:
        if self.second < 0:
            raise ConfigError("second", self.second, "must not be negative", "Give 0 or more.")


PRESETS = {"demo": SumConfig(first=1), "large": SumConfig(first=1000, second=2000)}


@pytest.fixture(autouse=True)
def _keep_logging() -> Iterator[None]:
    """``job.run`` sets up logging for a process; here it must not leak into other tests."""
    root, package = logging.getLogger(), logging.getLogger("rmsai_ray")
    handlers, levels = root.handlers[:], (root.level, package.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    package.setLevel(levels[1])


def parsed(*argv: str) -> SumConfig:
    return job.parse(SumConfig, presets=PRESETS, argv=argv)


def test_nothing_at_all_is_the_demo() -> None:
    assert parsed() == PRESETS["demo"]


def test_options_override_a_preset() -> None:
    assert parsed("large", "--second", "3") == SumConfig(first=1000, second=3)


def test_options_alone_take_the_defaults_of_the_class_and_not_the_demo() -> None:
    assert parsed("--first", "5") == SumConfig(first=5)
    with pytest.raises(SystemExit) as stopped:
        parsed("--second", "5")  # first has no default
    assert stopped.value.code == job.EXIT_BAD_CONFIG


def test_help_names_presets_and_what_options_mean(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parsed("--help")
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "Presets: demo, large" in shown
    assert "The second number." in shown


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (None, 0, ""),
        (LakeError("held by run backfill-1"), 1, "held by run backfill-1"),
        (ArchiveError("corrupt", "no way through it"), 1, "no way through it"),
        (ValueError("odd"), 1, "odd"),
        (ConfigError("model", "x", "is no model", "Name one."), 2, "model='x': is no model. Name one."),
        (RejectLimitError("9 of 10 archives are quarantined"), 3, "9 of 10 archives are quarantined"),
        (KeyboardInterrupt(), 1, "the same command goes on from here"),
        (job.StopRequested(), 1, "the same command goes on from here"),
    ],
)
def test_exit_codes(
    raised: BaseException | None,
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[SumConfig] = []

    def flow(config: SumConfig) -> None:
        seen.append(config)
        if raised:
            raise raised

    assert job.run(SumConfig, flow, presets=PRESETS, argv=["large"]) == code
    assert seen == [PRESETS["large"]]
    assert said in capsys.readouterr().err + caplog.text


def test_a_bad_value_is_refused_before_the_flow_starts(capsys: pytest.CaptureFixture[str]) -> None:
    def flow(config: SumConfig) -> None:
        raise AssertionError("must not be called")

    assert job.run(SumConfig, flow, presets=PRESETS, argv=["--first", "1", "--second", "-1"]) == 2
    assert "must not be negative" in capsys.readouterr().err


def test_sigterm_stops_the_driver_and_the_old_handler_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job.ray, "is_initialized", lambda: True)
    nobody_listens_there = SimpleNamespace(gcs_address="127.0.0.1:1")
    monkeypatch.setattr(job.ray, "get_runtime_context", lambda: nobody_listens_there)
    node = {"NodeID": "a", "Alive": True, "Labels": {}, "Resources": {"CPU": 2.0}}
    monkeypatch.setattr(job.ray, "nodes", lambda: [node, {**node, "Alive": False}])
    monkeypatch.setattr(job.global_state, "get_max_resources_from_cluster_config", lambda: None)
    before = signal.getsignal(signal.SIGTERM)
    with job.ray_session() as cluster:
        assert (cluster.num_cpus, cluster.num_gpus) == (2.0, 0.0)
        with pytest.raises(job.StopRequested):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
