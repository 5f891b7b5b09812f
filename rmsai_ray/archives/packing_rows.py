"""Everything in an HDF5 file, row by row, for packing; changes with what the packed form can hold."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import h5py
import numpy as np
from h5py import h5a, h5g, h5i, h5l, h5o, h5s

from rmsai_ray.archives.hdf5 import SIGNATURE, Dataset, FileBytes
from rmsai_ray.archives.headers import attribute_offset
from rmsai_ray.archives.heaps import GlobalHeaps
from rmsai_ray.archives.limits import Budget
from rmsai_ray.archives.nodes import Array
from rmsai_ray.archives.packed_shapes import Item
from rmsai_ray.archives.packing_types import NotPackableError, layout_of, type_name

MOST_GROWTH: Final = 4
"""An archive that compresses better than this is kept as it is."""

Value = Array | bytes | None
"""Of a number or an array, of a text, of a group."""


@dataclass(frozen=True)
class Row:
    """A top-level item of an archive (or its root, without name) and everything below it."""

    name: str
    items: tuple[Item, ...]
    values: tuple[Value, ...]

    @property
    def shape(self) -> bytes:
        """The items as JSON; equal for rows of one shape."""
        found = [[i.path, i.attribute, i.type, list(i.dims), i.layout] for i in self.items]
        return json.dumps(found, separators=(",", ":")).encode()


def read_rows(raw: bytes) -> list[Row]:
    """Everything in an archive, the root first.

    Raises:
        NotPackableError: there is something that the packed form has no place for.
    """
    if not raw.startswith(SIGNATURE):
        raise NotPackableError("it does not begin as an HDF5 file")
    with h5py.File(io.BytesIO(raw), "r") as file:
        reader = _RowReader(raw)
        root = h5g.open(file.id, b"/")
        return [reader.root(root), *(reader.row(root, name) for name in _hard_links(root))]


class _RowReader:
    """Reads what the packed form can hold, and raises on the rest.

    As the reader of archives, it leaves neither texts nor compressed chunks to HDF5, which damaged ones may
    keep busy for ever.
    """

    def __init__(self, raw: bytes) -> None:
        budget = Budget(len(raw))
        self._raw, self._heaps, self._content = raw, GlobalHeaps(raw, 0, budget), FileBytes(raw, 0, budget)
        self._left = MOST_GROWTH * len(raw) + (1 << 20)

    def root(self, root: Any) -> Row:
        """The root's own attributes."""
        _check_group(root)
        found = [(Item("", None, "group"), None), *self._attributes(root, "")]
        return make_row("", found)

    def row(self, root: Any, name: bytes) -> Row:
        """A member of the root with all that is below it."""
        return make_row(name.decode(), list(self._visit(h5o.open(root, name), "")))

    def _visit(self, node: Any, path: str) -> Iterator[tuple[Item, Value]]:
        if h5o.get_info(node).rc != 1:
            raise NotPackableError(f"{path} has several names")
        if h5i.get_type(node) == h5i.DATASET:
            yield self._dataset(node, path)
            yield from self._attributes(node, path)
            return
        if h5i.get_type(node) != h5i.GROUP:
            raise NotPackableError(f"{path} is neither group nor dataset")
        _check_group(node)
        yield Item(path, None, "group"), None
        yield from self._attributes(node, path)
        for name in _hard_links(node):
            below = f"{path}/{name.decode()}" if path else name.decode()
            yield from self._visit(h5o.open(node, name), below)

    def _dataset(self, node: Any, path: str) -> tuple[Item, Value]:
        layout = layout_of(node)  # first: a virtual shape may depend on other files
        if node.get_storage_size() == 0:
            raise NotPackableError(f"{path} was declared but not written")
        item = self._item(node, path, None, layout)
        if item.type.startswith("vlen:"):
            return item, self._text(node.get_offset(), path)
        if "chunks" in layout:
            array = Dataset(node, path, self._content).array()
            return item, array.reshape(item.dims)
        values = _empty(item)
        node.read(h5s.ALL, h5s.ALL, values, node.get_type())
        return item, values.tobytes() if item.is_text else values

    def _attributes(self, node: Any, path: str) -> Iterator[tuple[Item, Value]]:
        names: list[bytes] = []
        h5a.iterate(node, names.append)
        for name in names:
            attribute = h5a.open(node, name)
            item = self._item(attribute, path, name.decode(), None)
            if item.type.startswith("vlen:"):
                offset = attribute_offset(self._raw, 0, h5o.get_info(node).addr, name)
                yield item, self._text(offset, f"{path}@{item.attribute}")
                continue
            values = _empty(item)
            attribute.read(values, attribute.get_type())
            yield item, values.tobytes() if item.is_text else values

    def _item(self, node: Any, path: str, attribute: str | None, layout: dict[str, Any] | None) -> Item:
        """What it is, and that its size is honest."""
        space, kind = node.get_space(), node.get_type()
        if space.get_simple_extent_type() == h5s.NULL or 0 in space.shape:
            raise NotPackableError(f"{path} is empty")
        item = Item(path, attribute, type_name(kind, path), space.shape, layout)
        if item.is_text and prod(item.dims) != 1:
            raise NotPackableError(f"{path} has several texts")
        self._left -= prod(item.dims) * kind.get_size()
        if self._left < 0:
            raise NotPackableError(f"it would become more than {MOST_GROWTH} times as large")
        return item

    def _text(self, offset: int | None, where: str) -> bytes:
        if offset is None:
            raise NotPackableError(f"the text of {where} lies where we do not look")
        return self._heaps.text(offset)


def _empty(item: Item) -> Array:
    """To be filled with the item's values as they are stored."""
    if item.is_text:
        return np.zeros(item.dims, f"S{item.type.rpartition(':')[2]}")
    return np.empty(item.dims, item.dtype)


def make_row(name: str, found: list[tuple[Item, Value]]) -> Row:
    """A row from its items with their values."""
    return Row(name, tuple(item for item, _ in found), tuple(value for _, value in found))


def _hard_links(group: Any) -> list[bytes]:
    types: dict[bytes, int] = {}
    group.links.iterate(lambda name, info: types.__setitem__(name, info.type), info=True)
    foreign = [name for name, kind in types.items() if kind != h5l.TYPE_HARD]
    if foreign:
        raise NotPackableError(f"{foreign[0]!r} is a soft or external link")
    return list(types)


def _check_group(group: Any) -> None:
    properties = group.get_create_plist()
    if properties.get_link_creation_order() or properties.get_attr_creation_order():
        raise NotPackableError("a group keeps the order in which it was filled")
