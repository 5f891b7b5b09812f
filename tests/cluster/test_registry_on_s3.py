"""The registry on a real S3 server: conditional writes decide between rivals, and the files come back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rmsai_ray.errors import CheckpointError
from rmsai_ray.models.checkpoint import load_model, save_checkpoint
from rmsai_ray.registry import ModelRegistry
from rmsai_ray.storage import Store
from tests.local_backfill import tiny_bundle


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
