"""Compaction: many small parts become few large ones, and LanceDB's fragments too; no row changes.

For the holder of the lake's lease alone, after everything finished is settled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa

from rmsai_ray import ids
from rmsai_ray.errors import LakeError
from rmsai_ray.storage import Store
from rmsai_ray.tables import parts
from rmsai_ray.tables.layout import COMPACTED, Layout, load_layout, save_layout
from rmsai_ray.tables.vectors import VectorTable

TARGET_BYTES = 128 << 20
"""Of the parts of one name, in all tables together: about 400,000 windows, 0.5 GiB in memory."""
ROWS_PER_FRAGMENT = 1 << 20
GETS_IN_FLIGHT = 16


@dataclass(frozen=True, kw_only=True)
class Container:
    """The parts of one name."""

    name: str
    keys: tuple[str, ...]
    num_bytes: int

    @property
    def first_period(self) -> str:
        """For the order; rejects have none, and come last."""
        return min(key.partition("/period=")[2] or "~" for key in self.keys)


def compact_parts(
    store: Store, model_id: str, units: set[str], *, target_bytes: int = TARGET_BYTES
) -> Layout:
    """Merges the parts of units, and earlier compactions, that are below half the target.

    One group of them after the other: its new parts, which nobody sees; the layout, with which readers go
    over to them at once; then the old parts go. A crash leaves new or old parts too many, which nobody sees
    and :func:`rmsai_ray.tables.parts.remove_unfinished` removes.

    Args:
        store: the lake.
        model_id: whose parts.
        units: all units that hold rows of some archive.
        target_bytes: Parquet bytes of the parts of one name.
    """
    layout = load_layout(store, model_id).only(units)
    for group in _groups(_containers(store, model_id, layout, units), target_bytes):
        layout = _merge(store, model_id, layout, group)
    return layout


def compact_vectors(vectors: VectorTable) -> None:
    """Merges LanceDB's fragments and drops deleted rows, in one commit of its own."""
    vectors.open().optimize.compact_files(target_rows_per_fragment=ROWS_PER_FRAGMENT)


def remove_old_versions(vectors: VectorTable, older_than: timedelta) -> None:
    """Removes versions of the LanceDB table and what only they need; tagged ones stay.

    Fragments that were written but never published go when they are a week old.
    """
    vectors.open().cleanup_old_versions(older_than, error_if_tagged_old_versions=False)


def _containers(store: Store, model_id: str, layout: Layout, units: set[str]) -> list[Container]:
    """The parts of finished units. A worker that outlived its driver may have left others a moment ago."""
    names = {layout.part_name(unit) for unit in units}
    keys: dict[str, list[str]] = defaultdict(list)
    num_bytes: dict[str, int] = defaultdict(int)
    for info in parts.list_part_infos(store, model_id):
        name = parts.name_of(info.key)
        if name in names:
            keys[name].append(info.key)
            num_bytes[name] += info.size
    found = [Container(name=name, keys=tuple(keys[name]), num_bytes=num_bytes[name]) for name in keys]
    return sorted(found, key=lambda container: (container.first_period, container.name))


def _groups(containers: Iterable[Container], target_bytes: int) -> Iterator[list[Container]]:
    """Small ones that lie next to each other in time, two at least."""
    waiting: list[Container] = []
    num_bytes = 0
    for container in containers:
        if container.num_bytes >= target_bytes / 2:
            continue
        if num_bytes + container.num_bytes > target_bytes:
            if len(waiting) > 1:
                yield waiting
            waiting, num_bytes = [], 0
        waiting.append(container)
        num_bytes += container.num_bytes
    if len(waiting) > 1:
        yield waiting


def _merge(store: Store, model_id: str, layout: Layout, group: list[Container]) -> Layout:
    names = [container.name for container in group]
    target = COMPACTED + ids.digest(sorted(names))
    keys_by_folder: dict[str, list[str]] = defaultdict(list)
    for key in sorted(key for container in group for key in container.keys):
        keys_by_folder[key.rpartition("/")[0]].append(key)
    for folder, keys in keys_by_folder.items():
        content = parts.to_parquet(_read_all(store, keys))
        if not store.create(f"{folder}/{target}{parts.SUFFIX}", content):
            raise LakeError(f"another run compacts {store.uri}, which it took")
    merged = layout.merged(names, target)
    merged = save_layout(store, model_id, merged)
    store.delete(key for keys in keys_by_folder.values() for key in keys)
    return merged


def _read_all(store: Store, keys: list[str]) -> pa.Table:
    with ThreadPoolExecutor(GETS_IN_FLIGHT) as pool:
        tables = list(pool.map(lambda key: parts.read_part(store, key), keys))
    if any(table is None for table in tables):
        raise LakeError(
            f"a part of {store.uri} went away while it was compacted: another program writes here"
        )
    return pa.concat_tables(tables)
