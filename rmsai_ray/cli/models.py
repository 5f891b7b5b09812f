"""``rmsai models``: register, promote, roll back, list and show what a registry holds; quantise a model."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import tyro

from rmsai_ray.cli.output import Answer, VerbGroup
from rmsai_ray.models.checkpoint import load_model, save_checkpoint
from rmsai_ray.models.frozen import WEIGHTS_NAME
from rmsai_ray.models.quantised import quantise_model
from rmsai_ray.registry import CHAMPION, Lineage, ModelRegistry, Version

DEFAULT_REGISTRY = "./registry"
REGISTRY_VARIABLE = "RMSAI_REGISTRY"
SHOWN_COLUMNS = ("name", "version", "aliases", "kind", "content_id", "content_hash", "time")


@dataclass(frozen=True, kw_only=True)
class RegistryOptions:
    """Which registry, and how to answer."""

    registry: str = field(default_factory=lambda: os.environ.get(REGISTRY_VARIABLE, DEFAULT_REGISTRY))
    """Folder or s3://bucket/prefix. The environment variable RMSAI_REGISTRY sets the default."""
    json: bool = False
    """Answer with JSON."""
    csv: Path | None = None
    """Write the rows to this file, - for standard output."""

    def open(self) -> ModelRegistry:
        """The chosen registry."""
        return ModelRegistry(self.registry)


@dataclass(frozen=True, kw_only=True)
class Register(RegistryOptions):
    """Copies a checkpoint or detector set into the registry as the next version of a name."""

    name: tyro.conf.Positional[str]
    """Name to register under."""
    path: tyro.conf.Positional[str]
    """Checkpoint folder, packaged model or upstream checkpoint; or the folder of a detector set."""
    alias: str | None = None
    """Alias that stands for this version from now on, e.g. challenger."""
    parent: str | None = None
    """Id of the model that it was made from. Default: what the checkpoint says; so the next two."""
    training_data: str | None = None
    """Hash of its training data."""
    run_id: str | None = None
    """The run that made it."""

    def answer(self) -> Answer:
        """The version."""
        lineage = Lineage(parent=self.parent, training_data=self.training_data, run_id=self.run_id)
        registry = self.open()
        version = registry.register(self.name, self.path, alias=self.alias, lineage=lineage)
        return _one(registry, version)


@dataclass(frozen=True, kw_only=True)
class Promote(RegistryOptions):
    """Lets an alias stand for a version."""

    model: tyro.conf.Positional[str]
    """NAME@VERSION or NAME@ALIAS."""
    alias: str = CHAMPION
    """The alias to move."""

    def answer(self) -> Answer:
        """The version that it stands for now."""
        registry = self.open()
        return _one(registry, registry.promote(self.model, self.alias))


@dataclass(frozen=True, kw_only=True)
class Rollback(RegistryOptions):
    """Lets an alias stand for the version before its present one."""

    name: tyro.conf.Positional[str]
    """A registered name."""
    alias: str = CHAMPION
    """The alias to move back."""

    def answer(self) -> Answer:
        """The version that it stands for now."""
        registry = self.open()
        return _one(registry, registry.rollback(self.name, self.alias))


@dataclass(frozen=True, kw_only=True)
class ListVersions(RegistryOptions):
    """Every version of every name, with its aliases."""

    def answer(self) -> Answer:
        """One row a version."""
        registry = self.open()
        entries = [registry.entry(name) for name in registry.names()]
        rows = [
            _row(version, entry.aliases_of(version.version))
            for entry in entries
            for version in entry.versions
        ]
        frame = pd.DataFrame(rows, columns=[*SHOWN_COLUMNS, "metrics", "lineage", "files", "code_version"])
        shown = frame[list(SHOWN_COLUMNS)]
        return Answer(data={"versions": frame}, rows=shown, tables={f"versions ({len(frame)})": shown})


@dataclass(frozen=True, kw_only=True)
class Show(RegistryOptions):
    """One version with its metrics, lineage and files, and what was done with its name."""

    model: tyro.conf.Positional[str]
    """NAME, NAME@ALIAS or NAME@VERSION; a name alone is its champion."""

    def answer(self) -> Answer:
        """One row a file."""
        registry = self.open()
        version = registry.resolve(self.model).version
        entry = registry.entry(version.name)
        found = _row(version, entry.aliases_of(version.version))
        shown = {key: found[key] for key in (*SHOWN_COLUMNS, "code_version")} | asdict(version.lineage)
        metrics = pd.json_normalize(dict(version.metrics)).T.reset_index()
        metrics.columns = pd.Index(["metric", "value"][: metrics.shape[1]])
        files = pd.DataFrame(version.files.items(), columns=["file", "sha256"])
        changes = pd.DataFrame(entry.changes)
        return Answer(
            data=found | {"history": {k: list(v) for k, v in entry.aliases.items()}, "changes": changes},
            rows=files,
            tables={
                f"{version.name}@{version.version}": pd.DataFrame(
                    {"field": shown.keys(), "value": shown.values()}
                ),
                "Metrics": metrics,
                "Files": files,
                "Changes": changes,
            },
        )


@dataclass(frozen=True, kw_only=True)
class Quantise:
    """Writes a copy of a model whose weights are eight-bit integers: another model, a quarter of the size."""

    model: tyro.conf.Positional[str]
    """Checkpoint folder or packaged model."""
    output: tyro.conf.Positional[Path]
    """Folder of the new checkpoint."""
    json: bool = False
    """Answer with JSON."""
    csv: Path | None = None
    """Write the rows to this file, - for standard output."""

    def answer(self) -> Answer:
        """Its id, and the sizes of both models' weights."""
        original = load_model(self.model)
        quantised = quantise_model(original)
        folder = save_checkpoint(quantised, self.output)
        row = {
            "model_id": quantised.model_id,
            "made_from": original.model_id,
            "bytes": (folder / WEIGHTS_NAME).stat().st_size,
            "bytes_before": sum(array.nbytes for array in original.tensors.values()),
            "folder": str(folder),
        }
        frame = pd.DataFrame([row])
        return Answer(data=row, rows=frame, tables={"quantised": frame})


@dataclass(frozen=True, kw_only=True)
class Models(VerbGroup):
    """Registers models and detector sets, promotes them, rolls back, and makes models smaller."""

    verb: (
        Annotated[Register, tyro.conf.subcommand("register", prefix_name=False)]
        | Annotated[Promote, tyro.conf.subcommand("promote", prefix_name=False)]
        | Annotated[Rollback, tyro.conf.subcommand("rollback", prefix_name=False)]
        | Annotated[ListVersions, tyro.conf.subcommand("list", prefix_name=False)]
        | Annotated[Show, tyro.conf.subcommand("show", prefix_name=False)]
        | Annotated[Quantise, tyro.conf.subcommand("quantise", prefix_name=False)]
    )


def _one(registry: ModelRegistry, version: Version) -> Answer:
    row = _row(version, registry.entry(version.name).aliases_of(version.version))
    frame = pd.DataFrame([row])[list(SHOWN_COLUMNS)]
    return Answer(data=row, rows=frame, tables={f"{version.name}@{version.version}": frame})


def _row(version: Version, aliases: list[str]) -> dict[str, Any]:
    return asdict(version) | {"aliases": aliases}
