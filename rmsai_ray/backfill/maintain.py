"""Maintenance of a lake: few large files, old versions gone, old results in an archive; same answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from rmsai_ray import ids
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.detectors import NONE
from rmsai_ray.backfill.flow import backfill
from rmsai_ray.errors import ConfigError, LakeError
from rmsai_ray.logs import remove_old_logs
from rmsai_ray.runs import RunRecord, command_line, now
from rmsai_ray.storage import Store
from rmsai_ray.tables import parts
from rmsai_ray.tables.compaction import compact_parts, compact_vectors, remove_old_versions
from rmsai_ray.tables.formats import embedding_formats
from rmsai_ray.tables.lake import Lake, open_lake
from rmsai_ray.tables.lease import Confirm, Lease
from rmsai_ray.tables.retention import bring_back, check_period, move_out
from rmsai_ray.tables.units import settle
from rmsai_ray.tables.usage import FileCount, count_files
from rmsai_ray.tables.vector_index import ensure_index
from rmsai_ray.tables.vectors import VectorTable

DEMO_PATIENTS, DEMO_EVENTS, DEMO_SEED = 6, 1, 2028


@dataclass(frozen=True, kw_only=True)
class MaintainConfig:
    """Compacts a lake's Parquet parts and LanceDB table, and moves old results to an archive or back."""

    lake: str
    """The lake of finished backfills: a folder or s3://bucket/prefix."""
    model: str | None = None
    """Id of the model in the lake; needed where it holds several."""
    target_recall: float = 0.99
    """Recall@10 that the vector index must show, else the job fails; a small table needs no index."""
    keep_versions_days: float = 7.0
    """Versions of the LanceDB table younger than this stay, for those who are reading them."""
    archive_older_than_months: int | None = None
    """Windows and events whose period lies more months back than this move to the archive."""
    restore_since: str | None = None
    """YYYY-MM: what the archive holds of this and later periods comes back."""
    archive: str | None = None
    """The archive: a folder or s3://bucket/prefix; else LAKE/archived."""
    embeddings: Literal["float32", "float16"] | None = None
    """What LanceDB has embeddings in from now on, instead of what it has; Parquet keeps 32 bits."""
    keep_logs_days: float = 90.0
    """Logs of runs younger than this stay; run records stay for ever."""
    demo: bool = False
    """First fill the lake with simulated patients, each in parts of its own, if it is empty."""

    def __post_init__(self) -> None:
        for name in ("keep_versions_days", "keep_logs_days"):
            if getattr(self, name) < 0:
                raise ConfigError(name, getattr(self, name), "is negative", "Give 0 or more.")
        months = self.archive_older_than_months
        if months is not None and months < 0:
            raise ConfigError("archive_older_than_months", months, "is negative", "Give 0 or more.")
        if self.restore_since is not None:
            check_period(self.restore_since)
            if months is not None:
                fix = "Do one after the other."
                raise ConfigError("restore_since", self.restore_since, "is the opposite of archiving", fix)

    @property
    def archive_uri(self) -> str:
        """Where old results go."""
        return self.archive or f"{self.lake.rstrip('/')}/archived"


def maintain(config: MaintainConfig) -> str:
    """Settles what is finished, then moves, compacts and cleans up, alone on the lake; returns the run's id.

    Raises:
        ConfigError: no such lake or model.
        LakeError: nothing is published, another run holds the lake, no index reaches the recall, or rows
            got lost, which must not be.
    """
    console = Console()
    if config.demo:
        make_demo_lake(config.lake)
    lake = open_lake(config.lake, config.model)
    run_id = ids.run_id("maintain", asdict(config) | {"model": lake.model_id})
    record = RunRecord(run_id=run_id, job="maintain", argv=command_line(), config=asdict(config))
    store = Store(config.lake)
    with Lease(store, run_id) as lease, _recorded(record, store):
        before = count_files(lake)
        record.facts["model"] = {"model_id": lake.model_id}
        record.counts |= _maintain(config, lake, store, lease.confirm)
        after = count_files(Lake(lake.uri, lake.model_id))
        record.counts |= {"before": _plain(before), "after": _plain(after)}
    print_counts(console, before, after, record.counts)
    return run_id


def _maintain(config: MaintainConfig, lake: Lake, store: Store, confirm: Confirm) -> dict[str, Any]:
    """Everything that changes the lake; returns how many parts moved to the archive or back, and how windows
    are searched now."""
    model_id = lake.model_id
    dim = lake.vectors().schema.field("embedding").type.list_size
    vectors = VectorTable(store.uri, model_id, dim)
    manifest = settle(store, vectors, model_id, confirm)
    parts.remove_unfinished(store, model_id, manifest.unit_ids, confirm)
    moved = []
    if config.restore_since is not None:
        archive = Store(config.archive_uri)
        moved = bring_back(store, vectors, model_id, manifest, archive, since=config.restore_since)
    if config.archive_older_than_months is not None:
        first_kept = months_before(now(), config.archive_older_than_months)
        moved = move_out(store, vectors, model_id, Store(config.archive_uri), before=first_kept)
    compact(store, vectors, lake, manifest.unit_ids)
    if config.embeddings is not None:
        set_embeddings(Lake(lake.uri, model_id), vectors, config.embeddings, config.target_recall)
    index = ensure_index(vectors, target_recall=config.target_recall)
    remove_old_versions(vectors, timedelta(days=config.keep_versions_days))
    removed_logs = remove_old_logs(store, config.keep_logs_days)
    return {"moved_parts": len(moved), "index": asdict(index), "removed_logs": removed_logs}


def compact(store: Store, vectors: VectorTable, lake: Lake, units: set[str]) -> None:
    """Compacts both stores.

    Raises:
        LakeError: a table has another number of rows than before.
    """
    before = count_files(Lake(lake.uri, lake.model_id))
    compact_parts(store, lake.model_id, units)
    compact_vectors(vectors)
    after = count_files(Lake(lake.uri, lake.model_id))
    for name, count in before.items():
        if after[name].num_rows != count.num_rows:
            raise LakeError(
                f"{name} had {count.num_rows} rows and has {after[name].num_rows} after compaction"
            )


def set_embeddings(lake: Lake, vectors: VectorTable, kind: str, target_recall: float) -> None:
    """Writes the LanceDB table anew from the record, unless its embeddings are what they should be.

    Raises:
        LakeError: a sample's ten nearest would not be found as they must be; nothing was changed.
    """
    values = getattr(pa, kind)()
    if vectors.open().schema.field("embedding").type.value_type == values:
        return
    found = embedding_formats(lake).set_index("format")["recall_at_10"]
    if not found.empty and found[kind] < target_recall:
        raise LakeError(f"with {kind} embeddings recall@10 is {found[kind]:.4f}, less than {target_recall}")
    columns = [name for name in lake.dataset("windows").schema.names if name != "period"]
    vectors.rewrite(lake.dataset("windows").to_batches(columns=columns), values)


def months_before(time: datetime, months: int) -> str:
    """The month that lies ``months`` before a time, as ``YYYY-MM``."""
    month = time.year * 12 + time.month - 1 - months
    return f"{month // 12:04}-{month % 12 + 1:02}"


def print_counts(
    console: Console, before: dict[str, FileCount], after: dict[str, FileCount], facts: dict[str, Any]
) -> None:
    """Files, rows and bytes of every table, before and after; what moved; how windows are searched now."""
    table = Table(title="Maintenance", title_justify="left")
    table.add_column("table")
    for column in ("files before", "after", "rows before", "after", "MiB before", "after"):
        table.add_column(column, justify="right")
    for name, old in before.items():
        new = after[name]
        pairs = ((old.num_files, new.num_files), (old.num_rows, new.num_rows))
        cells = [f"{count:,}" for pair in pairs for count in pair]
        table.add_row(name, *cells, *(f"{count.num_bytes / 2**20:,.2f}" for count in (old, new)))
    console.print(table)
    if facts["moved_parts"]:
        console.print(f"{facts['moved_parts']} parts moved to the archive or back")
    index = facts["index"]
    if index["probes"] is None:
        console.print("search compares with every window")
    else:
        made = "new index" if index["built"] else "index"
        console.print(f"{made}, recall@10 {index['recall']:.4f}, {index['num_unindexed']:,} windows outside")


def make_demo_lake(lake_uri: str) -> None:
    """Simulated patients, backfilled beside the lake in units of one archive; done once."""
    archives = Store(f"{lake_uri.rstrip('/')}/demo-archives")
    present = {info.key for info in archives.list()}
    for patient in range(DEMO_PATIENTS):
        name, content = simulate_archive(patient, DEMO_EVENTS, seed=DEMO_SEED)
        if name not in present:
            archives.put(name, content)
    backfill(BackfillConfig(archives=archives.uri, lake=lake_uri, detectors=NONE, unit_bytes=1))


@contextmanager
def _recorded(record: RunRecord, store: Store) -> Iterator[None]:
    record.begin(store)
    try:
        yield
    except BaseException as error:
        record.finish(store, "failed", repr(error))
        raise
    record.finish(store, "done")


def _plain(counts: dict[str, FileCount]) -> dict[str, Any]:
    return {name: asdict(count) for name, count in counts.items()}
