"""HDF5 bytes as plain values; changes with h5py, or with what untrusted bytes are allowed to do.

h5py's low-level calls, because they read an event twice as fast as its File, Group and Dataset. Nothing
outside the bytes is ever touched, nothing is allocated before its size is known to be honest, and compressed
chunks are inflated by us, where a chunk that grows beyond its declared size can be stopped.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5g, h5i, h5l, h5o, h5s, h5t

from rmsai_ray.archives import nodes
from rmsai_ray.archives.chunks import DEFLATE, SHUFFLE, decode_chunk
from rmsai_ray.archives.headers import attribute_offset
from rmsai_ray.archives.heaps import REFERENCE_BYTES, GlobalHeaps
from rmsai_ray.archives.limits import Budget
from rmsai_ray.archives.nodes import LONGEST_TEXT, Array, Scalar, UnreadableError, decoded
from rmsai_ray.archives.packed import PackedArchive, is_packed
from rmsai_ray.errors import ArchiveError

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
HOLE: Final = bytes(1 << 16)
"""The end of a file of full length whose writer stopped half-way. What lies in a hole would read as zeros."""

_ERRORS = (KeyError, OSError, OverflowError, RuntimeError, TypeError, ValueError)
"""What h5py raises on damaged data."""

_NUMERIC_TYPES: Final = [
    (getattr(h5t, f"{family}{8 * size}{suffix}"), np.dtype(f"{order}{kind}{size}"))
    for suffix, order in (("LE", "<"), ("BE", ">"))
    for family, kind, sizes in (
        ("IEEE_F", "f", (8, 4, 2)),
        ("STD_I", "i", (8, 4, 2, 1)),
        ("STD_U", "u", (8, 4, 2, 1)),
    )
    for size in sizes
]
_NEITHER_COPY_NOR_RELEASE = 2 | 4
"""H5LT_FILE_IMAGE_DONT_COPY and _DONT_RELEASE, which h5py has no names for: HDF5 works on our own bytes."""
_FILTERS = ((), (DEFLATE,), (SHUFFLE,), (SHUFFLE, DEFLATE))


@contextmanager
def open_archive(raw: bytes, budget: Budget) -> Iterator[nodes.Group]:
    """The root group of an HDF5 file in memory, or of a packed archive.

    Raises:
        ArchiveError: empty_object, not_hdf5, truncated, corrupt; and, from everything done with the group,
            external_data and whatever exceeds the budget.
    """
    if not raw:
        raise ArchiveError("empty_object", "the object has no bytes")
    if is_packed(raw):
        yield PackedArchive(raw, budget).root
        return
    base = signature_offset(raw)
    if base is None:
        raise ArchiveError("not_hdf5", f"no HDF5 signature; the object begins with {raw[:8]!r}")
    if raw.endswith(HOLE):
        raise ArchiveError("corrupt", f"the last {len(HOLE)} bytes are zeros: only half of it was written")
    try:
        file = h5f.open_file_image(raw, _NEITHER_COPY_NOR_RELEASE)
    except _ERRORS as error:
        detail = _why_not(raw)
        raise ArchiveError("truncated" if "truncated" in detail else "corrupt", detail) from error
    try:
        yield _root(file, FileBytes(raw, base, budget))
    finally:
        _close(file)


def _why_not(raw: bytes) -> str:
    """HDF5's reason for not opening a file, which it tells of files only, not of images in memory."""
    try:
        h5py.File(io.BytesIO(raw), "r").close()
    except _ERRORS as error:
        return str(error)
    return "HDF5 does not open it in memory"


def _close(file: Any) -> None:
    """Closes the file and whatever is still open in it: HDF5 must forget the bytes before we may."""
    for open_id in h5f.get_obj_ids(file, h5f.OBJ_ALL & ~h5f.OBJ_FILE):
        while open_id.valid:
            h5i.dec_ref(open_id)
    file.close()


def _root(file: Any, content: FileBytes) -> Group:
    try:
        return Group(h5g.open(file, b"/"), "", content)
    except _ERRORS as error:
        raise ArchiveError("corrupt", f"heaps or root group cannot be read: {error}") from error


def signature_offset(raw: bytes) -> int | None:
    """Where HDF5 finds its signature: at 0, 512, 1024, 2048 …"""
    offset = 0
    while offset < len(raw):
        if raw.startswith(SIGNATURE, offset):
            return offset
        offset = max(512, 2 * offset)
    return None


class FileBytes:
    """The file as bytes: its texts, and what it may still cost."""

    def __init__(self, raw: bytes, base: int, budget: Budget) -> None:
        self.size = len(raw)
        self._raw = raw
        self._base = base
        self._heaps = GlobalHeaps(raw, base, budget)
        self.budget = budget

    def text(self, reference_offset: int) -> str:
        """The text of variable length that is referred to there."""
        return decoded(self._heaps.text(reference_offset)[:LONGEST_TEXT])

    def attribute_text(self, object_address: int, name: bytes) -> str:
        """Likewise, of the attribute of an object."""
        offset = attribute_offset(self._raw, self._base, object_address, name)
        if offset is None:
            raise UnreadableError(f"attribute {name!r} is not in the header of its object")
        return self.text(offset)


class _Node:
    """What groups and datasets have in common: a place and attributes."""

    def __init__(self, object_id: Any, path: str, content: FileBytes) -> None:
        self._id = object_id
        self.path = path
        self._bytes = content

    @property
    def budget(self) -> Budget:
        """Of the archive."""
        return self._bytes.budget

    def attribute(self, name: str) -> Scalar | None:
        """A scalar attribute; None where there is none of that name, or nothing readable in it."""
        try:
            if not h5a.exists(self._id, name.encode()):
                return None
            attribute = h5a.open(self._id, name.encode())
            kind = attribute.get_type()
            if _is_vlen_text(kind):
                return self._vlen_attribute(attribute, name.encode())
            return _scalar(attribute, kind, attribute.read)
        except (UnreadableError, *_ERRORS):
            return None

    def _vlen_attribute(self, attribute: Any, name: bytes) -> str:
        if attribute.get_storage_size() != REFERENCE_BYTES:
            raise UnreadableError(f"{self.path} has no single text as attribute {name!r}")
        return self._bytes.attribute_text(h5o.get_info(self._id).addr, name)

    def attributes(self) -> dict[str, Scalar]:
        """All readable scalar attributes."""
        names: list[bytes] = []

        left = self.budget.attributes_left

        def visit(name: bytes) -> bool | None:  # h5py forgets its lock where a callback raises
            names.append(name)
            return True if len(names) > left else None

        try:
            h5a.iterate(self._id, visit)
        except _ERRORS:
            return {}
        self.budget.count_attributes(len(names))
        values = {name: self.attribute(name) for name in map(decoded, names)}
        return {name: value for name, value in values.items() if value is not None}


class Group(_Node):
    """A group; its links are looked at once, when it is opened, and all of them must be hard links."""

    def __init__(self, object_id: Any, path: str, content: FileBytes) -> None:
        super().__init__(object_id, path, content)
        self._links: dict[str, bytes] = {}
        foreign: list[str] = []
        content.budget.enter(path)

        left = content.budget.members_left

        def visit(name: bytes, info: Any) -> bool | None:
            if info.type == h5l.TYPE_HARD:
                self._links[decoded(name)] = name
            else:
                foreign.append(decoded(name))
            return True if len(self._links) + len(foreign) > left else None

        object_id.links.iterate(visit, info=True)
        content.budget.count_members(len(self._links) + len(foreign))
        if foreign:
            raise ArchiveError("external_data", f"{path}/{foreign[0]} is a soft or external link")

    def __contains__(self, name: object) -> bool:
        return name in self._links

    @property
    def names(self) -> list[str]:
        """In the file's order, which is alphabetical."""
        return list(self._links)

    def group(self, name: str) -> Group | None:
        """The subgroup of that name; None where there is none.

        Raises:
            UnreadableError: it is not a group, or damaged.
        """
        link = self._links.get(name)
        if link is None:
            return None
        path = f"{self.path}/{name}" if self.path else name
        try:
            return Group(h5g.open(self._id, link), path, self._bytes)
        except _ERRORS as error:
            raise UnreadableError(f"{path} is not a readable group: {error}") from error

    def dataset(self, name: str) -> Dataset | None:
        """The dataset of that name; None where there is none.

        Raises:
            UnreadableError: it is not a dataset, or damaged.
        """
        link = self._links.get(name)
        if link is None:
            return None
        path = f"{self.path}/{name}"
        try:
            return Dataset(h5d.open(self._id, link), path, self._bytes)
        except _ERRORS as error:
            raise UnreadableError(f"{path} is not a readable dataset: {error}") from error

    def scalar(self, name: str) -> Scalar | None:
        """The value of a scalar dataset; None where there is none of that name, or nothing readable in it."""
        try:
            dataset = self.dataset(name)
            return None if dataset is None else dataset.scalar()
        except UnreadableError:
            return None

    @staticmethod
    def parsed_extras() -> None:
        """None: HDF5 holds them as text only."""


class Dataset(_Node):
    """A dataset; reading it raises :class:`UnreadableError` where it is damaged or of a foreign kind."""

    def scalar(self) -> Scalar:
        """The one number, text or flag in it."""
        try:
            if (
                self._id.get_offset() is None
                and self._home_layout(self._id.get_create_plist()) == h5d.CHUNKED
            ):
                raise UnreadableError(f"{self.path} is in chunks, as no scalar is")
            kind = self._id.get_type()
            if _is_vlen_text(kind):
                return self._vlen_text()
            return _scalar(self._id, kind, partial(self._id.read, h5s.ALL, h5s.ALL))
        except _ERRORS as error:
            raise UnreadableError(f"{self.path}: {error}") from error

    def _vlen_text(self) -> str:
        offset = self._id.get_offset()
        if offset is None or self._id.get_storage_size() != REFERENCE_BYTES:
            raise UnreadableError(f"{self.path} is not a single text")
        return self._bytes.text(offset)

    def array(self) -> Array:
        """All samples of a one-dimensional numeric dataset, in the type and byte order they are stored in."""
        try:
            return self._array()
        except _ERRORS as error:
            raise UnreadableError(f"{self.path}: {error}") from error

    def _array(self) -> Array:
        properties = self._id.get_create_plist()
        layout = self._home_layout(properties)  # first: a virtual shape may depend on other files
        shape = self._id.shape
        if len(shape) != 1:
            raise UnreadableError(f"{self.path} has shape {shape}, not one dimension")
        dtype = self._numeric_dtype()
        self._bytes.budget.charge(shape[0] * dtype.itemsize, self.path)
        if layout == h5d.CHUNKED:
            return self._chunks(shape[0], dtype, properties)
        if self._id.get_storage_size() == 0:
            raise UnreadableError(f"{self.path} was declared but not written")
        values = np.empty(shape, dtype)
        self._id.read(h5s.ALL, h5s.ALL, values)
        return values

    def _numeric_dtype(self) -> np.dtype[Any]:
        stored = self._id.get_type()
        for standard, dtype in _NUMERIC_TYPES:
            if stored.equal(standard):
                return dtype
        raise UnreadableError(f"{self.path} is not of a standard numeric type")

    def _chunks(self, length: int, dtype: np.dtype[Any], properties: Any) -> Array:
        filters = tuple(properties.get_filter(i)[0] for i in range(properties.get_nfilters()))
        if filters not in _FILTERS:
            raise UnreadableError(f"{self.path} uses other filters than gzip and shuffle: {filters}")
        if self._id.get_storage_size() > self._bytes.size:
            raise UnreadableError(f"{self.path} claims more stored bytes than the file has")
        (chunk_samples,) = properties.get_chunk()
        self._bytes.budget.charge(chunk_samples * dtype.itemsize, self.path)
        values = np.empty(length, dtype)
        for start in range(0, length, chunk_samples):
            self._bytes.budget.tick()
            mask, stored = self._id.read_direct_chunk((start,))
            chunk = decode_chunk(stored, mask, filters, chunk_samples, dtype)
            values[start : start + chunk_samples] = chunk[: length - start]
        self._bytes.budget.refund(chunk_samples * dtype.itemsize)
        return values

    def _home_layout(self, properties: Any) -> int:
        """How the dataset is stored, which must be inside the file."""
        layout = int(properties.get_layout())
        if layout == h5d.VIRTUAL or (layout == h5d.CONTIGUOUS and properties.get_external_count()):
            raise ArchiveError("external_data", f"{self.path} is virtual or stored in another file")
        return layout


def _is_vlen_text(kind: Any) -> bool:
    return isinstance(kind, h5t.TypeStringID) and bool(kind.is_variable_str())


def _scalar(item: Any, kind: Any, read: Callable[[Array, Any], object]) -> Scalar:
    """Reads the only element of a dataset or attribute."""
    if item.get_storage_size() != kind.get_size():  # several times faster than asking for the shape
        raise UnreadableError("not a scalar")
    if isinstance(kind, h5t.TypeFloatID):
        number = np.empty((), np.float64)
        read(number, h5t.NATIVE_DOUBLE)
        return float(number)
    if isinstance(kind, h5t.TypeEnumID):
        flag = np.empty((), np.int8)
        read(flag, h5t.py_create(np.dtype(bool)))
        return bool(flag)
    if isinstance(kind, h5t.TypeIntegerID):
        count = np.empty((), np.int64)
        read(count, h5t.NATIVE_INT64)
        return int(count)
    if isinstance(kind, h5t.TypeStringID) and kind.get_size() <= LONGEST_TEXT:
        fixed = np.empty((), f"S{kind.get_size()}")
        read(fixed, kind)
        return decoded(bytes(fixed.item()))
    raise UnreadableError("neither number nor text, or too long a text")
