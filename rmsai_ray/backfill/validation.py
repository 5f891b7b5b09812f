"""``--validate-only``: one line per archive, read on Ray, nothing written."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy
from rich.console import Console

from rmsai_ray.archives.pseudonyms import Door
from rmsai_ray.archives.records import Problem
from rmsai_ray.archives.sources import open_source
from rmsai_ray.archives.validate import validate
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.fetch import fetch
from rmsai_ray.backfill.plan import list_archives, name_archives, source_of
from rmsai_ray.backfill.report import count_status
from rmsai_ray.compute import FEEDER_CPUS
from rmsai_ray.errors import ArchiveError, RejectLimitError
from rmsai_ray.job import ray_session
from rmsai_ray.privacy import Pseudonymiser, quiet_errors
from rmsai_ray.terminal import printable

ARCHIVES_PER_TASK = 64


class ValidateArchives:
    """URIs → one line each."""

    def __init__(self, config: BackfillConfig, pseudonyms: str | None) -> None:
        self._config = config
        self._source = open_source(config.archives)
        self._door = Door.under(pseudonyms)

    def __call__(self, block: pa.Table) -> pa.Table:
        """A block of URIs and sizes to status and reasons."""
        with quiet_errors(self._door.is_closed):
            rows = [
                {"uri": row["uri"], **self._judge(source_of(row), row["size"])} for row in block.to_pylist()
            ]
        return pa.Table.from_pylist(rows)

    def _judge(self, uri: str, size: int) -> dict[str, str]:
        if size > self._config.max_archive_bytes:
            return {"status": "fatal", "reasons": f"oversized: {size} bytes"}
        fetched = fetch(lambda: self._source.read(uri), self._config.attempts)
        if fetched.content is None:
            error = fetched.error or ArchiveError("unreadable", "no bytes")
            return {"status": "fatal", "reasons": str(self._door.error(error))}
        verdict = validate(fetched.content, uri, self._config.validation, self._config.limits)
        problems = self._door.problems(verdict.problems)
        return {"status": verdict.status, "reasons": describe(problems)}


def describe(problems: Sequence[Problem]) -> str:
    """The problem codes, each with its first place: ``missing_lead (event_1001/ecg/aVL)``."""
    first = {problem.code: problem for problem in reversed(problems)}
    return ", ".join(f"{code} ({problem.where or problem.detail})" for code, problem in sorted(first.items()))


def print_validation(config: BackfillConfig, console: Console) -> None:
    """Prints ``status  uri  reasons`` for every archive, sorted by URI.

    Raises:
        RejectLimitError: a larger share than allowed is fatal.
    """
    pseudonyms = Pseudonymiser.from_environment() if config.pseudonymise else None
    with quiet_errors(config.pseudonymise):
        _print(config, pseudonyms, console)


def _print(config: BackfillConfig, pseudonyms: Pseudonymiser | None, console: Console) -> None:
    found = name_archives(list_archives(config), Door(pseudonyms)).sort_by("uri")
    listing = found.select([name for name in ("uri", "size", "source_uri") if name in found.column_names])
    blocks = [listing.slice(at, ARCHIVES_PER_TASK) for at in range(0, listing.num_rows, ARCHIVES_PER_TASK)]
    statuses: list[str] = []
    if blocks:
        with ray_session() as cluster:
            context = ray.data.DataContext.get_current()
            context.enable_progress_bars = False
            context.execution_options.preserve_order = True
            judged = ray.data.from_arrow(blocks).map_batches(
                ValidateArchives,
                fn_constructor_args=(config, pseudonyms.fingerprint if pseudonyms else None),
                batch_size=None,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=min(len(blocks), max(1, int(cluster.num_cpus)))),
                num_cpus=FEEDER_CPUS,
            )
            for row in judged.iter_rows():
                statuses.append(row["status"])
                console.print(
                    printable(f"{row['status']:<9}{row['uri']}  {row['reasons']}"),
                    highlight=False,
                    soft_wrap=True,
                    markup=False,
                )
    counts = count_status(statuses)
    console.print(f"{len(statuses):,} archives: {counts}", highlight=False)
    if statuses and counts.get("fatal", 0) / len(statuses) > config.max_reject_fraction:
        raise RejectLimitError(f"{counts['fatal']} of {len(statuses)} archives cannot be used")
