"""The registry: versions never change, aliases move and move back, and no crash or rival loses a change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rmsai_ray import registry as registry_module
from rmsai_ray.errors import CheckpointError, ConfigError, StorageError
from rmsai_ray.models.checkpoint import load_model, save_checkpoint, untrained_model
from rmsai_ray.registry import Lineage, ModelRegistry
from rmsai_ray.storage import Store
from tests.local_backfill import tiny_bundle

ANCESTORS = [{"model_id": "tiny-00"}, {"model_id": "tiny-0"}]
FACTS = {"data_hash": "0123456789abcdef", "lineage": ANCESTORS, "run_id": "pretrain-1"}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three trained models that differ in a number."""
    root = tmp_path_factory.mktemp("checkpoints")
    made = []
    for number in range(3):
        bundle = replace(
            tiny_bundle(), trained=True, metrics={"auroc": 0.9 + number / 100}, facts=FACTS | {"seed": number}
        )
        folder = save_checkpoint(bundle, root / f"model-{number}", card=f"# Model {number}\n")
        (folder / "detectors" / "knn").mkdir(parents=True)
        (folder / "detectors" / "knn" / "arrays.npz").write_bytes(bytes([number]) * 10)
        made.append(folder)
    return made


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(str(tmp_path / "registry"))


def fill(registry: ModelRegistry, checkpoints: Iterable[Path]) -> None:
    for checkpoint in checkpoints:
        registry.register("ecg", checkpoint)


def test_a_version_holds_the_checkpoint_and_says_where_it_comes_from(
    registry: ModelRegistry, checkpoints: list[Path], tmp_path: Path
) -> None:
    version = registry.register("ecg", checkpoints[1])
    assert (version.name, version.version, version.kind) == ("ecg", 1, "model")
    assert version.content_id == load_model(checkpoints[1]).model_id
    assert version.metrics == {"auroc": 0.91}
    assert version.lineage == Lineage(parent="tiny-0", training_data="0123456789abcdef", run_id="pretrain-1")
    folder = registry.fetch(version, tmp_path / "fetched")
    for file in (file for file in checkpoints[1].rglob("*") if file.is_file()):
        assert (folder / file.relative_to(checkpoints[1])).read_bytes() == file.read_bytes()
    assert load_model(folder).model_id == version.content_id


def test_versions_count_from_one_and_the_same_content_keeps_its_own(
    registry: ModelRegistry, checkpoints: list[Path]
) -> None:
    assert [registry.register("ecg", path).version for path in checkpoints] == [1, 2, 3]
    assert registry.register("ecg", checkpoints[1]).version == 2
    assert registry.register("other", checkpoints[1]).version == 1
    assert [version.version for version in registry.entry("ecg").versions] == [1, 2, 3]
    assert registry.names() == ["ecg", "other"]


def test_promoted_and_rolled_back(registry: ModelRegistry, checkpoints: list[Path]) -> None:
    fill(registry, checkpoints)
    registry.promote("ecg@1")
    registry.promote("ecg@3", "challenger")
    assert registry.resolve("ecg").version.version == 1
    registry.promote("ecg@challenger")
    registry.promote("ecg@2")
    resolved = registry.resolve("ecg@champion")
    assert (resolved.alias, resolved.version.version) == ("champion", 2)
    assert registry.entry("ecg").aliases == {"champion": (1, 3, 2), "challenger": (3,)}
    assert registry.rollback("ecg").version == 3
    assert registry.rollback("ecg").version == 1
    with pytest.raises(ConfigError, match="never stood for another version than 1"):
        registry.rollback("ecg")
    assert registry.resolve("ecg@challenger").version.version == 3
    registry.promote("ecg@2")
    assert registry.rollback("ecg").version == 1  # what was rolled back stays so
    actions = [(change["action"], change["version"]) for change in registry.entry("ecg").changes[3:]]
    assert actions == [
        ("promote", 1), ("promote", 3), ("promote", 3), ("promote", 2),
        ("rollback", 3), ("rollback", 1), ("promote", 2), ("rollback", 1),
    ]  # fmt: skip


def test_promoting_what_is_promoted_is_no_step_to_roll_back(
    registry: ModelRegistry, checkpoints: list[Path]
) -> None:
    fill(registry, checkpoints[:2])
    for reference in ("ecg@1", "ecg@2", "ecg@2"):
        registry.promote(reference)
    assert registry.rollback("ecg").version == 1


def test_registering_may_give_an_alias_in_the_same_step(
    registry: ModelRegistry, checkpoints: list[Path]
) -> None:
    registry.register("ecg", checkpoints[0], alias="champion")
    registry.register("ecg", checkpoints[1], alias="challenger")
    registry.register("ecg", checkpoints[1], alias="champion")
    entry = registry.entry("ecg")
    assert entry.aliases == {"champion": (1, 2), "challenger": (2,)}
    assert entry.aliases_of(2) == ["challenger", "champion"]


def test_references_by_number_name_no_alias(registry: ModelRegistry, checkpoints: list[Path]) -> None:
    fill(registry, checkpoints[:2])
    resolved = registry.resolve("ecg@2")
    assert (resolved.alias, resolved.version.version) == (None, 2)
    assert resolved.to_json() == {
        "reference": "ecg@2",
        "alias": None,
        "name": "ecg",
        "version": 2,
        "kind": "model",
        "content_id": resolved.version.content_id,
        "content_hash": resolved.version.content_hash,
    }


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("nothing", "Registered: ecg"),
        ("../ecg", "Registered: ecg"),
        ("ecg@7", "no version 7. Versions: 1 to 2; aliases: challenger = 2"),
        ("ecg@0", "no version 0"),
        ("ecg@prod", "no alias prod. Versions: 1 to 2; aliases: challenger = 2"),
        ("ecg", "no alias champion"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(
    registry: ModelRegistry, checkpoints: list[Path], reference: str, complaint: str
) -> None:
    fill(registry, checkpoints[:2])
    registry.promote("ecg@2", "challenger")
    with pytest.raises(ConfigError, match=complaint.replace(".", r"\.")):
        registry.resolve(reference)


def test_an_empty_registry_says_so(registry: ModelRegistry) -> None:
    assert registry.names() == []
    with pytest.raises(ConfigError, match="nothing yet"):
        registry.resolve("ecg")


def test_a_promotion_needs_a_version(registry: ModelRegistry, checkpoints: list[Path]) -> None:
    fill(registry, checkpoints[:1])
    with pytest.raises(ConfigError, match="ecg@3 or ecg@challenger"):
        registry.promote("ecg")


@pytest.mark.parametrize("name", ["", "ECG", "a/b", "a@b", "..", "-x"])
def test_names_that_cannot_be_one_write_nothing(
    registry: ModelRegistry, checkpoints: list[Path], name: str
) -> None:
    with pytest.raises(ConfigError, match="name"):
        registry.register(name, checkpoints[0])
    assert registry.names() == []


@pytest.mark.parametrize("alias", ["3", "", "a@b", "Champion"])
def test_an_alias_is_no_number(registry: ModelRegistry, checkpoints: list[Path], alias: str) -> None:
    with pytest.raises(ConfigError, match="alias"):
        registry.register("ecg", checkpoints[0], alias=alias)
    assert registry.names() == []


@pytest.mark.parametrize("damage", ["changed", "removed", "grown"])
def test_files_that_were_changed_afterwards_are_refused_and_can_be_repaired(
    registry: ModelRegistry, checkpoints: list[Path], tmp_path: Path, damage: str
) -> None:
    version = registry.register("ecg", checkpoints[0])
    weights = tmp_path / "registry" / version.folder / "model.safetensors"
    content = weights.read_bytes()
    if damage == "removed":
        weights.unlink()
    else:
        weights.write_bytes(content + b"x" if damage == "grown" else content[:-1] + b"\x00\x01"[-1:])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: expected SHA-256 .* ecg@1, found"):
        registry.fetch(version, tmp_path / "fetched")
    registry.register("ecg", checkpoints[0])
    registry.fetch(version, tmp_path / "again")
    assert len(registry.entry("ecg").versions) == 1


def test_files_that_were_added_afterwards_are_not_fetched(
    registry: ModelRegistry, checkpoints: list[Path], tmp_path: Path
) -> None:
    version = registry.register("ecg", checkpoints[0])
    (tmp_path / "registry" / version.folder / "model.pt").write_bytes(b"evil")
    assert not (registry.fetch(version, tmp_path / "fetched") / "model.pt").exists()


def test_an_index_that_points_outside_is_refused(
    registry: ModelRegistry, checkpoints: list[Path], tmp_path: Path
) -> None:
    version = registry.register("ecg", checkpoints[0])
    content = tmp_path / "registry" / version.folder
    (content.parent / "evil").write_bytes(b"evil")
    sha256 = registry_module.hashlib.sha256(b"evil").hexdigest()
    with pytest.raises(CheckpointError, match="outside of its folder"):
        registry.fetch(replace(version, files={"../evil": sha256}), tmp_path / "fetched" / "deep")
    assert not (tmp_path / "fetched" / "evil").exists()


def test_a_model_that_learned_nothing_is_refused(registry: ModelRegistry, tmp_path: Path) -> None:
    untrained = save_checkpoint(untrained_model("rmsai-140x128"), tmp_path / "model")
    with pytest.raises(CheckpointError, match="trained model"):
        registry.register("ecg", untrained)
    with pytest.raises(CheckpointError, match="found nothing there"):
        registry.register("ecg", tmp_path / "nowhere")
    assert registry.names() == []


def test_a_packaged_model_is_registered_by_its_name(registry: ModelRegistry) -> None:
    version = registry.register("ecg", "framed-2400x64")
    assert version.content_id.startswith("framed-2400x64-")
    assert {"CARD.md", "model.json", "model.safetensors"} <= set(version.files)


def test_detector_sets_are_versions_too_but_not_of_a_models_name(
    registry: ModelRegistry, checkpoints: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    (folder / "knn").mkdir(parents=True)
    (folder / "knn" / "arrays.npz").write_bytes(b"123")
    facts = {"data_hash": "77", "metrics": {"auroc": 0.8}}
    description = {"set_id": "tiny-0+12345678", "model_id": "tiny-0", "facts": facts}
    (folder / "detectors.json").write_text(json.dumps(description))
    version = registry.register("ecg-detectors", folder, lineage=Lineage(run_id="fit-1"))
    assert (version.kind, version.content_id) == ("detectors", "tiny-0+12345678")
    assert version.metrics == {"auroc": 0.8}
    assert version.lineage == Lineage(parent="tiny-0", training_data="77", run_id="fit-1")
    assert sorted(version.files) == ["detectors.json", "knn/arrays.npz"]
    with pytest.raises(ConfigError, match="names detectors, and this is model"):
        registry.register("ecg-detectors", checkpoints[0])
    (folder / "detectors.json").write_text("{}")
    with pytest.raises(CheckpointError, match="description of a detector set"):
        registry.register("more", folder)


def test_promotions_at_the_same_moment_are_all_kept(registry: ModelRegistry, checkpoints: list[Path]) -> None:
    fill(registry, checkpoints)
    wanted = [(f"ecg@{1 + number % 3}", f"alias-{number}") for number in range(9)]
    with ThreadPoolExecutor(9) as pool:
        list(pool.map(lambda pair: registry.promote(*pair), wanted))
    aliases = registry.entry("ecg").aliases
    assert {alias: f"ecg@{stack[-1]}" for alias, stack in aliases.items()} == {a: r for r, a in wanted}


def test_registrations_at_the_same_moment_get_versions_of_their_own(
    registry: ModelRegistry, checkpoints: list[Path]
) -> None:
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda path: registry.register("ecg", path), checkpoints * 2))
    assert sorted(version.version for version in made) == [1, 1, 2, 2, 3, 3]
    assert [version.version for version in registry.entry("ecg").versions] == [1, 2, 3]


def test_a_rollback_that_was_overtaken_is_not_applied_to_what_it_never_saw(
    registry: ModelRegistry, checkpoints: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(registry, checkpoints)
    registry.promote("ecg@1")
    registry.promote("ecg@2")
    create = Store.create

    def overtaken(store: Store, key: str, content: bytes) -> bool:
        monkeypatch.setattr(Store, "create", create)
        registry.promote("ecg@3")
        return create(store, key, content)

    monkeypatch.setattr(Store, "create", overtaken)
    with pytest.raises(ConfigError, match="moved from version 2 to 3 just now"):
        registry.rollback("ecg")
    assert registry.entry("ecg").aliases == {"champion": (1, 2, 3)}


def test_a_crash_at_any_write_leaves_the_registry_as_it_was_and_a_repeat_completes(
    checkpoints: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ModelRegistry(str(tmp_path / "original"))
    original.register("ecg", checkpoints[0], alias="champion")
    put, create = Store.put, Store.create
    crashes = 0
    while True:
        folder = tmp_path / f"crash-{crashes}"
        shutil.copytree(tmp_path / "original", folder)
        registry, left = ModelRegistry(str(folder)), [crashes]

        def die(left: list[int] = left) -> None:
            if left[0] == 0:
                raise StorageError("the process ends here")
            left[0] -= 1

        with monkeypatch.context() as patch:
            patch.setattr(Store, "put", lambda *arguments: (die(), put(*arguments))[1])
            patch.setattr(Store, "create", lambda *arguments: (die(), create(*arguments))[1])
            try:
                registry.register("ecg", checkpoints[1], alias="champion")
                break
            except StorageError:
                crashes += 1
        assert registry.entry("ecg").aliases == {"champion": (1,)}
        registry.fetch(registry.resolve("ecg").version, folder / "fetched")
        assert registry.register("ecg", checkpoints[1], alias="champion").version == 2
        assert registry.resolve("ecg").version.version == 2
    assert crashes == len(registry.resolve("ecg").version.files) + 1
