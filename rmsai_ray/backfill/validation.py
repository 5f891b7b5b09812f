"""``--validate-only``: one line per archive, read on Ray, nothing written."""

from __future__ import annotations

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy
from rich.console import Console

from rmsai_ray.archives.sources import open_source
from rmsai_ray.archives.validate import Verdict, validate
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.fetch import fetch
from rmsai_ray.backfill.plan import list_archives
from rmsai_ray.backfill.report import count_status
from rmsai_ray.compute import FEEDER_CPUS
from rmsai_ray.errors import RejectLimitError
from rmsai_ray.job import ray_session

ARCHIVES_PER_TASK = 64


class ValidateArchives:
    """URIs → one line each."""

    def __init__(self, config: BackfillConfig) -> None:
        self._config = config
        self._source = open_source(config.archives)

    def __call__(self, block: pa.Table) -> pa.Table:
        """A block of URIs and sizes to status and reasons."""
        rows = [self._judge(row["uri"], row["size"]) for row in block.to_pylist()]
        return pa.Table.from_pylist(rows)

    def _judge(self, uri: str, size: int) -> dict[str, str]:
        if size > self._config.max_archive_bytes:
            return {"uri": uri, "status": "fatal", "reasons": f"oversized: {size} bytes"}
        fetched = fetch(lambda: self._source.read(uri), self._config.attempts)
        if fetched.content is None:
            return {"uri": uri, "status": "fatal", "reasons": str(fetched.error)}
        verdict = validate(fetched.content, uri, self._config.validation)
        return {"uri": uri, "status": verdict.status, "reasons": describe(verdict)}


def describe(verdict: Verdict) -> str:
    """The problem codes, each with its first place: ``missing_lead (event_1001/ecg/aVL)``."""
    first = {problem.code: problem for problem in reversed(verdict.problems)}
    return ", ".join(f"{code} ({problem.where or problem.detail})" for code, problem in sorted(first.items()))


def print_validation(config: BackfillConfig, console: Console) -> None:
    """Prints ``status  uri  reasons`` for every archive, sorted by URI.

    Raises:
        RejectLimitError: a larger share than allowed is fatal.
    """
    listing = list_archives(config).sort_by("uri").select(["uri", "size"])
    blocks = [listing.slice(at, ARCHIVES_PER_TASK) for at in range(0, listing.num_rows, ARCHIVES_PER_TASK)]
    statuses: list[str] = []
    if blocks:
        with ray_session() as cluster:
            context = ray.data.DataContext.get_current()
            context.enable_progress_bars = False
            context.execution_options.preserve_order = True
            judged = ray.data.from_arrow(blocks).map_batches(
                ValidateArchives,
                fn_constructor_args=(config,),
                batch_size=None,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=min(len(blocks), max(1, int(cluster.num_cpus)))),
                num_cpus=FEEDER_CPUS,
            )
            for row in judged.iter_rows():
                statuses.append(row["status"])
                console.print(
                    f"{row['status']:<9}{row['uri']}  {row['reasons']}",
                    highlight=False,
                    soft_wrap=True,
                    markup=False,
                )
    counts = count_status(statuses)
    console.print(f"{len(statuses):,} archives: {counts}", highlight=False)
    if statuses and counts.get("fatal", 0) / len(statuses) > config.max_reject_fraction:
        raise RejectLimitError(f"{counts['fatal']} of {len(statuses)} archives cannot be used")
