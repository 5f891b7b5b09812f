"""The ledger: one object per finished unit, written last; what the driver has not folded yet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from rmsai_ray.errors import LakeError
from rmsai_ray.storage import Store

COPY: dict[str, Any] = {
    "status": "skipped",
    "patient_id": None,
    "period": None,
    "variant": None,
    "degraded": False,
    "num_events": 0,
    "num_windows": 0,
    "num_rejects": 0,
}
"""What the manifest says of an archive whose content another one holds, however that was noticed."""


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """A finished unit: what became of each archive, and where its rows lie."""

    unit_id: str
    run_id: str
    model_id: str
    archives: list[dict[str, Any]]
    """Rows of the ``archives`` table, times in ISO form. A touched file's status is ``unchanged``."""
    parts: dict[str, int]
    """Parquet part → number of rows."""
    fragments: list[dict[str, Any]]
    """Lance fragments of the windows, written but not committed."""
    epoch: int = 0
    """Of the lease of the driver that planned it."""
    seconds: dict[str, float] = field(default_factory=dict)
    """read, encode, write."""
    num_bytes: dict[str, int] = field(default_factory=dict)
    """read, parquet, lance."""

    @property
    def filled_parts(self) -> set[str]:
        """Parts that have a row; of another there is no object."""
        return {key for key, num_rows in self.parts.items() if num_rows}

    def without(
        self, uris: set[str], *, parts: dict[str, int], fragments: list[dict[str, Any]]
    ) -> LedgerEntry:
        """The entry after the rows of ``uris`` were dropped from it; those become ``skipped``."""
        rows = [row | COPY if row["uri"] in uris else row for row in self.archives]
        return replace(self, archives=rows, parts=parts, fragments=fragments)


def ledger_folder(model_id: str) -> str:
    """Where the entries of all runs with one model lie."""
    return f"ledger/model={model_id}"


def entry_key(model_id: str, unit_id: str) -> str:
    """The key of one entry."""
    return f"{ledger_folder(model_id)}/{unit_id}.json"


def encode(entry: LedgerEntry) -> bytes:
    """The entry as JSON; equal entries give equal bytes."""
    return json.dumps(vars(entry), sort_keys=True, separators=(",", ":")).encode()


def record(store: Store, entry: LedgerEntry) -> bool:
    """Marks a unit as finished; False where another worker did so first, whose entry then stands."""
    return store.create(entry_key(entry.model_id, entry.unit_id), encode(entry))


def overwrite(store: Store, entry: LedgerEntry) -> None:
    """Replaces an entry. For the driver alone, while it folds.

    Raises:
        LakeError: it is not there any more, since another run took the lake and folded it.
    """
    key = entry_key(entry.model_id, entry.unit_id)
    there, etag = store.find_version(key)
    if there is None or store.replace(key, encode(entry), etag) is None:
        raise LakeError(f"{store.child_uri(key)} was folded by another run, which took the lake")


def unit_ids(store: Store, model_id: str) -> set[str]:
    """Units that have an entry."""
    return {
        info.key.rpartition("/")[2].removesuffix(".json")
        for info in store.list(ledger_folder(model_id))
        if info.key.endswith(".json")
    }


def read_entries(store: Store, model_id: str, units: Iterable[str]) -> Iterator[LedgerEntry]:
    """The entries of the named units, in the order of their ids."""
    with ThreadPoolExecutor(16) as pool:
        for content in pool.map(lambda unit: store.get(entry_key(model_id, unit)), sorted(units)):
            yield LedgerEntry(**json.loads(content))


def remove(store: Store, model_id: str, units: Iterable[str]) -> None:
    """Deletes the entries of units that the manifest holds now."""
    store.delete(entry_key(model_id, unit) for unit in sorted(units))
