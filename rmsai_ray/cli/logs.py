"""``rmsai logs``: what the driver and the workers of a run said, by archive and level."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rmsai_ray.cli.options import LakeOptions
from rmsai_ray.cli.output import Answer
from rmsai_ray.errors import ConfigError
from rmsai_ray.logs import LogFilter, read_logs, runs_with_logs
from rmsai_ray.storage import Store, is_s3, normalise_uri

COLUMNS = ("time", "level", "message", "uri", "status", "seconds", "error", "unit_id", "worker")


@dataclass(frozen=True, kw_only=True)
class Logs(LakeOptions):
    """What the driver and the workers of a run said, a line an archive, by time."""

    run: str | None = None
    """Id of the run, or its beginning. Default: the one that logged last."""
    archive: str | None = None
    """Only lines about this archive: part of its URI, or its id."""
    level: str = "INFO"
    """Least level: INFO, WARNING or ERROR. A quarantined archive is a warning."""
    limit: int = 1000
    """How many lines at most, the last ones."""

    def answer(self) -> Answer:
        """One row a line."""
        if self.limit < 1:
            raise ConfigError("limit", self.limit, "must be positive", "Give 1 or more.")
        uri = normalise_uri(self.lake)
        if not is_s3(uri) and not Path(uri).is_dir():
            raise ConfigError("lake", self.lake, "is no folder", "Check the path.")
        store = Store(uri)
        run_id = self._choose(runs_with_logs(store))
        lines = read_logs(store, run_id, LogFilter(archive=self.archive, level=self.level))[-self.limit :]
        rows = pd.DataFrame(lines).reindex(columns=self._columns(lines))
        shown = rows.reindex(columns=[name for name in COLUMNS if name in rows])
        # What only some lines have is empty in others, not NaN.
        return Answer(
            data={"run_id": run_id, "lines": lines},
            rows=rows,
            tables={f"{run_id} ({len(rows)})": shown.astype(object).where(shown.notna(), None)},
        )

    def _choose(self, present: list[str]) -> str:
        found = [run_id for run_id in present if run_id.startswith(self.run or "")]
        if not found or (self.run and len(found) > 1 and self.run not in found):
            known = ", ".join(present) or "none"
            raise ConfigError("run", self.run, f"names {len(found)} runs of {known}", "Name one.")
        return self.run if self.run in found else found[-1]

    @staticmethod
    def _columns(lines: list[dict[str, object]]) -> list[str]:
        return list(dict.fromkeys(name for line in lines for name in line))
