"""The backfill, top to bottom: plan → read → encode → write → settle → summary."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from rmsai_ray.backfill.bounds import binding_bound
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.demo import make_demo_archives
from rmsai_ray.backfill.estimate import estimate, print_estimate
from rmsai_ray.backfill.pipeline import run_units
from rmsai_ray.backfill.plan import list_archives, name_archives
from rmsai_ray.backfill.progress import follow
from rmsai_ray.backfill.report import Summary, print_summary
from rmsai_ray.backfill.resolve import Run, find_todo, plan_units, resolve, shelve, tasks_of
from rmsai_ray.backfill.space import check_space, check_space_left
from rmsai_ray.backfill.validation import print_validation
from rmsai_ray.backfill.watch import watch
from rmsai_ray.backfill.written import written_tables
from rmsai_ray.compute import Cluster, plan_stages
from rmsai_ray.errors import RejectLimitError
from rmsai_ray.job import StopRequested, given_cluster, ray_session
from rmsai_ray.metrics import METER
from rmsai_ray.models.profiles import DEFAULT_PROFILE
from rmsai_ray.privacy import WITHHELD, describe_error, quiet_errors
from rmsai_ray.runs import JsonLog, RunRecord, command_line
from rmsai_ray.tables import parts
from rmsai_ray.tables.lease import Lease
from rmsai_ray.tables.manifest import count_by_status
from rmsai_ray.tables.privacy_mark import mark_lake
from rmsai_ray.tables.units import preview, settle

UNIT_FIELDS = ("unit_id", "archives", "counts", "rejects", "seconds", "num_bytes")
"""Of a unit's report, for the log; the worker that did it wrote a line for each archive."""

log = logging.getLogger(__name__)


def backfill(config: BackfillConfig) -> None:
    """Runs a backfill, or with ``watch`` one after the other.

    Raises:
        ConfigError: before Ray starts.
        RejectLimitError: it ended, with more quarantined archives than allowed.
    """
    console = Console()
    if config.demo:
        make_demo_archives(config.archives)
    if config.validate_only:
        print_validation(config, console)
        return
    with quiet_errors(config.pseudonymise):
        run = resolve(config)
        if config.watch is None:
            with given_cluster():
                backfill_once(run, console)
            return
    watch(config, lambda run, listing: backfill_once(run, console, listing))


def backfill_once(run: Run, console: Console, listing: pa.Table | None = None) -> Summary:
    """Brings the lake up to date with the archives, each once; ``listing`` is what there is, where known."""
    config, model_id = run.config, run.bundle.model_id
    started = time.perf_counter()
    if listing is None:
        listing = name_archives(list_archives(config), run.door)
    if listing.num_rows == 0:
        where = WITHHELD if config.pseudonymise else config.archives
        console.print(f"No archives (*.h5, *.hdf5) below {where} that the filters let through.")
    if config.dry_run:
        todo = find_todo(run, listing, preview(run.lake, model_id))
        listing_s = time.perf_counter() - started
        expected = (
            estimate(run, todo, num_listed=listing.num_rows, listing_s=listing_s) if todo.num_rows else None
        )
        print_estimate(console, listing.num_rows, todo.num_rows, expected)
        return Summary()
    summary, bound = Summary(), None
    lease = Lease(run.lake, run.run_id, on_renewal=METER.lease_renewed)
    with lease, recorded(run, summary) as record:
        run = replace(run, epoch=lease.epoch)
        mark_lake(run.lake, run.fingerprint)
        manifest = settle(run.lake, run.vectors, model_id, lease.confirm)  # what a killed run had finished
        parts.remove_unfinished(run.lake, model_id, manifest.unit_ids, lease.confirm)
        todo = find_todo(run, listing, manifest)
        is_new = not manifest.rows.num_rows
        if todo.num_rows:
            todo_bytes = pc.sum(todo["size"]).as_py()
            check_space(run.lake, todo_bytes=todo_bytes, min_free_bytes=config.min_free_bytes)
            shelve(run)
            run.vectors.ensure_exists()
            with ray_session() as cluster:
                process(run, todo, summary, record, console, cluster)
                lease.confirm()
                with METER.commit():
                    manifest = settle(run.lake, run.vectors, model_id, lease.confirm)
                run.vectors.absorb_new_rows()
            bound = binding_bound(summary, run.lake, run.bundle, on_gpu=config.num_gpus > 0)
            record.written = written_tables(run, summary, is_new=is_new)
            record.facts["binding"] = asdict(bound) if bound else None
    counts = count_by_status(listing, manifest)  # they add up to the listing
    print_summary(
        console,
        summary,
        listing=counts,
        places=places(run),
        elapsed_s=time.perf_counter() - started,
        binding=str(bound) if bound else None,
    )
    check_rejects(counts, config.max_reject_fraction)
    return summary


def process(
    run: Run, todo: pa.Table, summary: Summary, record: RunRecord, console: Console, cluster: Cluster
) -> None:
    """Reads, encodes and writes every unit on Ray; counts as they finish."""
    stages = plan_stages(cluster, num_encoders=run.config.num_encoders, num_gpus=run.config.num_gpus)
    units = plan_units(run, todo, num_workers=stages.num_encoders)
    record.facts["resources"] = {**asdict(cluster), **asdict(stages)}
    log.info("planned", extra={"fields": {"archives": todo.num_rows, "units": len(units)}})
    tasks = tasks_of(run, on_gpu=stages.encoder_num_gpus > 0, log_prefix=record.log_prefix)
    METER.run_began("backfill", run.run_id, run.bundle.model_id)
    METER.queue(planned=len(units), written=0, workers=stages.num_encoders)
    for report in follow(run_units(units, tasks, stages), units, console):
        summary.add(report)
        check_space_left(run.lake, min_free_bytes=run.config.min_free_bytes)
        METER.unit(report)
        METER.queue(planned=len(units), written=summary.num_units, workers=stages.num_encoders)
        log.info("unit", extra={"fields": {key: report[key] for key in UNIT_FIELDS}})


@contextmanager
def recorded(run: Run, summary: Summary) -> Iterator[RunRecord]:
    """Writes the run record before and after, and the log of what happens in between."""
    started = time.perf_counter()
    record = RunRecord(
        run_id=run.run_id,
        job="backfill",
        argv=[command_line()[0], WITHHELD] if run.config.pseudonymise else command_line(),
        config=run.config.recorded(),
        facts={
            "model": {
                "name_or_path": run.config.model or run.config.profile or DEFAULT_PROFILE,
                "model_id": run.bundle.model_id,
            },
            "registered": run.registered,
            "threshold_profile": {"name": run.scoring.profile.name, "version": run.scoring.profile.version},
            "detector": run.scoring.detector,
            "detector_set": run.scoring.detector_set,
            "pseudonyms": run.fingerprint,
        },
    )
    record.begin(run.lake)
    logs = JsonLog(run.lake, run.run_id, record.log_prefix)
    logging.getLogger("rmsai_ray").addHandler(logs)
    status, error = "failed", None
    try:
        yield record
        status = "done"
    except (StopRequested, KeyboardInterrupt) as reason:
        status, error = "stopped", repr(reason)
        raise
    except BaseException as reason:
        error = describe_error(reason, quiet=run.config.pseudonymise)
        raise
    finally:
        logging.getLogger("rmsai_ray").removeHandler(logs)
        logs.flush()
        record.counts = summary.to_json()
        record.timings_s = {**summary.seconds, "elapsed": time.perf_counter() - started}
        record.finish(run.lake, status, error)
        METER.run_ended("backfill", status)


def places(run: Run) -> dict[str, str]:
    """Where everything lies, and what to type next."""
    lake = run.lake
    return {
        "tables": lake.child_uri("{archives,events,windows,rejects}/"),
        "vectors": run.vectors.uri,
        "run record": lake.child_uri(f"runs/{run.run_id}/run.json"),
        "next": f"rmsai stats --lake {run.config.lake}",
    }


def check_rejects(counts: dict[str, int], allowed: float) -> None:
    """Raises RejectLimitError where too large a share of the listing is quarantined."""
    quarantined, listed = counts.get("quarantined", 0), sum(counts.values())
    if listed and quarantined / listed > allowed:
        raise RejectLimitError(
            f"{quarantined} of {listed} archives are quarantined, more than the allowed {allowed:.1%}. "
            "The rest is committed. See the rejects table for the reasons."
        )
