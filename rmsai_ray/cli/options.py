"""What every subcommand can be told: which lake, which model, how to answer."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from rmsai_ray.tables.lake import Lake, open_lake

DEFAULT_LAKE = "./demo/lake"
LAKE_VARIABLE = "RMSAI_LAKE"


@dataclass(frozen=True, kw_only=True)
class LakeOptions:
    """Which lake, and how to answer."""

    lake: str = field(default_factory=lambda: os.environ.get(LAKE_VARIABLE, DEFAULT_LAKE))
    """Folder or s3://bucket/prefix. The environment variable RMSAI_LAKE sets the default."""
    model: str | None = None
    """Model id; needed where the lake holds several."""
    json: bool = False
    """Answer with JSON."""
    csv: Path | None = None
    """Write the rows to this file, - for standard output."""

    def open(self) -> Lake:
        """The chosen model's tables."""
        return open_lake(self.lake, self.model)
