"""Archives that are broken on purpose, one for each way that tests and demonstrations need."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import h5py
import numpy as np

from rmsai_ray.archives.simulator import DEFAULT_PERIOD, archive_name, simulate_archive

NUM_EVENTS = 2
FIRST_PATIENT_INDEX = 9000
CLIP_MV = 0.3


@dataclass(frozen=True, kw_only=True)
class BrokenArchive:
    """An archive, and what a reader is expected to say of it."""

    file_name: str
    content: bytes
    status: Literal["ok", "degraded", "fatal"]
    """Of the lenient profile."""
    code: str | None
    """Of its problem (:data:`~rmsai_ray.archives.problems.PROBLEMS`); None where the format is kept."""
    quality_flag: str | None = None
    """What the quality of its windows shows, where the format shows nothing."""


@dataclass(frozen=True)
class _Damage:
    status: Literal["ok", "degraded", "fatal"]
    code: str | None
    do: Callable[[bytes], bytes]
    quality_flag: str | None = None
    file_name: str | None = None


def broken_archives(seed: int = 0) -> dict[str, BrokenArchive]:
    """One archive per kind of damage, by kind."""
    return {kind: break_archive(kind, seed) for kind in _DAMAGES}


def broken_file_names() -> dict[str, str]:
    """The file name of each kind, in the order of kinds."""
    return {
        kind: damage.file_name or archive_name(FIRST_PATIENT_INDEX + index, DEFAULT_PERIOD)
        for index, (kind, damage) in enumerate(_DAMAGES.items())
    }


def break_archive(kind: str, seed: int = 0) -> BrokenArchive:
    """A simulated archive of two events, the first of them damaged in one way, where events are."""
    damage = _DAMAGES[kind]
    index = FIRST_PATIENT_INDEX + list(_DAMAGES).index(kind)
    _, content = simulate_archive(index, NUM_EVENTS, seed=seed)
    return BrokenArchive(
        file_name=broken_file_names()[kind],
        content=damage.do(content),
        status=damage.status,
        code=damage.code,
        quality_flag=damage.quality_flag,
    )


def _edit(change: Callable[[h5py.File], object]) -> Callable[[bytes], bytes]:
    """Bytes → bytes from a change of the open file."""

    def do(content: bytes) -> bytes:
        buffer = io.BytesIO(content)
        with h5py.File(buffer, "r+") as file:
            change(file)
        return buffer.getvalue()

    return do


def _edit_event(change: Callable[[h5py.Group], object]) -> Callable[[bytes], bytes]:
    return _edit(lambda file: change(file["event_1001"]))


def _delete(*paths: str) -> Callable[[h5py.Group], None]:
    def change(group: h5py.Group) -> None:
        for path in paths:
            del group[path]

    return change


def _replace(path: str, make: Callable[[Any], Any], **options: Any) -> Callable[[h5py.Group], None]:
    """Writes ``make(old value)`` in the place of a dataset."""

    def change(group: h5py.Group) -> None:
        value = make(group[path][()])
        del group[path]
        group.create_dataset(path, data=value, **options)

    return change


def _with_nan(samples: Any) -> Any:
    return np.where((np.arange(len(samples)) // 100) == 3, np.nan, samples)


def _external_link(group: h5py.Group) -> None:
    del group["ecg/ECG2"]
    group["ecg/ECG2"] = h5py.ExternalLink("other.h5", "/event_1001/ecg/ECG2")


def _external_storage(group: h5py.Group) -> None:
    del group["ecg/ECG2"]
    group.create_dataset("ecg/ECG2", (2400,), "f8", external=[("other.bin", 0, 19200)])


def _virtual(group: h5py.Group) -> None:
    del group["ecg/ECG2"]
    layout = h5py.VirtualLayout((2400,), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "ecg", (2400,))
    group.create_virtual_dataset("ecg/ECG2", layout)


def _huge(group: h5py.Group) -> None:
    del group["ecg/ECG2"]
    group.create_dataset("ecg/ECG2", (1 << 40,), "f8", chunks=(1 << 20,), compression="gzip")


def _corrupt_chunk(group: h5py.Group) -> None:
    group["ecg/ECG2"].id.write_direct_chunk((0,), b"this is not deflated")


def _raw_counts(group: h5py.Group) -> None:
    for lead in [name for name in group["ecg"] if name != "extras"]:
        _replace(f"ecg/{lead}", lambda samples: np.round(samples * 400).astype(np.int64))(group)


def _half_written(content: bytes) -> bytes:
    """As long as it should be, but the second half never reached the disk."""
    half = len(content) // 2
    return content[:half] + bytes(len(content) - half)


def _other_rate(file: h5py.File) -> None:
    file["metadata/sampling_rate_ecg"][...] = 180.0  # slower: the event still lasts 12 s


def _same(content: bytes) -> bytes:
    return content


_ASCII = h5py.string_dtype("ascii")

_DAMAGES: dict[str, _Damage] = {
    "empty": _Damage("fatal", "empty_object", lambda content: b""),
    "not_hdf5": _Damage("fatal", "not_hdf5", lambda content: b"PK\x03\x04" + content[8:4096]),
    "truncated": _Damage("fatal", "truncated", lambda content: content[: len(content) // 2]),
    "half_written": _Damage("fatal", "corrupt", _half_written),
    "no_events": _Damage("fatal", "no_events", _edit(_delete("event_1001", "event_1002"))),
    "no_patient": _Damage(
        "fatal", "no_patient", _edit(_delete("metadata/patient_id")), file_name="export.h5"
    ),
    "external_link": _Damage("fatal", "external_data", _edit_event(_external_link)),
    "external_storage": _Damage("fatal", "external_data", _edit_event(_external_storage)),
    "virtual_dataset": _Damage("fatal", "external_data", _edit_event(_virtual)),
    "huge_shape": _Damage("fatal", "oversized", _edit_event(_huge)),
    "missing_metadata": _Damage("degraded", "missing_metadata", _edit(_delete("metadata"))),
    "wrong_patient": _Damage("degraded", "patient_mismatch", _same, file_name="PT0815_2026-10.h5"),
    "wrong_rate": _Damage("degraded", "odd_rate", _edit(_other_rate)),
    "no_leads": _Damage("degraded", "no_leads", _edit_event(_delete("ecg"))),
    "missing_lead": _Damage("degraded", "missing_lead", _edit_event(_delete("ecg/aVL"))),
    "corrupt_chunk": _Damage("degraded", "unreadable_lead", _edit_event(_corrupt_chunk)),
    "short_event": _Damage("degraded", "short_signal", _edit_event(_replace("ecg/ECG2", lambda x: x[:900]))),
    "nan": _Damage("degraded", "nan_samples", _edit_event(_replace("ecg/ECG2", _with_nan)), "nan"),
    "all_nan": _Damage(
        "degraded", "empty_signal", _edit_event(_replace("ecg/ECG2", lambda x: np.full_like(x, np.nan)))
    ),
    "raw_counts": _Damage("degraded", "unit_raw", _edit_event(_raw_counts)),
    "bad_json": _Damage(
        "degraded", "bad_json", _edit_event(_replace("ecg/extras", lambda _: b'{"pacer', dtype=_ASCII))
    ),
    "missing_uuid": _Damage(
        "degraded", "missing_uuid", _edit_event(lambda g: (_delete("uuid")(g), g.attrs.pop("uuid")))
    ),
    "missing_time": _Damage(
        "degraded",
        "missing_time",
        _edit_event(lambda g: (_delete("timestamp")(g), g.attrs.pop("event_timestamp"))),
    ),
    "missing_condition": _Damage(
        "degraded", "missing_condition", _edit_event(lambda g: g.attrs.pop("condition"))
    ),
    "missing_vitals": _Damage("degraded", "missing_vitals", _edit_event(_delete("vitals"))),
    "missing_ppg": _Damage("degraded", "missing_waveform", _edit_event(_delete("ppg"))),
    "flat_lead": _Damage("ok", None, _edit_event(_replace("ecg/ECG2", np.zeros_like)), "flat"),
    "clipped": _Damage(
        "ok",
        None,
        _edit_event(_replace("ecg/ECG2", lambda x: np.clip(x, -CLIP_MV, CLIP_MV))),
        "clipped",
    ),
}
