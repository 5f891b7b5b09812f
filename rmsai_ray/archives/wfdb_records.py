"""Finds WFDB records in a folder, and what is known of each before its signals are read."""

from __future__ import annotations

import ast
import csv
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import wfdb

from rmsai_ray.archives.labels import scp_condition
from rmsai_ray.errors import ArchiveError, ConfigError

PTBXL_TABLE, PTBXL_STATEMENTS = "ptbxl_database.csv", "scp_statements.csv"

MAX_SAMPLES = 200_000_000
"""Of all signals together, 1.6 GB; a header that declares more is not believed."""

LOWEST_ECG_HZ = 50
SHORTEST_EVENT_S = 10.0
"""Shorter records are not imported; PTB-XL's are this long."""

MITDB_SHAPE = (360, 650_000)
"""Sampling rate and length of every record of the MIT-BIH Arrhythmia Database."""
MITDB_SAME_PERSON = {"202": "201"}

LATEST_YEAR = 2100
"""De-identified records may be dated centuries ahead; they get a synthetic time."""
SYNTHETIC_START = datetime(2000, 1, 1, tzinfo=UTC)
SYNTHETIC_DAYS = 20 * 365

READ_ERRORS = (OSError, ValueError, LookupError, TypeError, AttributeError, MemoryError)
"""What wfdb raises over files that are not what they should be."""


@dataclass(frozen=True, kw_only=True)
class WfdbRecord:
    """One record with signals of its own."""

    folder: str
    """The source folder."""
    name: str
    """Path of the record inside the folder, without suffix."""
    patient_id: str
    start_s: float
    """Epoch seconds of the first sample, UTC."""
    condition: str | None = None
    """Of the whole record, where the database says so; else rhythm annotations decide."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else the database says of it; kept with every event."""

    @property
    def path(self) -> str:
        """Path without suffix, as wfdb wants it."""
        return f"{self.folder}/{self.name}"

    @property
    def period(self) -> str:
        """Month of its first sample, ``YYYY-MM``."""
        return datetime.fromtimestamp(self.start_s, UTC).strftime("%Y-%m")

    @property
    def key(self) -> str:
        """Object key of its archive: unique by the record's name, and ending as archives do."""
        return f"{self.name}/{self.patient_id}_{self.period}.h5"


@dataclass(frozen=True, kw_only=True)
class RecordListing:
    """What a folder holds."""

    records: tuple[WfdbRecord, ...]
    unreadable: dict[str, str]
    """Reason by record name: headers that cannot be read."""
    skipped: dict[str, str]
    """Reason by record name: headers without ECG of their own."""


def list_records(folder: str) -> RecordListing:
    """All records below a database's folder, in order of their names.

    The folder's name becomes part of the patient ids, since records of different databases share numbers.
    PTB-XL is recognised by its table; records 201 and 202 of the MIT-BIH Arrhythmia Database, which are of
    the same person, by their shape. Multi-segment records come as their segments.

    Raises:
        ConfigError: there is no such folder.
    """
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        raise ConfigError(
            "source", folder, "is not a folder", "Name the folder of one database's .hea files."
        )
    if (root / PTBXL_TABLE).is_file():
        return RecordListing(records=tuple(_ptbxl_records(root)), unreadable={}, skipped={})
    headers, unreadable = _read_headers(root)
    parts = {key: part for name, header in headers.items() for key, part in _segments(name, header).items()}
    skipped = {name: reason for name, header in headers.items() if (reason := _why_not(header))}
    records = [_record(root, name, headers[name], parts.get(name)) for name in headers if name not in skipped]
    return RecordListing(records=tuple(records), unreadable=unreadable, skipped=skipped)


def _read_headers(root: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Headers by record name, and the reasons for those that cannot be read."""
    headers, unreadable = {}, {}
    for path in sorted(root.rglob("*.hea")):
        name = path.relative_to(root).with_suffix("").as_posix()
        try:
            headers[name] = read_header(f"{root}/{name}")
        except ArchiveError as error:
            unreadable[name] = str(error)
    return headers, unreadable


def read_header(path: str) -> Any:
    """wfdb's header object.

    Raises:
        ArchiveError: reason ``unreadable_record``, or ``oversized`` for absurd sizes.
    """
    try:
        header = wfdb.rdheader(path)
        num_samples = (header.n_sig or 0) * (header.sig_len or 0)
    except READ_ERRORS as error:
        raise ArchiveError("unreadable_record", f"header: {type(error).__name__}: {error}") from error
    if not isinstance(header, wfdb.MultiRecord) and num_samples > MAX_SAMPLES:
        raise ArchiveError("oversized", f"the header declares {num_samples} samples")
    return header


def _why_not(header: Any) -> str | None:
    """Why a readable header is no record to import; None for one that is."""
    if isinstance(header, wfdb.MultiRecord):
        return "a list of segments; they are imported by themselves"
    if not header.n_sig or not header.sig_len or "~" in (header.file_name or []):
        return "no signals of its own"
    if header.fs < LOWEST_ECG_HZ:
        return f"numerics at {header.fs:g} Hz"
    if header.sig_len / header.fs < SHORTEST_EVENT_S:
        return f"{header.sig_len / header.fs:g} s, at least {SHORTEST_EVENT_S:g} s are needed"
    return None


@dataclass(frozen=True, kw_only=True)
class _Segment:
    """What a segment knows from the multi-segment record that it is part of."""

    person: str
    start: datetime


def _segments(name: str, header: Any) -> dict[str, _Segment]:
    """By record name. A multi-segment record's name starts with the person's, up to a hyphen."""
    if not isinstance(header, wfdb.MultiRecord):
        return {}
    folder, _, own_name = name.rpartition("/")
    offsets_s = np.cumsum([0, *header.seg_len]) / header.fs
    start = _start(header.base_datetime, name)
    return {
        f"{folder}/{segment}".lstrip("/"): _Segment(
            person=own_name.split("-")[0], start=start + timedelta(seconds=offset_s)
        )
        for segment, offset_s in zip(header.seg_name, offsets_s.tolist(), strict=False)
    }


def _record(root: Path, name: str, header: Any, segment: _Segment | None) -> WfdbRecord:
    own_name = name.rpartition("/")[2]
    is_mitdb = (header.fs, header.sig_len) == MITDB_SHAPE
    person = MITDB_SAME_PERSON.get(own_name, own_name) if is_mitdb else own_name
    start = _start(header.base_datetime, name)
    return WfdbRecord(
        folder=str(root),
        name=name,
        patient_id=f"{root.name}-{segment.person if segment else person}",
        start_s=(segment.start if segment else start).timestamp(),
        facts={"database": root.name, "record": own_name, "comments": list(header.comments)},
    )


def _start(recorded: datetime | None, name: str) -> datetime:
    """When the header says, else a day that depends on the name alone."""
    if recorded is not None and 1970 < recorded.year < LATEST_YEAR:
        return recorded.replace(tzinfo=UTC)
    return SYNTHETIC_START + timedelta(days=zlib.crc32(name.encode()) % SYNTHETIC_DAYS)


def _ptbxl_records(root: Path) -> Iterator[WfdbRecord]:
    descriptions = _scp_descriptions(root / PTBXL_STATEMENTS)
    with (root / PTBXL_TABLE).open(newline="", encoding="utf-8") as table:
        for row in csv.DictReader(table):
            name = next(
                (row[c] for c in ("filename_hr", "filename_lr") if (root / f"{row[c]}.hea").is_file()), None
            )
            if name is None:
                continue
            codes = ast.literal_eval(row["scp_codes"])
            yield WfdbRecord(
                folder=str(root),
                name=name,
                patient_id=f"ptbxl-{int(float(row['patient_id']))}",
                start_s=_start(datetime.fromisoformat(row["recording_date"]), name).timestamp(),
                condition=scp_condition(codes, descriptions),
                facts={
                    "database": "ptbxl",
                    "record": row["ecg_id"],
                    "scp_codes": codes,
                    "strat_fold": int(row["strat_fold"]),
                    "age": float(row["age"]) if row["age"] else None,
                    "sex": int(row["sex"]) if row["sex"] else None,
                },
            )


def _scp_descriptions(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as table:
        reader = csv.reader(table)
        column = next(reader).index("description")
        return {row[0]: row[column] for row in reader}
