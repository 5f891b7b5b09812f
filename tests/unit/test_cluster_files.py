"""The cluster files say what Ray understands, and name the versions that are pinned."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.runtime_env import RuntimeEnv

from rmsai_ray.compute import ENCODERS_ONLY

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cluster_config() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    return config


@pytest.fixture(scope="module")
def pinned() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    names_and_versions = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in names_and_versions}


def test_ray_accepts_the_cluster_file(cluster_config: dict[str, Any]) -> None:
    prepared = prepare_config(cluster_config)
    validate_config(prepared)
    assert prepared["available_node_types"]["gpu_spot"]["max_workers"] == 8


def test_ray_refuses_a_misspelt_key(cluster_config: dict[str, Any]) -> None:
    cluster_config["max_worker"] = 3
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config(cluster_config))


def test_readers_and_encoders_are_spot_nodes_of_their_own(cluster_config: dict[str, Any]) -> None:
    types = cluster_config["available_node_types"]
    assert types["cpu_spot"]["min_workers"] >= 1, "a run that finds no core is refused"
    assert types["gpu_spot"]["labels"]["pool"] == ENCODERS_ONLY
    for name in ("cpu_spot", "gpu_spot"):
        assert types[name]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert types[name]["max_workers"] <= cluster_config["max_workers"]
    assert all("IamInstanceProfile" in each["node_config"] for each in types.values())
    assert cluster_config["idle_timeout_minutes"] > 0
    assert any("requirements.lock" in command for command in cluster_config["setup_commands"])


def test_ray_accepts_the_file_for_machines_of_ones_own() -> None:
    config = yaml.safe_load((ROOT / "cluster/ray_cluster.local.yaml").read_text())
    prepared = prepare_config(config)
    validate_config(prepared)
    [node_type] = prepared["available_node_types"].values()
    assert node_type["max_workers"] == len(config["provider"]["worker_ips"]) == config["max_workers"]
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "RAY_AUTH_MODE=token ray start" in config[key][-1]
    config["available_node_types"] = {}
    config["provider"].pop("type")
    with pytest.raises((jsonschema.ValidationError, KeyError)):
        validate_config(config)


def test_nothing_runs_on_the_head_and_every_node_asks_for_a_token(cluster_config: dict[str, Any]) -> None:
    assert cluster_config["available_node_types"]["head"]["resources"] == {"CPU": 0}
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        starts = [command for command in cluster_config[key] if "ray start" in command]
        assert starts
        assert all("RAY_AUTH_MODE=token ray start" in command for command in starts)


def test_image_has_the_pinned_ray(cluster_config: dict[str, Any], pinned: dict[str, str]) -> None:
    assert f"ray:{pinned['ray']}-py311" in cluster_config["docker"]["image"]


def test_runtime_env_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    content = yaml.safe_load((ROOT / "cluster/runtime_env.yaml").read_text())
    runtime_env = RuntimeEnv(**content)
    assert float(runtime_env.env_vars()["RAY_JOB_STOP_WAIT_TIME_S"]) > 3
    assert not [name for name in runtime_env.env_vars() if name.startswith("AWS_")]


def test_lock_satisfies_what_the_project_asks_for(pinned: dict[str, str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, asked):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not pinned: make lock"
        assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}: make lock"


def test_every_start_of_ray_that_the_pages_show_asks_for_a_token() -> None:
    for page in (*ROOT.glob("*.md"), *(ROOT / "cluster").rglob("*.md"), *(ROOT / "cluster").rglob("*.yaml")):
        for line in page.read_text().splitlines():
            if "ray start" in line and "--" in line:
                assert "RAY_AUTH_MODE=token" in line, f"{page.name}: {line}"
