"""The alerts of a lake: one small Parquet object, written anew with every change, the first writer wins.

<lake>/alerts/00000007.parquet      the highest number is the table as it is now
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rmsai_ray.errors import ConfigError, StorageError
from rmsai_ray.storage import Store
from rmsai_ray.tables import schemas
from rmsai_ray.tables.parts import SUFFIX, to_parquet

FOLDER = "alerts"
KEPT_REVISIONS = 20
MAX_ATTEMPTS = 100
NUMBERED = re.compile(rf"{FOLDER}/(\d{{8}}){re.escape(SUFFIX)}")

OPEN, ACKNOWLEDGED, RESOLVED = "open", "acknowledged", "resolved"

Alert = dict[str, Any]
"""A row of :data:`schemas.ALERTS`."""


def read_alerts(store: Store) -> list[Alert]:
    """All rows, the oldest first; none where nothing was ever found."""
    table = alerts_table(store)
    rows: list[Alert] = table.to_pylist()
    return rows


def alerts_table(store: Store) -> pa.Table:
    """The same as a table.

    Raises:
        LakeError: another version of the schema wrote it.
    """
    numbers = _numbers(store)
    return _read(store, numbers[-1]) if numbers else schemas.ALERTS.empty_table()


def change_alerts(store: Store, apply: Callable[[list[Alert]], list[Alert]]) -> list[Alert]:
    """Applies a change to the present rows, and returns what they became; what is the same is not written.

    Args:
        store: the lake.
        apply: makes the new rows of the present ones, which it must not change; may be called several times.

    Raises:
        StorageError: other writers were faster a hundred times.
    """
    for _ in range(MAX_ATTEMPTS):
        numbers = _numbers(store)
        number = numbers[-1] if numbers else 0
        present: list[Alert] = (_read(store, number) if numbers else schemas.ALERTS.empty_table()).to_pylist()
        changed = apply(present)
        if changed == present:
            return present
        if store.create(_key(number + 1), to_parquet(pa.Table.from_pylist(changed, schemas.ALERTS))):
            store.delete(_key(old) for old in numbers[: 1 - KEPT_REVISIONS])
            return changed
    raise StorageError(f"{store.child_uri(FOLDER)} changes too fast to be changed. Try again.")


def acknowledge(store: Store, alert_id: str) -> Alert:
    """Marks an open alert as seen by a person: it is updated and resolved as before, and opens nothing.

    Raises:
        ConfigError: there is no such alert, or it is resolved.
    """
    matching = [row for row in read_alerts(store) if row["alert_id"] == alert_id]
    if not matching or matching[0]["state"] == RESOLVED:
        rule = "is resolved already" if matching else "is no alert of this lake"
        raise ConfigError("ack", alert_id, rule, "See them: rmsai alerts.")

    def apply(rows: list[Alert]) -> list[Alert]:
        return [
            row | {"state": ACKNOWLEDGED} if row["alert_id"] == alert_id and row["state"] == OPEN else row
            for row in rows
        ]

    return next(row for row in change_alerts(store, apply) if row["alert_id"] == alert_id)


def _numbers(store: Store) -> list[int]:
    names = (NUMBERED.fullmatch(info.key) for info in store.list(FOLDER))
    return sorted(int(found[1]) for found in names if found)


def _read(store: Store, number: int) -> pa.Table:
    table = pq.read_table(io.BytesIO(store.get(_key(number))))
    schemas.check_version(table.schema, schemas.ALERTS, store.child_uri(_key(number)))
    return table


def _key(number: int) -> str:
    return f"{FOLDER}/{number:08d}{SUFFIX}"
