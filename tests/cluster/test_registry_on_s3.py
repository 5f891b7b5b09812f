"""The registry on a real S3 server: conditional writes decide between rivals, backfills follow an alias."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.lake_check import model_ids
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.resolve import resolve
from rmsai_ray.errors import CheckpointError
from rmsai_ray.models.checkpoint import load_model, save_checkpoint
from rmsai_ray.registry import ModelRegistry
from rmsai_ray.signals.leads import LEADS
from rmsai_ray.storage import Store
from tests.cluster.corpus import digests, run, simulate
from tests.local_backfill import tiny_bundle

THRESHOLDS = {"metric": "mse", "percentile": 95, "T_normal": dict.fromkeys(LEADS, 0.5)}


def test_register_promote_fetch_and_roll_back_with_rivals(s3_uri: str, tmp_path: Path) -> None:
    registry = ModelRegistry(s3_uri)
    for number in range(2):
        bundle = replace(tiny_bundle(), trained=True, facts={"number": number})
        registry.register("ecg", save_checkpoint(bundle, tmp_path / f"model-{number}"))

    wanted = {f"alias-{number}": 1 + number % 2 for number in range(6)}
    with ThreadPoolExecutor(6) as pool:  # clients of their own, as on six machines
        list(pool.map(lambda a: ModelRegistry(s3_uri).promote(f"ecg@{wanted[a]}", a), wanted))
    assert {alias: stack[-1] for alias, stack in registry.entry("ecg").aliases.items()} == wanted

    registry.promote("ecg@1")
    registry.promote("ecg@2")
    assert registry.rollback("ecg").version == 1
    version = ModelRegistry(s3_uri).resolve("ecg").version
    assert load_model(registry.fetch(version, tmp_path / "fetched")).facts == {"number": 0}
    assert registry.names() == ["ecg"]

    Store(s3_uri).put(f"{version.folder}/model.json", b"{}")
    with pytest.raises(CheckpointError, match=r"model\.json: expected SHA-256"):
        registry.fetch(version, tmp_path / "again")


def test_backfills_follow_the_champion_there_and_back(local_ray: None, s3_uri: str, tmp_path: Path) -> None:
    registry, made = ModelRegistry(s3_uri), []
    for number in range(2):
        bundle = replace(tiny_bundle(), trained=True, thresholds=THRESHOLDS)
        bundle = replace(bundle, normaliser=replace(bundle.normaliser, floor=0.01 * (1 + number)))
        made.append(registry.register("ecg", save_checkpoint(bundle, tmp_path / f"model-{number}")))
    registry.promote("ecg@1")
    archives = simulate(str(tmp_path / "archives"), 1, 1)
    config = BackfillConfig(
        archives=archives.uri, lake=str(tmp_path / "lake"), model="ecg", registry=s3_uri, detectors="none"
    )

    run(config)
    assert model_ids(config.lake) == [made[0].content_id]
    before = digests(config.lake)
    registry.promote("ecg@2")
    assert resolve(config).bundle.model_id == made[1].content_id
    registry.rollback("ecg")
    run(config)
    assert digests(config.lake) == before  # the champion's rows are there already

    (path,) = tmp_path.glob("lake/runs/backfill-*/run.json")
    record = json.loads(path.read_text())
    assert len(record["invocations"]) == 2
    assert record["config"]["model"] == "ecg"
    assert record["facts"]["model"]["model_id"] == made[0].content_id
    assert record["facts"]["registered"]["model"]["alias"] == "champion"
    assert record["facts"]["registered"]["model"]["version"] == 1
