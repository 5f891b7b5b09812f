"""What the rows of a packed archive have in common: their items and types; changes with the packed form."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from math import prod
from typing import Any, Final

import numpy as np

LARGEST_USUAL_SHAPE: Final = 1 << 16
REST, HISTORY = "\0rest", "\0history"
"""As if they were attributes of a vital sign's extras: their JSON without the history, and that, parsed."""


NUMBER_TYPE: Final = re.compile(r"bool|[<>|][fiu][1248]")
"""Numpy would understand far more."""


@dataclass(frozen=True)
class Item:
    """A group, a dataset or an attribute of every row of a shape."""

    path: str
    """Inside the row; empty for the row itself."""
    attribute: str | None
    type: str
    """``group``, a numpy dtype such as ``<f8``, ``bool``, ``vlen:<charset>:<padding>``, or
    ``fixed:<charset>:<padding>:<size>``."""
    dims: tuple[int, ...] = ()
    layout: dict[str, Any] | None = None
    """How a dataset was stored: ``chunks``, ``maxshape`` and ``filters``, or ``compact``."""

    @cached_property
    def is_derived(self) -> bool:
        """Whether the archive does not have it: HDF5 knows no such name."""
        return self.attribute in (REST, HISTORY)

    @cached_property
    def is_text(self) -> bool:
        """Whether its values lie among the texts."""
        return self.type.startswith(("vlen:", "fixed:"))

    @cached_property
    def is_array(self) -> bool:
        """Whether its values lie in a block of their own."""
        return bool(self.dims) and not self.is_text

    @cached_property
    def is_scalar(self) -> bool:
        """Whether HDF5's reader takes it for a single value."""
        return prod(self.dims) == 1 and "chunks" not in (self.layout or {})

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Of its numbers."""
        return np.dtype(self.type)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row's numbers."""
        return self.dtype.itemsize * prod(self.dims)


@dataclass(frozen=True)
class Node:
    """An item with what belongs to it, as a tree; ``column`` is its place in the shape."""

    item: Item
    column: int
    children: dict[str, Node] = field(default_factory=dict)
    attributes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Shape:
    """What rows have in common."""

    items: tuple[Item, ...]

    @cached_property
    def tree(self) -> Node:
        """The row's own node; the first item."""
        nodes: dict[str, Node] = {}
        for column, item in enumerate(self.items):
            if item.attribute is not None:
                nodes[item.path].attributes[item.attribute] = column
                continue
            nodes[item.path] = node = Node(item, column)
            if item.path:
                parent, _, name = item.path.rpartition("/")
                nodes[parent].children[name] = node
        return nodes[""]


def read_shapes(content: memoryview, lengths: list[int]) -> Iterator[Shape]:
    """Shapes that lie one after the other.

    Raises:
        TypeError, ValueError, KeyError, RecursionError: they are no shapes.
    """
    start = 0
    for length in lengths:
        if not 0 < length <= len(content) - start:
            raise ValueError("a shape ends early")
        read = _usual_shape if length <= LARGEST_USUAL_SHAPE else _shape
        yield read(bytes(content[start : start + length]))
        start += length


@lru_cache(maxsize=64)
def _usual_shape(content: bytes) -> Shape:
    """Archives of one generation share their shapes."""
    return _shape(content)


def _shape(content: bytes) -> Shape:
    items = tuple(_item(*values) for values in json.loads(content))
    if not items or items[0].path or items[0].attribute is not None:
        raise ValueError("a shape does not begin with its row")
    shape = Shape(items)
    _ = shape.tree  # fails on a shape that is none
    return shape


def _item(
    path: str, attribute: str | None, type_: str, dims: list[int], layout: dict[str, Any] | None
) -> Item:
    item = Item(checked_name(path), attribute, checked_name(type_), tuple(dims), layout)
    if layout is not None and not isinstance(layout, dict):
        raise TypeError(f"{path} has a layout that is none")
    if attribute is not None:
        checked_name(attribute)
    if item.type == "group" and attribute is not None:
        raise ValueError(f"{path} has a group as its attribute {attribute}")
    if item.is_text and prod(item.dims) != 1:
        raise ValueError(f"{path} has several texts")
    if any(type(length) is not int or length < 1 for length in dims):
        raise ValueError(f"{path} has lengths {dims}")
    if item.is_derived and not (item.is_text if attribute == REST else item.type == "<f8"):
        raise ValueError(f"{path} has histories of the type {type_}")
    if item.type != "group" and not item.is_text and not NUMBER_TYPE.fullmatch(item.type):
        raise ValueError(f"{path} has the type {type_}")
    return item


def checked_name(name: object) -> str:
    """A name that can be written down: no surrogates.

    Raises:
        TypeError, UnicodeEncodeError: it is none.
    """
    if not isinstance(name, str):
        raise TypeError(f"{name!r:.50} is no name")
    name.encode()
    return name
