"""From HDF5 to the packed form and back, without loss; changes with what the packed form can hold."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from math import prod
from typing import Any, Final

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5i, h5l, h5o, h5s, h5t

from rmsai_ray.archives.hdf5 import SIGNATURE, Dataset, FileBytes
from rmsai_ray.archives.headers import attribute_offset
from rmsai_ray.archives.heaps import GlobalHeaps
from rmsai_ray.archives.nodes import Array, UnreadableError
from rmsai_ray.archives.packed import LENGTHS, MAGIC, PackedArchive, is_packed, padded
from rmsai_ray.archives.packed_shapes import Item
from rmsai_ray.archives.packing_types import (
    NotPackableError,
    creation_properties,
    hdf5_type,
    layout_of,
    type_name,
)
from rmsai_ray.archives.packs import Content
from rmsai_ray.archives.reader import ReadOptions, read_archive
from rmsai_ray.errors import ArchiveError
from rmsai_ray.ids import archive_id

MOST_GROWTH: Final = 4
"""An archive that compresses better than this is kept as it is."""

_ERRORS = (
    ArchiveError,
    UnreadableError,
    KeyError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What h5py and our own readers raise on damaged data."""
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


@dataclass(frozen=True)
class Packing:
    """A packed archive before its blocks have a place."""

    blocks: list[tuple[str, Array]]
    """(name, values of all rows)."""
    skeleton: Callable[[list[int]], bytes]
    """From the distances of the blocks from the skeleton, in order, to its bytes; always of one length."""

    def joined(self) -> bytes:
        """Skeleton and blocks, one after the other."""
        place, places = padded(len(self.skeleton([0] * len(self.blocks)))), []
        for _, values in self.blocks:
            places.append(place)
            place += padded(values.nbytes)
        pieces = [self.skeleton(places), *(values.tobytes() for _, values in self.blocks)]
        return b"".join(piece.ljust(padded(len(piece)), b"\0") for piece in pieces)


def pack_archive(raw: bytes, uri: str) -> Packing:
    """Packs an archive, and makes sure that it can be had back and reads the same.

    Raises:
        NotPackableError: it would not.
    """
    try:
        rows = read_rows(raw)
    except _ERRORS as error:
        raise NotPackableError(f"HDF5 cannot read all of it: {error!r:.200}") from error
    packing = _packing(rows, archive_id(raw), len(raw))
    packed = packing.joined()
    if not identical(read_rows(unpack_archive(packed)), rows):
        raise NotPackableError("it does not come back as it was")
    if not identical(_read(packed, uri), _read(raw, uri)):
        raise NotPackableError("it does not read as it did")
    return packing


def content_of(name: str, raw: bytes, etag: str) -> tuple[Content, str | None]:
    """An archive as it goes into a pack, and why it goes there as it is, where it does."""
    reason = None
    try:
        packing = pack_archive(raw, name)
    except NotPackableError as error:
        packing, reason = Packing([], lambda _: raw), str(error)
    content = Content(
        name=name,
        archive_id=archive_id(raw),
        size=len(raw),
        etag=etag,
        blocks=packing.blocks,
        skeleton=packing.skeleton,
    )
    return content, reason


def unpack_archive(packed: bytes) -> bytes:
    """An HDF5 file with the same groups, datasets and attributes as the archive that was packed.

    What lies in a pack as it was comes back as it was.

    Raises:
        ArchiveError: corrupt.
    """
    if not is_packed(packed):
        return packed
    archive = PackedArchive(packed)
    with h5py.File("archive.h5", "w", driver="core", backing_store=False) as file:
        for name, items, values in archive.contents():
            _write_row(file, name, items, values)
        file.flush()
        return bytes(file.id.get_file_image())


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


def identical(a: Any, b: Any) -> bool:
    """Equality to the bit, of arrays and NaNs too, and of types."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    if is_dataclass(a):
        return all(identical(getattr(a, each.name), getattr(b, each.name)) for each in fields(a))
    if isinstance(a, dict):
        return list(a) == list(b) and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(identical, a, b))
    return bool(a == b or (a != a and b != b))


def _read(raw: bytes, uri: str) -> Any:
    """What the reader makes of it, whichever way it took."""
    try:
        return replace(read_archive(raw, uri, options=ReadOptions(waveforms=True)), detour=None)
    except ArchiveError as error:
        return (error.reason, error.detail)


def _packing(rows: list[Row], archive_id: str, size: int) -> Packing:
    shapes: dict[bytes, list[Row]] = {}
    for row in rows:
        shapes.setdefault(row.shape, []).append(row)
    numbers, texts, blocks = [], [], []
    for place, members in enumerate(shapes.values()):
        for column, item in enumerate(members[0].items):
            values: list[Any] = [row.values[column] for row in members]
            if item.is_text:
                texts += values
            elif item.is_array:
                name = f"{place}/{item.path}" + (f"@{item.attribute}" if item.attribute else "")
                block = np.empty((len(values), *item.dims), item.dtype)
                block[...] = values
                blocks.append((name, block))
            elif item.type != "group":
                numbers += [value.tobytes() for value in values]
    order = {shape: place for place, shape in enumerate(shapes)}
    header = {
        "archive_id": archive_id,
        "size": size,
        "rows": [[row.name, order[row.shape]] for row in rows],
        "shapes": [len(shape) for shape in shapes],
    }
    ends = np.cumsum([len(text) for text in texts], dtype="<i8")

    def skeleton(places: list[int]) -> bytes:
        parts = [
            json.dumps(header, separators=(",", ":")).encode(),
            b"".join(shapes),
            b"".join(numbers),
            np.concatenate([ends, np.array(places, "<i8")]).tobytes(),
            b"".join(texts),
        ]
        lengths = LENGTHS.pack(*map(len, parts))
        return MAGIC + lengths + b"".join(part.ljust(padded(len(part)), b"\0") for part in parts)

    return Packing(blocks, skeleton)


class _RowReader:
    """Reads what the packed form can hold, and raises on the rest.

    As the reader of archives, it leaves neither texts nor compressed chunks to HDF5, which damaged ones may
    keep busy for ever.
    """

    def __init__(self, raw: bytes) -> None:
        self._raw, self._heaps, self._content = raw, GlobalHeaps(raw, 0), FileBytes(raw, 0)
        self._left = MOST_GROWTH * len(raw) + (1 << 20)

    def root(self, root: Any) -> Row:
        """The root's own attributes."""
        _check_group(root)
        found = [(Item("", None, "group"), None), *self._attributes(root, "")]
        return _row("", found)

    def row(self, root: Any, name: bytes) -> Row:
        """A member of the root with all that is below it."""
        return _row(name.decode(), list(self._visit(h5o.open(root, name), "")))

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


def _row(name: str, found: list[tuple[Item, Value]]) -> Row:
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


def _write_row(file: h5py.File, name: str, items: tuple[Item, ...], values: list[Value]) -> None:
    for item, value in zip(items, values, strict=True):
        path = f"/{name}/{item.path}".replace("//", "/").rstrip("/").encode()
        if item.attribute is not None:
            node = h5o.open(file.id, path or b"/")
            created = h5a.create(node, item.attribute.encode(), hdf5_type(item.type), _space(item, None))
            array = _as_array(item, value)
            created.write(array, _memory_type(created, array))
        elif item.type != "group":
            created = h5d.create(
                file.id, path, hdf5_type(item.type), _space(item, item.layout), creation_properties(item)
            )
            array = _as_array(item, value)
            created.write(h5s.ALL, h5s.ALL, array, _memory_type(created, array))
        elif path:
            h5g.create(file.id, path)


def _memory_type(node: Any, array: Array) -> Any:
    """Texts of variable length are Python objects in memory; all else is as in the file."""
    return h5t.py_create(array.dtype) if array.dtype.kind == "O" else node.get_type()


def _as_array(item: Item, value: Value) -> Array:
    if not item.is_text:
        return np.asarray(value, item.dtype).reshape(item.dims)
    if item.type.startswith("fixed"):
        return np.frombuffer(value, f"S{len(value)}").reshape(item.dims)  # type: ignore[arg-type]
    array = np.empty(item.dims, h5py.string_dtype(item.type.split(":")[1]))
    array[...] = value
    return array


def _space(item: Item, layout: dict[str, Any] | None) -> Any:
    if not item.dims:
        return h5s.create(h5s.SCALAR)
    most = (layout or {}).get("maxshape", item.dims)
    return h5s.create_simple(item.dims, tuple(h5s.UNLIMITED if n is None else n for n in most))
