"""Registries that outside packages extend: model families, detectors, archive sources.

A package adds its own by registering in a module named by an entry point of the group
``rmsai_ray.plugins``, or in the comma-separated environment variable ``RMSAI_PLUGINS``. Both are looked at
in every process, driver and workers alike, the first time a name is not found.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from rmsai_ray.errors import ConfigError

T = TypeVar("T")

ENTRY_POINT_GROUP = "rmsai_ray.plugins"
ENVIRONMENT_VARIABLE = "RMSAI_PLUGINS"


class Registry(Generic[T]):
    """Names of one kind of thing, e.g. ``Registry[ArchiveSource]("archive source")``."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds a thing under ``name``; a second one under the same name is an error."""

        def add(item: T) -> T:
            if name in self._items and self._items[name] is not item:
                raise ValueError(f"{self.kind} {name!r} is registered already, as {self._items[name]!r}")
            self._items[name] = item
            return item

        return add

    def get(self, name: str) -> T:
        """The thing called ``name``.

        Raises:
            ConfigError: nothing of that name, also after the plugins were loaded.
        """
        if name not in self._items:
            load_plugins()
        if name not in self._items:
            raise ConfigError(
                self.kind,
                name,
                "is not registered",
                f"Known: {', '.join(self.names())}. "
                f"Name the module that registers it in {ENVIRONMENT_VARIABLE}.",
            )
        return self._items[name]

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._items)


@cache
def load_plugins() -> None:
    """Imports every plugin module once per process.

    Raises:
        ConfigError: a module that the environment names cannot be imported.
    """
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        entry_point.load()
    for module in filter(None, os.environ.get(ENVIRONMENT_VARIABLE, "").split(",")):
        try:
            importlib.import_module(module.strip())
        except ImportError as error:
            rule, fix = f"cannot be imported: {error}", "Name modules that every worker can import."
            raise ConfigError(ENVIRONMENT_VARIABLE, module.strip(), rule, fix) from error
