"""``rmsai alerts``: what the nights have found, and which of it a person has seen."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from rmsai_ray.cli.options import DEFAULT_LAKE, LAKE_VARIABLE
from rmsai_ray.cli.output import Answer
from rmsai_ray.storage import Store
from rmsai_ray.tables.alerts import RESOLVED, acknowledge, alerts_table

COLUMNS = (
    "alert_id",
    "severity",
    "state",
    "kind",
    "subject",
    "opened_night",
    "last_night",
    "count",
    "detail",
)


@dataclass(frozen=True, kw_only=True)
class Alerts:
    """Alerts of a lake that are not resolved, the newest first; marks one as seen with --ack."""

    lake: str = field(default_factory=lambda: os.environ.get(LAKE_VARIABLE, DEFAULT_LAKE))
    """Folder or s3://bucket/prefix. The environment variable RMSAI_LAKE sets the default."""
    ack: str | None = None
    """Id of an alert: somebody has seen it."""
    all: bool = False
    """Also those that are resolved."""
    json: bool = False
    """Answer with JSON."""
    csv: Path | None = None
    """Write the rows to this file, - for standard output."""

    def answer(self) -> Answer:
        """One row an alert."""
        store = Store(self.lake)
        if self.ack is not None:
            acknowledge(store, self.ack)
        found: pd.DataFrame = alerts_table(store).to_pandas()
        found = found if self.all else found[found["state"] != RESOLVED]
        found = found.sort_values(["last_night", "opened_night", "alert_id"], ascending=[False, False, True])
        shown = found[list(COLUMNS)]
        return Answer(data={"alerts": found}, rows=found, tables={f"alerts ({len(found)})": shown})
