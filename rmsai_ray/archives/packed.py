"""An archive in its packed form, read from memory without HDF5; changes with the packed form.

A packed archive is a *skeleton* (all structure, numbers and texts) and *blocks* (arrays), all in one piece of
bytes. Every top-level group of the archive is a *row* of a *shape*: rows of one shape have the same items, of
the same types, under the same names. Values lie in columns, so that one block holds one lead of all events.

The bytes are not to be trusted: every size is checked against them before anything is taken from them, and no
two arrays may share bytes, so that no more can come out than lies in them.

Skeleton, little endian, each part padded to eight bytes::

    8 bytes    MAGIC
    5 × u64    bytes of: the header, the shapes, the numbers, the ends; and of the texts
    header     JSON: archive_id, size (of the archive in bytes), rows [[name, shape], …], shapes [bytes, …]
    shapes     one JSON list of items after the other
    numbers    shape by shape, item by item: the values of all rows
    ends       i64 per text: where it ends among the texts
               i64 per array: where its block begins, counted from the skeleton
    texts      likewise shape by shape, item by item, row by row
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np

from rmsai_ray.archives.limits import Budget
from rmsai_ray.archives.nodes import LONGEST_TEXT, Array, ParsedExtras, Scalar, UnreadableError, decoded
from rmsai_ray.archives.packed_shapes import HISTORY, REST, Item, Node, Shape, checked_name, read_shapes
from rmsai_ray.errors import ArchiveError
from rmsai_ray.ids import archive_id

MAGIC: Final = b"RMSAIPA1"
LENGTHS: Final = struct.Struct("<5Q")
ALIGNMENT: Final = 8
ARCHIVE_ID: Final = re.compile(r"[0-9a-f]{32}")
LARGEST_I64: Final = (1 << 63) - 1
LARGEST_HEADER_BYTES: Final = 1 << 20
"""Twice what the header of as many events needs as are allowed."""
_SHAPE_BYTES: Final = 24
"""No more come of each byte of a shape."""
_NUMBER_BYTES: Final = 40
"""Of a Python number in a list."""
_ENTRY_BYTES: Final = 250
"""Of an entry of a history, while it is taken out of its array."""

_ERRORS = (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError, struct.error)
"""What comes of a skeleton that is not one."""


@dataclass(frozen=True)
class _Table:
    """The rows of one shape: per column a list of numbers, the number of the first text, or an array."""

    shape: Shape
    columns: list[Any]


class PackedArchive:
    """A packed archive in memory; its :attr:`root` is read like that of an HDF5 file.

    Raises:
        ArchiveError: corrupt; the bytes are no whole packed archive. Or it costs more than the budget.
    """

    def __init__(self, raw: bytes, budget: Budget | None = None) -> None:
        self.budget = budget or Budget(len(raw))
        try:
            self._open(raw)
        except _ERRORS as error:
            raise ArchiveError("corrupt", f"not a packed archive: {error!r:.200}") from error

    def _open(self, raw: bytes) -> None:
        parts = list(_parts(raw))
        header = _checked_header(parts[0], self.budget)
        self.archive_id = _checked_id(header["archive_id"])
        self.size = int(header["size"])
        """Bytes of the archive that was packed."""
        self._texts = parts[4]
        self._ends = np.frombuffer(parts[3], "<i8")
        self.budget.charge(_SHAPE_BYTES * len(parts[1]), "its shapes")
        self.shapes = list(read_shapes(parts[1], header["shapes"]))
        counts = [0] * len(self.shapes)
        self._places: dict[str, tuple[int, int]] = {}  # name → (number of its shape, its row there)
        for name, shape in header["rows"]:
            self._places[checked_name(name)] = (shape, counts[shape])
            counts[shape] += 1
        self._tables = _Columns(raw, parts[2], self._ends, self.budget).tables(self.shapes, counts)
        self.budget.count_members(len(self._places))
        self.names = [name for name in self._places if name]
        """Of the rows, in the order of the archive."""
        root_shape, root_row = self._places[""]
        self.root = PackedGroup(self, self._tables[root_shape], self.shapes[root_shape].tree, root_row, "")

    def contents(self) -> Iterator[tuple[str, tuple[Item, ...], list[Any]]]:
        """(name, items, values) of the root, named "", and of every row."""
        for name, (place, row) in self._places.items():
            table, items = self._tables[place], self.shapes[place].items
            columns = [(column, item) for column, item in enumerate(items) if not item.is_derived]
            values = [
                None if item.type == "group" else self.value(table, column, row) for column, item in columns
            ]
            yield name, tuple(item for _, item in columns), values

    def row(self, name: str) -> tuple[_Table, int] | None:
        """The table and the place in it of a top-level item."""
        found = self._places.get(name) if name else None
        return None if found is None else (self._tables[found[0]], found[1])

    def value(self, table: _Table, column: int, row: int) -> Any:
        """A number, the bytes of a text, or an array that must not be changed."""
        values = table.columns[column]
        return self._text(values + row) if table.shape.items[column].is_text else values[row]

    def _text(self, number: int) -> bytes:
        start = int(self._ends[number - 1]) if number else 0
        end = int(self._ends[number])
        if not 0 <= start <= end <= len(self._texts):
            raise ArchiveError("corrupt", f"text {number} lies from {start} to {end}")
        self.budget.charge(end - start, "its texts")
        return bytes(self._texts[start:end])


class _Columns:
    """Deals numbers, texts and blocks out to columns, in the order they were written."""

    def __init__(self, raw: bytes, numbers: memoryview, ends: Array, budget: Budget) -> None:
        self._raw, self._numbers, self._ends, self._budget = raw, numbers, ends, budget
        self._left = len(raw)
        self._number, self._text = 0, 0

    def tables(self, shapes: list[Shape], counts: list[int]) -> list[_Table]:
        num_texts = sum(
            count for shape, count in zip(shapes, counts, strict=True) for item in shape.items if item.is_text
        )
        blocks = iter(self._ends[num_texts:].tolist())
        tables = []
        for shape, count in zip(shapes, counts, strict=True):
            tables.append(_Table(shape, [self._column(item, count, blocks) for item in shape.items]))
        return tables

    def _column(self, item: Item, count: int, blocks: Iterator[int]) -> Any:
        if item.type == "group":
            return None
        if item.is_text:
            self._text += count
            if self._text > len(self._ends):
                raise ValueError("more texts are declared than there are")
            return self._text - count
        num_bytes = item.row_bytes * count
        self._left -= num_bytes
        if self._left < 0:
            raise ValueError("more numbers are declared than there are bytes")
        if item.is_array:
            return self._block(next(blocks, -1), item, count)
        self._budget.charge(_NUMBER_BYTES * count, "its numbers")
        self._number += num_bytes
        start = self._number - num_bytes
        return np.frombuffer(self._numbers, item.dtype, count, start).tolist()

    def _block(self, start: int, item: Item, count: int) -> Array:
        if start < 0:
            raise ValueError(f"no block is declared for {item.path}")
        values = np.frombuffer(self._raw, item.dtype, count * prod(item.dims), start)
        if item.is_derived and not np.isfinite(values).all():
            raise ValueError(f"{item.path} has a history with values that are no numbers")
        return values.reshape(count, *item.dims)


class _Place:
    """What groups and datasets have in common."""

    def __init__(self, archive: PackedArchive, table: _Table, node: Node, row: int, path: str) -> None:
        self._archive, self._table, self._node, self._row = archive, table, node, row
        self.path = path

    def attribute(self, name: str) -> Scalar | None:
        """A scalar attribute; None where there is none of that name, or nothing readable in it."""
        column = self._node.attributes.get(name)
        if column is None:
            return None
        return _scalar(self._archive, self._table, column, self._row)

    def attributes(self) -> dict[str, Scalar]:
        """All readable scalar attributes."""
        values = {name: self.attribute(name) for name in self._node.attributes if name not in (REST, HISTORY)}
        return {name: value for name, value in values.items() if value is not None}


class PackedGroup(_Place):
    """A group; the root's members are rows."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    @property
    def budget(self) -> Budget:
        """Of the archive."""
        return self._archive.budget

    @property
    def names(self) -> list[str]:
        """In the order of the archive."""
        return list(self._node.children) if self.path else self._archive.names

    def group(self, name: str) -> PackedGroup | None:
        """The subgroup of that name; None where there is none.

        Raises:
            UnreadableError: it is a dataset.
        """
        found = self._find(name)
        if found is None:
            return None
        table, node, row = found
        path = f"{self.path}/{name}" if self.path else name
        self._archive.budget.enter(path)
        if node.item.type != "group":
            raise UnreadableError(f"{path} is not a readable group: it is a dataset")
        return PackedGroup(self._archive, table, node, row, path)

    def dataset(self, name: str) -> PackedDataset | None:
        """The dataset of that name; None where there is none.

        Raises:
            UnreadableError: it is a group.
        """
        found = self._find(name)
        if found is None:
            return None
        table, node, row = found
        path = f"{self.path}/{name}"
        if node.item.type == "group":
            raise UnreadableError(f"{path} is not a readable dataset: it is a group")
        return PackedDataset(self._archive, table, node, row, path)

    def scalar(self, name: str) -> Scalar | None:
        """The value of a scalar dataset; None where there is none of that name, or nothing readable in it."""
        found = self._find(name)
        if found is None or found[1].item.type == "group":
            return None
        table, node, row = found
        return _scalar(self._archive, table, node.column, row)

    def parsed_extras(self) -> ParsedExtras | None:
        """The extras without their history, and that, if they were parsed when they were packed."""
        found = self._find("extras")
        if found is None or HISTORY not in found[1].attributes:
            return None
        table, node, row = found
        try:
            history = self._archive.value(table, node.attributes[HISTORY], row)
            text = self._archive.value(table, node.attributes[REST], row).decode()
            self.budget.charge_json(text, self.path)
            self.budget.charge(_ENTRY_BYTES * len(history), self.path)
            rest = json.loads(text)
            if not isinstance(rest, dict) or history.shape[1:] != (2,):
                raise ValueError("neither an object nor a history")
            return rest, tuple(map(tuple, history.tolist()))
        except _ERRORS as error:
            raise ArchiveError("corrupt", f"extras of {self.path}: {error!r:.200}") from error

    def _find(self, name: str) -> tuple[_Table, Node, int] | None:
        if self.path:
            node = self._node.children.get(name)
            return None if node is None else (self._table, node, self._row)
        found = self._archive.row(name)
        return None if found is None else (found[0], found[0].shape.tree, found[1])


class PackedDataset(_Place):
    """A dataset."""

    def array(self) -> Array:
        """A copy of all samples of a one-dimensional numeric dataset."""
        item = self._node.item
        if len(item.dims) != 1:
            raise UnreadableError(f"{self.path} has shape {item.dims}, not one dimension")
        if not item.is_array or item.type == "bool":
            raise UnreadableError(f"{self.path} is not of a standard numeric type")
        values: Array = self._archive.value(self._table, self._node.column, self._row)
        self._archive.budget.charge(values.nbytes, self.path)
        return values.copy()


def is_packed(raw: bytes) -> bool:
    """Whether these are the bytes of a packed archive."""
    return raw.startswith(MAGIC)


def content_id(raw: bytes) -> str:
    """The id of an archive as it was before it was packed, or of bytes that are not packed.

    Raises:
        ArchiveError: corrupt; a packed archive without one.
    """
    if not is_packed(raw):
        return archive_id(raw)
    try:
        return _checked_id(_header(raw)["archive_id"])
    except _ERRORS as error:
        raise ArchiveError("corrupt", f"not a packed archive: {error!r:.200}") from error


def padded(num_bytes: int) -> int:
    """The next multiple of the alignment."""
    return -num_bytes % ALIGNMENT + num_bytes


def _scalar(archive: PackedArchive, table: _Table, column: int, row: int) -> Scalar | None:
    """As HDF5's reader gives it: a text ends before its padding, a number is a Python number."""
    item = table.shape.items[column]
    if not item.is_scalar:
        return None
    value = archive.value(table, column, row)
    if item.is_text:
        is_fixed = item.type.startswith("fixed:")
        if is_fixed and len(value) > LONGEST_TEXT:
            return None
        return decoded(value.rstrip(b"\0") if is_fixed else value[:LONGEST_TEXT])
    number: Scalar = value.item() if item.dims else value
    return min(number, LARGEST_I64) if type(number) is int else number


def _parts(raw: bytes) -> Iterator[memoryview]:
    """Header, shapes, numbers, ends and texts."""
    if not is_packed(raw):
        raise ValueError(f"it begins with {raw[:8]!r}")
    lengths = LENGTHS.unpack_from(raw, len(MAGIC))
    start = len(MAGIC) + LENGTHS.size
    whole = memoryview(raw)
    for length in lengths:
        if length > len(raw) - start:
            raise ValueError("it ends early")
        yield whole[start : start + length]
        start += padded(length)


def _header(raw: bytes) -> dict[str, Any]:
    return _checked_header(next(_parts(raw)), Budget(len(raw)))


def _checked_header(part: memoryview, budget: Budget) -> dict[str, Any]:
    if len(part) > LARGEST_HEADER_BYTES:
        raise ValueError(f"its header has {len(part)} bytes")
    text = bytes(part).decode()
    budget.charge_json(text, "its header")
    content: dict[str, Any] = json.loads(text)
    return content


def _checked_id(archive_id: object) -> str:
    if not isinstance(archive_id, str) or not ARCHIVE_ID.fullmatch(archive_id):
        raise ValueError(f"the archive id is {archive_id!r:.50}")
    return archive_id
