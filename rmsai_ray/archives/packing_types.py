"""HDF5's types and layouts as words, and back; changes with what the packed form can hold."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from h5py import h5d, h5p, h5s, h5t, h5z

from rmsai_ray.archives.packed_shapes import Item

_CHARSETS: Final = {"ascii": h5t.CSET_ASCII, "utf-8": h5t.CSET_UTF8}
_PADDINGS: Final = {"term": h5t.STR_NULLTERM, "null": h5t.STR_NULLPAD, "space": h5t.STR_SPACEPAD}
_FILTERS: Final = {
    "gzip": h5z.FILTER_DEFLATE,
    "shuffle": h5z.FILTER_SHUFFLE,
}


class NotPackableError(Exception):
    """An archive holds what the packed form cannot: it has to be kept as it is."""


def layout_of(dataset: Any) -> dict[str, Any]:
    """How a dataset is stored.

    Raises:
        NotPackableError: in a way that we cannot restore.
    """
    properties = dataset.get_create_plist()
    layout = properties.get_layout()
    if layout == h5d.VIRTUAL or (layout == h5d.CONTIGUOUS and properties.get_external_count()):
        raise NotPackableError("a dataset is virtual or stored in another file")
    if properties.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED or properties.get_attr_creation_order():
        raise NotPackableError("a dataset has a fill value of its own, or ordered attributes")
    if layout != h5d.CHUNKED:
        return {"compact": True} if layout == h5d.COMPACT else {}
    if len(dataset.shape) != 1:
        raise NotPackableError("a dataset of several dimensions is in chunks")
    names = {number: name for name, number in _FILTERS.items()}
    filters = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    if any(found[0] not in names for found in filters):
        raise NotPackableError("a dataset has a filter that not everybody has")
    return {
        "chunks": list(properties.get_chunk()),
        "maxshape": [
            None if n == h5s.UNLIMITED else n for n in dataset.get_space().get_simple_extent_dims(True)
        ],
        "filters": [
            [names[found[0]], *(found[2] if found[0] == h5z.FILTER_DEFLATE else ())] for found in filters
        ],
    }


def type_name(kind: Any, path: str) -> str:
    """The type of an item, as :class:`~rmsai_ray.archives.packed_shapes.Item` has it.

    Raises:
        NotPackableError: there is no word for it.
    """
    if isinstance(kind, h5t.TypeStringID):
        charset = _name(_CHARSETS, kind.get_cset())
        padding = _name(_PADDINGS, kind.get_strpad())
        if kind.is_variable_str():
            return f"vlen:{charset}:{padding}"
        return f"fixed:{charset}:{padding}:{kind.get_size()}"
    dtype = kind.dtype
    if dtype.kind in "fiub" and kind.equal(h5t.py_create(dtype)):
        return "bool" if dtype.kind == "b" else dtype.str
    raise NotPackableError(f"{path} is neither number nor text")


def hdf5_type(name: str) -> Any:
    """The inverse of :func:`type_name`."""
    family, *details = name.split(":")
    if family not in ("vlen", "fixed"):
        return h5t.py_create(np.dtype(name))
    kind = h5t.C_S1.copy()
    kind.set_size(int(details[2]) if family == "fixed" else h5t.VARIABLE)
    kind.set_cset(_CHARSETS[details[0]])
    kind.set_strpad(_PADDINGS[details[1]])
    return kind


def _name(names: dict[str, int], value: int) -> str:
    return next(name for name, each in names.items() if each == value)


def creation_properties(item: Item) -> Any:
    """The layout of a dataset, as HDF5 wants to be told."""
    layout, properties = item.layout or {}, h5p.create(h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    if layout.get("compact"):
        properties.set_layout(h5d.COMPACT)
    if "chunks" in layout:
        properties.set_chunk(tuple(layout["chunks"]))
    setters = {
        "gzip": properties.set_deflate,
        "shuffle": properties.set_shuffle,
    }
    for name, *options in layout.get("filters", ()):
        setters[name](*options)
    return properties
