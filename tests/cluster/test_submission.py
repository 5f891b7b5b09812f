"""Jobs submitted to a running cluster: stopped in the middle, finished by a second submission."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ray.job_submission import JobStatus

from cluster.local_s3 import LocalS3
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.models.checkpoint import save_checkpoint, untrained_model
from rmsai_ray.storage import Store
from rmsai_ray.tables.lake import open_lake
from tests.cluster.head_node import HeadNode, head_node

COUNTED = ("runs_total", "archives_total", "events_total", "windows_total", "units_total", "bytes_total")
NUM_ARCHIVES, NUM_EVENTS, NUM_LEADS = 16, 8, 7
SUBMIT = ("submit", "--runtime-env", "cluster/runtime_env.yaml")


@pytest.fixture(scope="module")
def head(s3_server: LocalS3) -> Iterator[HeadNode]:
    with head_node() as node:
        yield node


@pytest.fixture
def archives(s3_uri: str) -> str:
    store = Store(f"{s3_uri}/archives")
    for index in range(NUM_ARCHIVES):
        store.put(*simulate_archive(index, NUM_EVENTS, seed=5))
    return store.uri


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(save_checkpoint(untrained_model("framed-2400x64"), tmp_path / "untrained"))


@pytest.mark.timeout(600)
def test_a_stopped_job_is_finished_by_a_second_submission(
    head: HeadNode, archives: str, model: str, s3_uri: str
) -> None:
    lake = Store(f"{s3_uri}/lake")
    where = ("--archives", archives, "--lake", lake.uri, "--unit-bytes", "1")
    entrypoint = ("--", "python", "jobs/backfill.py", *where, "--model", model, "--threshold-profile", "seed")

    submitted = head.job(*SUBMIT, "--no-wait", "--submission-id", "first", *entrypoint)
    assert submitted.returncode == 0, submitted.stdout
    _wait_for(lambda: len(_finished_units(lake)) >= 2, "the first units")
    assert head.client().stop_job("first")
    _wait_for(lambda: head.client().get_job_status("first").is_terminal(), "the end of the first job")
    assert head.client().get_job_status("first") == JobStatus.STOPPED
    assert "Stopped." in head.client().get_job_logs("first")  # a follower may leave before the last line
    assert _statuses(lake) == ["failed"], "the driver had no time to end its record"
    done_before = _finished_units(lake)
    assert 2 <= len(done_before) < NUM_ARCHIVES
    restarted = datetime.now(UTC)

    second = head.job(*SUBMIT, "--submission-id", "second", *entrypoint)

    assert second.returncode == 0, second.stdout
    tables = open_lake(lake.uri)
    [counts] = tables.rows("SELECT count(*) AS n, count(DISTINCT window_id) AS different FROM windows")
    num_windows = NUM_ARCHIVES * NUM_EVENTS * NUM_LEADS
    assert counts == {"n": num_windows, "different": num_windows}
    assert tables.vectors().count_rows() == num_windows
    manifest = tables.rows("SELECT unit_id, status, committed_time FROM archives")
    assert [row["status"] for row in manifest] == ["committed"] * NUM_ARCHIVES
    kept = {row["unit_id"] for row in manifest if row["committed_time"] < restarted}
    assert done_before <= kept
    assert _statuses(lake) == ["failed", "done"]
    _wait_for(lambda: _exported_counts(head) != {}, "the driver's last metrics", timeout_s=30)
    assert _exported_counts(head) == _recorded_counts(lake)


def test_exit_code_reaches_whoever_submitted(head: HeadNode, s3_uri: str) -> None:
    bad_option = ("--archives", s3_uri, "--lake", f"{s3_uri}/lake", "--max-reject-fraction", "7")

    submitted = head.job(*SUBMIT, "--submission-id", "bad", "--", "python", "jobs/backfill.py", *bad_option)

    assert submitted.returncode == 1
    assert "max_reject_fraction=7" in submitted.stdout
    assert head.client().get_job_info("bad").driver_exit_code == 2


def _finished_units(lake: Store) -> set[str]:
    return {
        info.key.rpartition("/")[2].removesuffix(".json")
        for info in lake.list("ledger")
        if info.key.endswith(".json")
    }


def _exported_counts(head: HeadNode) -> dict[str, float]:
    """What the exporter says of the last driver: every driver has series of its own, until the node ends."""
    with urllib.request.urlopen(head.metrics_url, timeout=30) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [sample for family in families for sample in family.samples if "ray_rmsai_" in sample.name]
    ended = {sample.labels["WorkerId"] for sample in samples if sample.labels.get("status") == "done"}
    return {
        "/".join([sample.name.removeprefix("ray_rmsai_"), *_own_labels(sample.labels)]): sample.value
        for sample in samples
        if sample.labels["WorkerId"] in ended and sample.name.removeprefix("ray_rmsai_") in COUNTED
    }


def _own_labels(labels: dict[str, str]) -> list[str]:
    return [labels[name] for name in ("command", "status", "reason", "kind") if name in labels]


def _recorded_counts(lake: Store) -> dict[str, float]:
    """The same as the run record has it."""
    [key] = [info.key for info in lake.list("runs") if info.key.endswith("/run.json")]
    counts = json.loads(lake.get(key))["counts"]
    return {
        "runs_total/backfill/done": 1,
        "events_total": counts["events"],
        "windows_total": counts["windows"],
        "units_total": counts["units"],
        **{f"archives_total/{status}": count for status, count in counts["archives"].items()},
        **{f"bytes_total/{kind}": count for kind, count in counts["bytes"].items()},
    }


def _statuses(lake: Store) -> list[str]:
    """How the invocations of the lake's only run ended."""
    [key] = [info.key for info in lake.list("runs") if info.key.endswith("/run.json")]
    return [invocation["status"] for invocation in json.loads(lake.get(key))["invocations"]]


def _wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 180.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.1)
