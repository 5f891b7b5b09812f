"""Hostile archives that HDF5's library itself can write; changes when another way to do harm turns up."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t, h5z

from rmsai_ray.archives.simulator import simulate_archive

Make = Callable[[], bytes]
Change = Callable[[h5py.File], object]
Kinds = dict[str, tuple[str | None, Make]]
"""Reason (None: harmless) and maker, by kind."""

EVENT, ECG, LEAD = "event_1001", "event_1001/ecg", "event_1001/ecg/ECG2"
EXTRAS = "event_1001/vitals/HR/extras"
SQL: Final = "PT'; DROP TABLE windows; --"
SHELL: Final = "PT$(touch /tmp/owned)`id`;&|<>"
MARKUP: Final = "PT[/red][bold red]x[/][/][link=file:///etc/passwd]y[/link]"
FORMAT: Final = "PT{0.__class__}%s%n%(x)s${HOME}"
ESCAPES: Final = "PT\x1b]0;owned\x07\x1b[2J\r\n\x00"
TRAVERSAL: Final = "../../../../tmp/owned"
FLOOD: Final = 20_001


@cache
def plain() -> bytes:
    """A harmless archive of one event."""
    return simulate_archive(9499, 1, seed=0)[1]


def edited(change: Change, **options: Any) -> Make:
    """The harmless archive with a change."""

    def make() -> bytes:
        buffer = io.BytesIO(plain())
        with h5py.File(buffer, "r+", **options) as file:
            change(file)
        return buffer.getvalue()

    return make


def rewritten(change: Change, **options: Any) -> Make:
    """Likewise, in another of HDF5's layouts."""

    def make() -> bytes:
        buffer = io.BytesIO()
        with h5py.File(io.BytesIO(plain()), "r") as old, h5py.File(buffer, "w", **options) as file:
            for name in old:
                old.copy(name, file)
            change(file)
        return buffer.getvalue()

    return make


def lead(*args: Any, **options: Any) -> Make:
    """Another dataset in the place of a lead."""

    def change(file: h5py.File) -> None:
        del file[LEAD]
        file.create_dataset(LEAD, *args, **options)

    return edited(change)


def lead_of_type(kind: Any, num_bytes: int, length: int = 2400) -> Make:
    """A lead of any of HDF5's types, filled with zeros."""

    def change(file: h5py.File) -> None:
        del file[LEAD]
        created = h5d.create(file.id, LEAD.encode(), kind, h5s.create_simple((length,)))
        created.write(h5s.ALL, h5s.ALL, np.zeros(length, f"V{num_bytes}"), kind)

    return edited(change)


def text(path: str, content: str | bytes) -> Make:
    """Another text in the place of one."""

    def change(file: h5py.File) -> None:
        if path in file:
            del file[path]
        raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        file.create_dataset(path, data=raw, dtype=h5py.string_dtype("ascii"))

    return edited(change)


def patient(name: str) -> Make:
    """A patient id of that name."""
    return text("metadata/patient_id", name)


def _filtered(*filters: tuple[int, tuple[int, ...]]) -> Make:
    """A lead whose chunks claim to be filtered so, and are not."""

    def change(file: h5py.File) -> None:
        del file[LEAD]
        properties = h5p.create(h5p.DATASET_CREATE)
        properties.set_chunk((1200,))
        for number, parameters in filters:
            properties.set_filter(number, h5z.FLAG_OPTIONAL, parameters)
        created = h5d.create(file.id, LEAD.encode(), h5t.IEEE_F64LE, h5s.create_simple((2400,)), properties)
        for start in (0, 1200):
            created.write_direct_chunk((start,), bytes(9600))

    return edited(change)


def _flood(path: str, target: str, names: list[str]) -> Change:
    def change(file: h5py.File) -> None:
        group, item = file.require_group(path), file[target]
        for name in names:
            group[name] = item

    return change


def _odd_float() -> Make:
    kind = h5t.IEEE_F64LE.copy()
    kind.set_fields(52, 40, 12, 0, 12)
    kind.set_ebias(7)
    return lead_of_type(kind, 8)


def _many_rates(file: h5py.File) -> None:
    for number in range(3):
        file.copy(EVENT, f"event_{2000 + number}")
        for place, dataset in enumerate(file[f"event_{2000 + number}/ecg"].values()):
            dataset.attrs["sampling_rate"] = 199.0 + (7 * number + place) / 1000


def _slow(file: h5py.File) -> None:
    del file[LEAD]
    dataset = file.create_dataset(LEAD, data=np.ones(1_000_000, "i1"), chunks=(100_000,), compression="gzip")
    dataset.attrs["sampling_rate"] = 1.0


def _padded(file: h5py.File) -> None:
    """Two leads that together need too much, and ballast enough for each to be honest."""
    file.create_dataset("ballast", data=np.frombuffer(np.random.default_rng(0).bytes(5 << 20), "u1"))
    for name in ("ECG1", "ECG2"):
        del file[f"{ECG}/{name}"]
        samples = np.ones(20 << 20, "i1")
        file.create_dataset(f"{ECG}/{name}", data=samples, chunks=(1 << 20,), compression="gzip")


def _shared_text(file: h5py.File) -> None:
    del file[EXTRAS]
    file.create_dataset(EXTRAS, data=json.dumps({"x": [{}] * 200_000}), dtype=h5py.string_dtype())
    _flood(f"{EVENT}/vitals", f"{EVENT}/vitals/HR", [f"X{number}" for number in range(500)])(file)


def _names(file: h5py.File) -> None:
    for name in (SQL, SHELL.replace("/", "|"), MARKUP.replace("/", "|"), "a\nb", "x" * 5000, "..", "é\u202e"):
        file.copy(f"{EVENT}/vitals/HR", f"{EVENT}/vitals/{name}")
    for name in (SQL, FORMAT):
        file[f"{ECG}/{name}"] = name


def _texts(file: h5py.File) -> None:
    file[EVENT].attrs["condition"] = MARKUP + "\x1b[2J"
    file[EVENT].attrs["uuid"] = SQL
    file[f"{EVENT}/vitals/HR/units"][...] = FORMAT


def _nested(file: h5py.File) -> None:
    file.require_group(f"{EVENT}/vitals/HR/" + "/".join("g" * 300))


def _deep_cycle(file: h5py.File) -> None:
    file[f"{EVENT}/vitals/HR/again"] = file[f"{EVENT}/vitals"]
    file[f"{EVENT}/ecg/again"] = file["/"]
    file[f"{EVENT}/vitals/again"] = file[f"{EVENT}/vitals"]


def _attributes(file: h5py.File) -> None:
    group = file.create_group("event_1002")
    for number in range(800):
        group.attrs[f"a{number}"] = number


def _reference(file: h5py.File) -> None:
    file[EVENT].attrs["condition"] = file[LEAD].regionref[0:10]
    file[EVENT].attrs["uuid"] = file["/"].ref


def _nothing(file: h5py.File) -> None:
    pass


_LONG_NUMBER = "9" * 10_000

HDF5: Final[Kinds] = {
    "object_references": (None, lead(2400, h5py.ref_dtype)),
    "region_references": (None, edited(_reference)),
    "filter_lzf": (None, lead(data=np.zeros(2400), chunks=(1200,), compression="lzf")),
    "filter_szip": (None, _filtered((4, (141, 32)))),
    "filter_plugin": (None, _filtered((32004, (0,)))),
    "filter_shuffle_and_unknown": (None, _filtered((2, (8,)), (40_000, (1, 2, 3)))),
    "filter_scale_offset": (None, lead(data=np.zeros(2400, "i4"), chunks=(1200,), scaleoffset=4)),
    "filter_checksum": (None, lead(data=np.zeros(2400), chunks=(1200,), fletcher32=True)),
    "filters_many": (None, _filtered(*[(1, (9,))] * 20)),
    "bomb_chunk": (
        None,
        lead(data=np.zeros(1 << 22), chunks=(1 << 22,), compression="gzip", maxshape=(None,)),
    ),
    "bomb_bytes": ("oversized", lead(data=np.ones(40 << 20, "i1"), chunks=(1 << 20,), compression="gzip")),
    "bomb_slow_rate": ("oversized", edited(_slow)),
    "bomb_in_a_large_file": ("too_large", edited(_padded)),
    "bomb_shared_text": ("oversized", edited(_shared_text)),
    "rates_many": ("too_many", edited(_many_rates)),
    "json_deep": (None, text(EXTRAS, "[" * 500_000)),
    "json_deep_objects": (None, text(EXTRAS, '{"a":' * 100_000 + "1" + "}" * 100_000)),
    "json_long": (None, text(EXTRAS, '{"x":[' + "{}," * 300_000 + "{}]}")),
    "json_huge_integer": (None, text(f"{ECG}/extras", '{"pacer_info": ' + "9" * 4200 + "}")),
    "json_endless_integer": (None, text(f"{ECG}/extras", '{"pacer_info": ' + "9" * 500_000 + "}")),
    "json_not_numbers": (None, text(EXTRAS, '{"a": NaN, "b": [-Infinity, 1e999], "history": [NaN]}')),
    "json_same_keys": (None, text(EXTRAS, "{" + ",".join(['"a": 1'] * 50_000) + "}")),
    "json_surrogates": (None, text(EXTRAS, '{"\\ud800": "\\udfff", "history_source": "\\ud83d"}')),
    "text_not_utf8": (None, text(EXTRAS, b'{"a": "\xff\xfe\xc0\x80"}')),
    "text_gigantic": (
        None, edited(lambda file: file[EVENT].create_dataset("Condition", data=np.bytes_(b"x" * (8 << 20)))),
    ),
    "text_long_uuid": (None, text(f"{EVENT}/uuid", "u" * (1 << 20))),
    "type_big_endian": (None, lead(data=np.zeros(2400, ">f8"))),
    "type_half": (None, lead(data=np.zeros(2400, "f2"))),
    "type_long_double": (None, lead(data=np.zeros(2400, "g"))),
    "type_odd_float": (None, _odd_float()),
    "type_vax": (None, lead_of_type(h5t.VAX_F64.copy() if hasattr(h5t, "VAX_F64") else h5t.IEEE_F64BE, 8)),
    "type_compound": (None, lead(data=np.zeros(2400, [("a", "f8"), ("b", "S3")]))),
    "type_opaque": (None, lead(data=np.zeros(2400, "V16"))),
    "type_vlen": (None, lead((9,), dtype=h5py.vlen_dtype("i8"))),
    "type_texts": (None, lead(data=["x"] * 2400, dtype=h5py.string_dtype())),
    "type_enum": (None, lead(data=np.zeros(2400, "i1"), dtype=h5py.enum_dtype({"a": 0, "b": 1}, "i1"))),
    "type_array": (None, lead((2400,), np.dtype(("f8", (3, 3))))),
    "type_bits": (None, lead_of_type(h5t.STD_B64LE, 8)),
    "shape_huge": ("oversized", lead((1 << 40,), "f8", chunks=(1 << 20,), compression="gzip")),
    "shape_unlimited": ("oversized", lead((1 << 62,), "i1", chunks=(1 << 20,), maxshape=(None,))),
    "shape_zero": (None, lead(0, "f8")),
    "shape_none": (None, lead(data=h5py.Empty("f8"))),
    "shape_ranks": (None, lead((1,) * 30 + (40, 60), "f8")),
    "shape_unwritten": (None, lead((2400,), "f8", fillvalue=1e308)),
    "chunks_of_one": (None, lead(data=np.ones(4_000), chunks=(1,))),
    "members_events": (
        "too_many", edited(_flood("/", EVENT, [f"event_{10_000 + number}" for number in range(FLOOD)])),
    ),
    "members_leads": (None, edited(_flood(ECG, LEAD, [f"X{number}" for number in range(5_000)]))),
    "members_vitals": (
        None, edited(_flood(f"{EVENT}/vitals", f"{EVENT}/vitals/HR", [f"X{i}" for i in range(800)])),
    ),
    "members_in_a_fractal_heap": (
        None,
        rewritten(_flood("event_1002/ecg", LEAD, [f"X{number}" for number in range(5_000)]), libver="latest"),
    ),
    "attributes_many": (None, edited(_attributes)),
    "attributes_in_a_fractal_heap": (None, rewritten(_attributes, libver="latest")),
    "groups_nested": (None, edited(_nested)),
    "groups_cyclic": (None, edited(_deep_cycle)),
    "layout_latest": (None, rewritten(_nothing, libver="latest")),
    "layout_user_block": (None, rewritten(_nothing, userblock_size=1024)),
    "layout_tracked": (None, rewritten(_nothing, track_order=True)),
    "names_hostile": (None, edited(_names)),
    "texts_hostile": (None, edited(_texts)),
    "event_number_endless": (
        "no_events", edited(lambda file: file.move(EVENT, f"event_{_LONG_NUMBER}")),
    ),
    "patient_sql": (None, patient(SQL)),
    "patient_shell": (None, patient(SHELL)),
    "patient_markup": (None, patient(MARKUP)),
    "patient_format": (None, patient(FORMAT)),
    "patient_traversal": (None, patient(TRAVERSAL)),
    "patient_escapes": ("no_patient", patient(ESCAPES.replace("\0", "\x01"))),
    "patient_endless": ("no_patient", patient("P" * 100_000)),
    "no_patient_in_the_name": ("no_patient", edited(lambda file: file.pop("metadata/patient_id"))),
}  # fmt: skip


def _soft(target: str) -> Make:
    def change(file: h5py.File) -> None:
        del file[LEAD]
        file[LEAD] = h5py.SoftLink(target)

    return edited(change)


def _external_link(outside: str) -> Make:
    def change(file: h5py.File) -> None:
        del file[LEAD]
        file[LEAD] = h5py.ExternalLink(outside, "/event_1001/ecg/ECG1")

    return edited(change)


def _external_event(outside: str) -> Make:
    return edited(lambda file: file.__setitem__("event_1002", h5py.ExternalLink(outside, "/event_1001")))


def _external_storage(outside: str) -> Make:
    return lead((2400,), "i1", external=[(outside, 0, 2400)])


def _external_scalar(outside: str) -> Make:
    def change(file: h5py.File) -> None:
        del file["metadata/patient_id"]
        file.create_dataset("metadata/patient_id", (1,), "S64", external=[(outside, 0, 64)])

    return edited(change)


def _virtual(outside: str) -> Make:
    def change(file: h5py.File) -> None:
        del file[LEAD]
        layout = h5py.VirtualLayout((2400,), "f8")
        layout[:] = h5py.VirtualSource(outside, "event_1001/ecg/ECG1", (2400,))
        file.create_virtual_dataset(LEAD, layout)

    return edited(change)


LINKS: Final[dict[str, tuple[str | None, Callable[[str], Make]]]] = {
    "link_external": ("external_data", _external_link),
    "link_external_event": ("external_data", _external_event),
    "link_soft_inside": ("external_data", lambda _: _soft("/event_1001/ecg/ECG1")),
    "link_soft_to_itself": ("external_data", lambda _: _soft(f"/{LEAD}")),
    "link_soft_outside": ("external_data", _soft),
    "storage_external": ("external_data", _external_storage),
    "storage_external_scalar": ("external_data", _external_scalar),
    "storage_virtual": ("external_data", _virtual),
    "storage_virtual_of_itself": ("external_data", lambda _: _virtual(".")),
}
