"""Archives with names and times in every place that can hold one, and the search for them afterwards.

A planted text is ``Zq`` and ten hex digits, so that one pattern finds all of them, in whatever case. Planted
times lie in the 1980s, where nothing else of a test does.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rmsai_ray.archives.packing import content_of
from rmsai_ray.archives.packs import build_pack
from rmsai_ray.ids import archive_id
from rmsai_ray.storage import Store
from tests.upstream_files import ASCII_VLEN, archive_bytes, replace

TEXT = re.compile(rb"zq[0-9a-f]{10}")
TEXT_16 = re.compile(rb"z\0q\0(?:[0-9a-f]\0){10}")
NUMBER = re.compile(rb"(?<![0-9])[34][0-9]{8}(?![0-9])")
"""Epoch seconds of the 1980s."""
DAY = re.compile(rb"198[0-9]-[01][0-9](?:-[0-3][0-9])?")
NUM_PATIENTS, NUM_EVENTS = 5, 2
PERIOD_S = 31_556_952.0


@dataclass
class Plants:
    """What was planted: where it is, by what a search for it finds."""

    kept: dict[bytes, str] = field(default_factory=dict)
    """What a lake with real names holds."""
    dropped: dict[bytes, str] = field(default_factory=dict)
    """What no lake holds."""
    raw: dict[bytes, str] = field(default_factory=dict)
    """Numbers as they are stored."""

    def text(self, where: str, *, kept: bool = True) -> str:
        """A new name for a place."""
        word = f"Zq{hashlib.sha256(where.encode()).hexdigest()[:10]}"
        (self.kept if kept else self.dropped)[word.lower().encode()] = where
        return word

    def exactly(self, where: str, found: str) -> None:
        """A name that is not of our making."""
        self.kept[found.lower().encode()] = where

    def time(self, where: str, time_s: float) -> float:
        """A time, in all its forms."""
        at = datetime.fromtimestamp(time_s, UTC)
        for form in (f"{at:%Y-%m-%d}", f"{at:%Y-%m}"):
            self.kept[form.encode()] = where
        self.dropped[str(int(time_s)).encode()] = where
        for kind, number in (("<d", time_s), ("<q", int(time_s)), ("<q", round(time_s * 1e6))):
            self.raw[struct.pack(kind, number)] = where
        return time_s

    def __len__(self) -> int:
        return len(self.kept) + len(self.dropped)

    def found_in(self, parts: Iterable[tuple[str, bytes]]) -> dict[bytes, str]:
        """Each planted thing that one of the named contents has, and the first place where."""
        found: dict[bytes, str] = {}
        for where, content in parts:
            lower = content.lower()
            words = {word.replace(b"\0", b"") for word in TEXT_16.findall(lower)}
            words |= {*TEXT.findall(lower), *NUMBER.findall(lower), *DAY.findall(lower)}
            words |= {day[:7] for day in words if day[:2] == b"19"}
            words |= {word for word in self.kept if word[:2] not in (b"zq", b"19") and word in lower}
            words |= {word for word in self.raw if word in content}
            for word in words & (self.kept.keys() | self.dropped.keys() | self.raw.keys()):
                found.setdefault(word, where)
        return found


def plant(folder: Path) -> Plants:
    """Fills a folder with archives of five patients, good and damaged ones, and a pack."""
    plants = Plants()
    ward = folder / plants.text("folder")
    ward.mkdir(parents=True)
    for number in range(NUM_PATIENTS):
        _write(ward, _name(plants, f"patient {number}", number), _archive(plants, number), plants)
    for kind, content in _damaged(plants).items():
        _write(ward, _name(plants, kind, 8), content, plants)
    members = [
        (_name(plants, f"member {number}", 6), _archive(plants, number)) for number in (NUM_PATIENTS, 6)
    ]
    contents = [content_of(f"{plants.text('in pack')}/{name}", raw, "e")[0] for name, raw in members]
    _write(ward, f"{plants.text('pack')}.pack.h5", build_pack(contents), plants)
    for ref in Store(str(folder)).list():
        if not ref.key.endswith(".pack.h5"):  # whose members count
            plants.exactly(f"etag of {ref.key}", ref.etag)
    return plants


def searchable(uri: str) -> Iterator[tuple[str, bytes]]:
    """Every object of a lake: its name, its bytes, and what its columns and texts say."""
    store = Store(uri)
    for info in store.list():
        content = store.get(info.key)
        yield f"the name {info.key}", info.key.encode()
        yield info.key, content
        if info.key.endswith(".parquet"):
            yield f"the rows of {info.key}", _rows(pq.read_table(io.BytesIO(content)))
    for path in Path(uri).rglob("*.lance"):
        if path.is_dir():
            yield f"the rows of {path.name}", _rows(lance.dataset(str(path)).to_table())


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder, and its name."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield f"the name {path.name}", path.name.encode()
            yield path.name, path.read_bytes()


def _rows(table: pa.Table) -> bytes:
    wide = [name for name in ("embedding", "beats") if name in table.column_names]
    return json.dumps(table.drop_columns(wide).to_pylist(), default=str).encode()


def _name(plants: Plants, where: str, number: int) -> str:
    """``<somebody>_<month>.h5``, a day of which is planted, too."""
    return f"{plants.text(f'name of {where}')}_198{number}-0{number + 1}.h5"


def _write(folder: Path, name: str, content: bytes, plants: Plants) -> None:
    path = folder / name
    path.write_bytes(content)
    modified_s = plants.time(f"modification of {name}", 500_000_000.0 + 86_400 * len(plants))
    os.utime(path, (modified_s, modified_s))
    if content and not name.endswith(".pack.h5"):
        plants.exactly(f"content of {name}", archive_id(content))


def _archive(plants: Plants, number: int) -> bytes:
    """One archive with a name in every place."""
    patient = plants.text(f"patient {number}")
    raw = archive_bytes("v3", num_events=NUM_EVENTS, seed=number, patient_id=patient)
    buffer = io.BytesIO(raw)
    with h5py.File(buffer, "r+") as file:
        _plant_metadata(plants, file, number)
        for index, key in enumerate(name for name in file if name.startswith("event_")):
            start_s = 320_000_000.0 + (number * NUM_EVENTS + index) * PERIOD_S / 2
            _plant_event(plants, file[key], f"{number}/{key}", start_s)
    return buffer.getvalue()


def _plant_metadata(plants: Plants, file: h5py.File, number: int) -> None:
    metadata = file["metadata"]
    replace(metadata, "device_info", np.bytes_(plants.text(f"{number} device", kept=False)))
    for name in ("operator", "ward", "notes"):
        value = plants.text(f"{number} metadata {name}", kept=False)
        metadata[f"{name}_{plants.text(f'{number} metadata name {name}', kept=False)}"] = value
        metadata.attrs[name] = plants.text(f"{number} metadata attribute {name}", kept=False)
        file.attrs[name] = plants.text(f"{number} attribute {name}", kept=False)
    file.create_group(plants.text(f"{number} group", kept=False))


def _plant_event(plants: Plants, event: h5py.Group, where: str, start_s: float) -> None:
    event.attrs["uuid"] = plants.text(f"{where} uuid")
    event.attrs["condition"] = f"Tachycardia of {plants.text(f'{where} condition')}"
    event.attrs["event_timestamp"] = plants.time(f"{where} time", start_s)
    for name in ("nurse", "note"):
        event.attrs[name] = plants.text(f"{where} attribute {name}", kept=False)
        event[plants.text(f"{where} name {name}", kept=False)] = plants.text(f"{where} {name}", kept=False)
    _plant_ecg(plants, event["ecg"], where)
    for name, vital in event["vitals"].items():
        _plant_vital(plants, vital, f"{where} {name}", start_s)
    event.copy(event["vitals/HR"], f"vitals/{plants.text(f'{where} vital')}")


def _plant_ecg(plants: Plants, ecg: h5py.Group, where: str) -> None:
    ecg.attrs["note"] = plants.text(f"{where} ecg attribute", kept=False)
    ecg["aVL"].attrs["sampling_rate"] = plants.text(f"{where} rate", kept=False)
    ecg[plants.text(f"{where} beside")] = plants.text(f"{where} beside value")
    ecg[plants.text(f"{where} unknown lead", kept=False)] = np.zeros(2400)
    extras: dict[str, Any] = {
        plants.text(f"{where} extras name"): plants.text(f"{where} extras value"),
        "annotations": {
            "samples": [5, 9],
            "symbols": ["N", plants.text(f"{where} symbol")],
            "rhythms": [[0, plants.text(f"{where} rhythm")]],
            plants.text(f"{where} annotations name"): 1,
        },
        "source": {"record": plants.text(f"{where} record"), "scp_codes": {plants.text(f"{where} code"): 1}},
        "fiducials": {plants.text(f"{where} wave"): [1], "R": [5, plants.text(f"{where} fiducial")]},
        "pacer_info": plants.text(f"{where} pacer", kept=False),
    }
    replace(ecg, "extras", json.dumps(extras).encode(), dtype=ASCII_VLEN)


def _plant_vital(plants: Plants, vital: h5py.Group, where: str, start_s: float) -> None:
    extras = json.loads(vital["extras"][()])
    extras["history"] = [
        {"value": entry["value"], "timestamp": start_s - 3600.0 * place}
        for place, entry in enumerate(extras["history"])
    ]
    if where.endswith(("HR", "XL_Posture")):
        extras[plants.text(f"{where} extras name")] = plants.text(f"{where} extras value")
        replace(vital, "units", plants.text(f"{where} units").encode(), dtype=ASCII_VLEN)
    extras["step_count"] = plants.text(f"{where} steps")
    replace(vital, "extras", json.dumps(extras).encode(), dtype=ASCII_VLEN)
    replace(vital, "timestamp", plants.time(f"{where} time", start_s + 2.0))


def _damaged(plants: Plants) -> dict[str, bytes]:
    """Archives that are quarantined, or lose an event, with texts that quote them."""
    good = archive_bytes("v3", num_events=2, seed=40, patient_id=plants.text("damaged patient"))
    nobody = archive_bytes("v3", num_events=1, seed=41, patient_id=plants.text("unprintable") + "\x01")

    def edited(raw: bytes, change: Any) -> bytes:
        buffer = io.BytesIO(raw)
        with h5py.File(buffer, "r+") as file:
            change(file)
        return buffer.getvalue()

    def lose_an_event(file: h5py.File) -> None:
        del file["event_1001"]
        file["event_1001"] = plants.text("event that is none", kept=False)
        number = 320_000_000 + 12_345
        plants.kept[str(number).encode()] = "event number"
        file.move("event_1002", f"event_{number}")
        file[f"event_{number}/ecg/ECG2"].id.write_direct_chunk((0,), b"this is not deflated")

    def point_elsewhere(file: h5py.File) -> None:
        del file["event_1001/ecg/ECG2"]
        elsewhere = plants.text("external file", kept=False)
        file["event_1001/ecg/ECG2"] = h5py.ExternalLink(f"/{elsewhere}.h5", elsewhere)

    return {
        "truncated": good[: len(good) // 2],
        "empty": b"",
        "not hdf5": plants.text("first bytes").encode() * 40,
        "nobody": nobody,
        "lost event": edited(good, lose_an_event),
        "external": edited(good, point_elsewhere),
    }
