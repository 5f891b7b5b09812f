"""The harness of the chaos runs, in small: a driver dies in a commit, and the next one's answers get lost."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import ray

from benchmarks._chaos_drivers import nursery
from benchmarks._chaos_kinds import POINTS
from benchmarks._chaos_scenes import RoundResult, Stage, Strikes, Trigger
from benchmarks._flaky_proxy import flaky_proxy
from benchmarks.lake_check import check_visible, read_lake
from cluster.local_s3 import LocalS3
from rmsai_ray.backfill.config import BackfillConfig


@pytest.mark.timeout(300)
def test_a_kill_and_lost_answers_leave_the_lake_of_an_undisturbed_run(
    uninterrupted: BackfillConfig, s3_server: LocalS3, s3_uri: str, tmp_path: Path
) -> None:
    strikes, result, lake = Strikes(), RoundResult(), f"{s3_uri}/lake"
    with flaky_proxy(s3_server.endpoint, strikes.choose, carried_out=strikes.carried_out) as proxy:
        address = ray.get_runtime_context().gcs_address
        environment = {**os.environ, "AWS_ENDPOINT_URL": proxy.endpoint, "RAY_ADDRESS": address}
        with nursery(tmp_path, environment) as drivers:
            stage = Stage(
                folder=tmp_path,
                nursery=drivers,
                nodes=None,  # type: ignore[arg-type]  # no worker is killed here
                proxy=proxy,
                strikes=strikes,
                archives=uninterrupted.archives,
            )
            stage.reference = read_lake(uninterrupted.lake)

            driver = stage.backfill(lake)
            [(method, path)] = POINTS["driver-publish"]
            trigger = Trigger(method, re.compile(path + r".*\d"), 2, is_after=True, strike=driver.kill)
            struck, seen = stage.kill_at(driver, "driver-publish", trigger)
            assert struck, driver.output()
            assert not seen + check_visible(lake)

            strikes.fault, strikes.percent, strikes.salt = "lost", 30, 1
            driver = stage.backfill(lake)
            assert driver.wait(120) == 0, driver.output()
            strikes.calm()
            assert proxy.faults["lost"] > 0
            assert not result.compared(stage, lake).findings
    assert stage.tally == {"driver-publish": 1}
