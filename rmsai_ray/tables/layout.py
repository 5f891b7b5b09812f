"""Where the rows of a unit lie: in parts of its own name, or in compacted ones that took their place.

archives/model=<model>/layout.json
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from rmsai_ray.errors import LakeError
from rmsai_ray.storage import Store

COMPACTED = "compact-"
"""How the name of a part begins that holds the rows of several units; a unit's id never does."""


@dataclass(frozen=True)
class Layout:
    """One part name for each unit, the same in all tables and periods."""

    compacted: Mapping[str, str] = field(default_factory=dict)
    """Unit → name of its parts, where that is not the unit's id."""
    etag: str = field(default="", compare=False)
    """Of the object in the lake that it is, or that it is to replace; "" for none."""

    def part_name(self, unit_id: str) -> str:
        """What the parts are called that hold a unit's rows."""
        return self.compacted.get(unit_id, unit_id)

    def is_visible(self, name: str) -> bool:
        """Whether readers look into parts of this name: False where others took their place, or will."""
        return name in self._names if name.startswith(COMPACTED) else name not in self.compacted

    def units_of(self, name: str) -> set[str]:
        """The units whose rows lie in parts of this name."""
        return self._units_by_name.get(name, {name})

    def merged(self, names: Iterable[str], target: str) -> Layout:
        """The layout after the parts of ``names`` became those of ``target``."""
        moved = {unit: target for name in names for unit in self.units_of(name)}
        return Layout({**self.compacted, **moved}, self.etag)

    def only(self, units: set[str]) -> Layout:
        """Without the units that have no rows any more."""
        return Layout({unit: name for unit, name in self.compacted.items() if unit in units}, self.etag)

    @cached_property
    def _names(self) -> set[str]:
        return set(self.compacted.values())

    @cached_property
    def _units_by_name(self) -> dict[str, set[str]]:
        units: dict[str, set[str]] = defaultdict(set)
        for unit, name in self.compacted.items():
            units[name].add(unit)
        return dict(units)


def layout_key(model_id: str) -> str:
    """Where one model's layout lies."""
    return f"archives/model={model_id}/layout.json"


def load_layout(store: Store, model_id: str) -> Layout:
    """The layout of a model; every unit in parts of its own where nothing was ever compacted."""
    content, etag = store.find_version(layout_key(model_id))
    units_by_name = json.loads(content) if content else {}
    return Layout({unit: name for name, units in units_by_name.items() for unit in units}, etag)


def save_layout(store: Store, model_id: str, layout: Layout) -> Layout:
    """Writes the layout with one atomic put: from here on readers see the compacted parts.

    Raises:
        LakeError: it is not made from the lake's, since another run took the lake; nothing was written.
    """
    units_by_name = {name: sorted(layout.units_of(name)) for name in sorted(set(layout.compacted.values()))}
    content = json.dumps(units_by_name, separators=(",", ":")).encode()
    etag = store.replace(layout_key(model_id), content, layout.etag)
    if etag is None:
        raise LakeError(f"the layout of {store.uri} was changed by another run, which took the lake")
    return replace(layout, etag=etag)
