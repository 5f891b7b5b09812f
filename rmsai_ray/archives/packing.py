"""From HDF5 to the packed form and back, without loss; changes with what the packed form can hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Final

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5o, h5s, h5t

from rmsai_ray.archives.nodes import LONGEST_TEXT, Array, UnreadableError, decoded
from rmsai_ray.archives.packed import LENGTHS, MAGIC, PackedArchive, is_packed, padded
from rmsai_ray.archives.packed_shapes import HISTORY, REST, Item
from rmsai_ray.archives.packing_rows import Row, Value, make_row, read_rows
from rmsai_ray.archives.packing_types import (
    NotPackableError,
    creation_properties,
    hdf5_type,
)
from rmsai_ray.archives.packs import Content
from rmsai_ray.archives.reader import ReadOptions, read_archive
from rmsai_ray.archives.values import parse_json
from rmsai_ray.archives.vitals import plain_history
from rmsai_ray.errors import ArchiveError
from rmsai_ray.ids import archive_id

VITAL_EXTRAS: Final = re.compile("vitals/[^/]+/extras")

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
    packing = _packing([_with_histories(row) for row in rows], archive_id(raw), len(raw))
    packed = packing.joined()
    if not identical(read_rows(unpack_archive(packed)), rows):
        raise NotPackableError("it does not come back as it was")
    if not identical(_read(packed, uri), _read(raw, uri)):
        raise NotPackableError("it does not read as it did")
    return packing


def content_of(name: str, raw: bytes, etag: str) -> tuple[Content, str | None]:
    """An archive as it goes into a pack, and why it goes there as it is, where it does."""
    try:
        packing = pack_archive(raw, name)
    except NotPackableError as error:
        return content_as_it_is(name, raw, etag), str(error)
    return _content(name, raw, etag, packing), None


def content_as_it_is(name: str, raw: bytes, etag: str) -> Content:
    """An archive that goes into a pack byte by byte."""
    return _content(name, raw, etag, Packing([], lambda _: raw))


def _content(name: str, raw: bytes, etag: str, packing: Packing) -> Content:
    return Content(
        name=name,
        archive_id=archive_id(raw),
        size=len(raw),
        etag=etag,
        blocks=packing.blocks,
        skeleton=packing.skeleton,
    )


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


def _with_histories(row: Row) -> Row:
    """The row, and beside the extras of its vital signs what they say: JSON is slow to read."""
    found: list[tuple[Item, Value]] = []
    for item, value in zip(row.items, row.values, strict=True):
        found.append((item, value))
        if item.type.startswith("vlen:") and item.attribute is None and VITAL_EXTRAS.fullmatch(item.path):
            assert isinstance(value, bytes)
            found += _parsed(item.path, value)
    return make_row(row.name, found)


def _parsed(path: str, text: bytes) -> list[tuple[Item, Value]]:
    """Nothing where the reader would find something to remark on."""
    content = parse_json(decoded(text[:LONGEST_TEXT]))
    if not isinstance(content, dict) or "generated_by" in content:
        return []
    entries = content.pop("history", None)
    history = plain_history(entries) if isinstance(entries, list) else None
    rest = json.dumps(content)
    if not history or not identical(json.loads(rest), content):
        return []
    values = np.array(sorted(history), "<f8")
    return [
        (Item(path, REST, "vlen:utf-8:term"), rest.encode()),
        (Item(path, HISTORY, "<f8", values.shape), values),
    ]


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
                name = name.replace("\0", "")
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
