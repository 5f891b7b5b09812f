"""Registered models and detectors on this machine: what a reference stands for is asked once, at a start."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.detectors import NONE, PACKAGED
from rmsai_ray.errors import ConfigError
from rmsai_ray.registry import Kind, ModelRegistry, Resolved


@contextmanager
def located(config: BackfillConfig) -> Iterator[tuple[BackfillConfig, dict[str, Any]]]:
    """(the configuration with folders in place of references, what each reference was resolved to).

    The folders last as long as the context. Without a registry nothing is a reference.

    Raises:
        ConfigError: nothing of that name, or it is of the other kind.
        CheckpointError: its files are not what was registered.
    """
    if config.registry is None:
        yield config, {}
        return
    registry = ModelRegistry(config.registry)
    resolved = {kind: _resolve(registry, kind, reference) for kind, reference in _references(config).items()}
    with tempfile.TemporaryDirectory() as root:
        folders = {
            kind: str(registry.fetch(found.version, Path(root) / kind)) for kind, found in resolved.items()
        }
        yield (
            replace(
                config,
                model=folders.get("model", config.model),
                detectors=folders.get("detectors", config.detectors),
            ),
            {kind: found.to_json() for kind, found in resolved.items()},
        )


def _references(config: BackfillConfig) -> dict[Kind, str]:
    """With a registry every model is a reference, and of the detectors what is no word and no folder."""
    found: dict[Kind, str] = {"model": config.model} if config.model else {}
    detectors = config.detectors
    if detectors not in (None, PACKAGED, NONE) and not Path(str(detectors)).is_dir():
        found["detectors"] = str(detectors)
    return found


def _resolve(registry: ModelRegistry, kind: Kind, reference: str) -> Resolved:
    resolved = registry.resolve(reference)
    if resolved.version.kind != kind:
        rule = f"is registered as {resolved.version.kind}, and {kind} is needed"
        raise ConfigError(kind, reference, rule, "Name another: rmsai models list.")
    return resolved
