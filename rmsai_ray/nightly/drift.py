"""The drift check on its own: a slice of a lake against the model's reference, or a reference made of one."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.table import Table as RichTable

from rmsai_ray import ids
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.flow import backfill
from rmsai_ray.errors import AlertsRaisedError, ConfigError
from rmsai_ray.models.shelf import load_shelved_model
from rmsai_ray.monitoring.drift import DriftLimits, DriftReport, check_drift
from rmsai_ray.monitoring.features import Slice, read_values
from rmsai_ray.monitoring.reference import fit_reference, load_reference, reference_key, save_reference
from rmsai_ray.nightly.demo import FIRST_DAY, PATIENTS_PER_DAY, SHIFTED_DAY, make_day
from rmsai_ray.nightly.drift_page import drift_section
from rmsai_ray.nightly.pages import Page, as_html, as_markdown
from rmsai_ray.runs import RunRecord, command_line
from rmsai_ray.storage import Store, split_object_uri
from rmsai_ray.tables.lake import Lake, open_lake


@dataclass(frozen=True, kw_only=True)
class DriftConfig:
    """Compares rows of a lake with the reference of the model that made them."""

    lake: str
    """The lake of finished backfills: a folder or s3://bucket/prefix."""
    model: str | None = None
    """Id of the model in the lake; needed where it holds several."""
    since: dt.datetime | None = None
    """Only rows after this time (UTC where it names no zone)."""
    until: dt.datetime | None = None
    """Only rows up to this time."""
    by: Literal["committed", "event"] = "committed"
    """The time that counts: when the archive was committed, or when the event happened."""
    period: str = ""
    """Only this month, YYYY-MM."""
    fit_reference: bool = False
    """Make the reference of these rows, instead of comparing them with it."""
    reference: str | None = None
    """File of the reference: a path or s3://… Default: drift/model=…/reference.npz in the lake."""
    limits: DriftLimits = field(default_factory=DriftLimits)
    demo: bool = False
    """First fill the lake with two days of simulated archives, the second from a new amplifier, unless it is
    there; the first day is the reference."""

    @property
    def rows(self) -> Slice:
        """Which rows are meant."""
        times = {name: _utc(getattr(self, name)) for name in ("since", "until")}
        return Slice(**times, by=self.by, period=self.period)


def check(config: DriftConfig) -> None:
    """Checks, or makes a reference; writes a run record, and beside it the report.

    Raises:
        ConfigError: no such lake or model, no reference, or no rows.
        AlertsRaisedError: drift.
    """
    console, store, rows = Console(), Store(config.lake), config.rows
    if config.demo:
        rows = make_demo_lake(config, store)
    lake = open_lake(config.lake, config.model)
    if config.fit_reference:
        reference_of(lake, rows, config, console)
        return
    options = asdict(config) | {"model": lake.model_id, "rows": repr(rows)}
    run_id = ids.run_id("drift", {name: repr(value) for name, value in options.items()})
    with _recorded(store, config, run_id) as record:
        report = compare_rows(lake, store, rows, config)
        record.facts |= {"model": {"model_id": lake.model_id}, "status": report.status}
        record.counts = {"patients": report.num_recent_patients, "windows": report.num_windows}
        write(store, f"runs/{run_id}", report, config.limits)
    print_report(console, report, store.child_uri(f"runs/{run_id}/drift.html"))
    if report.status == "drift":
        raise AlertsRaisedError(report.detail, is_critical=report.severity == "critical")


def compare_rows(lake: Lake, store: Store, rows: Slice, config: DriftConfig) -> DriftReport:
    """The check itself.

    Raises:
        ConfigError: there is no reference, or no row.
    """
    reference = load_reference(store, lake.model_id, config.reference)
    if reference is None:
        fix = "Make one of rows that are as they should be: jobs/drift.py fit-reference --lake …"
        raise ConfigError("reference", None, f"{lake.model_id} has none in this lake", fix)
    values = read_values(lake, rows)
    if not values.patients:
        raise ConfigError("lake", config.lake, "has no rows there", "Choose other times.")
    return check_drift(reference, values, config.limits)


def reference_of(lake: Lake, rows: Slice, config: DriftConfig, console: Console) -> None:
    """Makes the reference of some rows, without patients who trained the model."""
    splits = load_shelved_model(Store(config.lake), lake.model_id).facts.get("splits") or {}
    source = f"rows of the lake chosen by hand, by time {config.by}"
    reference = fit_reference(lake, rows, train_patients=frozenset(splits.get("train", ())), source=source)
    folder, key = config.lake, reference_key(lake.model_id)
    if config.reference is not None:
        folder, key = split_object_uri(config.reference)
    save_reference(Store(folder), reference, key)
    console.print(
        f"reference of {reference.num_patients} patients: {Store(folder).child_uri(key)}", soft_wrap=True
    )


def write(store: Store, folder: str, report: DriftReport, limits: DriftLimits) -> None:
    """``drift.json``, ``drift.md`` with its picture, and ``drift.html``."""
    values = report.to_json()
    section = drift_section(values, limits.min_energy)
    tone = {"none": "quiet"}.get(report.severity, report.severity)
    page = Page(title="Drift", verdict=report.status.replace("_", " "), tone=tone, sections=[section])
    store.put(f"{folder}/drift.json", json.dumps(values, indent=1).encode())
    for picture in section.pictures:
        store.put(f"{folder}/{picture.name}", picture.content)
    store.put(f"{folder}/drift.md", as_markdown(page).encode())
    store.put(f"{folder}/drift.html", as_html(page).encode())


def print_report(console: Console, report: DriftReport, uri: str) -> None:
    """The features, the most unlikely first."""
    table = RichTable(title=f"Drift: {report.status.replace('_', ' ')}", title_justify="left")
    table.add_column("feature")
    for name in ("PSI", "KS", "energy", "chance", "p"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in sorted(report.features, key=lambda row: row.p_value):
        cells = ("" if value is None else f"{value:.2f}" for value in (row.psi, row.ks, row.energy))
        table.add_row(
            row.feature, *cells, f"{row.chance:.2f}", f"{row.p_value:.4f}", "drift" if row.is_drift else ""
        )
    console.print(table)
    console.print(report.detail, soft_wrap=True)
    console.print(f"report: {uri}", soft_wrap=True)


def make_demo_lake(config: DriftConfig, store: Store) -> Slice:
    """Two days of archives, backfilled one after the other; the first one's reference; rows of the second."""
    archives = f"{store.uri}-archives"
    for day in (1, SHIFTED_DAY):
        made = make_day(archives, day)
        backfill(BackfillConfig(archives=archives, lake=config.lake, until=made))
    lake = open_lake(config.lake, config.model)
    times = lake.rows(
        "SELECT committed_time AS time FROM archives WHERE status = 'committed' ORDER BY uri LIMIT ?",
        [PATIENTS_PER_DAY],
    )
    border = max(row["time"] for row in times)
    if load_reference(store, lake.model_id) is None:
        source = f"the demo's first day, {FIRST_DAY}"
        reference = fit_reference(lake, Slice(until=border), train_patients=frozenset(), source=source)
        save_reference(store, reference)
    return Slice(since=border)


@contextmanager
def _recorded(store: Store, config: DriftConfig, run_id: str) -> Iterator[RunRecord]:
    values: dict[str, Any] = asdict(config)
    record = RunRecord(run_id=run_id, job="drift", argv=command_line(), config=values)
    record.begin(store)
    try:
        yield record
    except BaseException as error:
        record.finish(store, "failed", repr(error))
        raise
    record.finish(store, "done")


def _utc(time: dt.datetime | None) -> dt.datetime | None:
    return time.replace(tzinfo=dt.UTC) if time is not None and time.tzinfo is None else time
