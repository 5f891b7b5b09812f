"""Makes archives on Ray and writes each one once; knows nothing of what is in them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import ray
from rich.console import Console

from rmsai_ray import ids
from rmsai_ray.errors import ArchiveError, ConfigError, RejectLimitError
from rmsai_ray.job import ray_session
from rmsai_ray.runs import RunRecord, command_line
from rmsai_ray.storage import Store

MAX_ITEMS_PER_TASK = 64
TASKS_PER_CPU = 8
"""Small enough tasks that cores finish together."""

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Item(Generic[T]):
    """One archive to make."""

    key: str
    """Where it goes, below the output."""
    source: T
    """What it is made from."""


@dataclass(frozen=True)
class Made:
    """The bytes of an archive or pack, with what there is to say about them."""

    content: bytes
    notes: dict[str, str] = field(default_factory=dict)
    """Subject → what happened to it."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one item."""

    key: str
    num_bytes: int = 0
    notes: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    """``<reason>: <detail>`` where no archive could be made."""


@dataclass(frozen=True, kw_only=True)
class Plan(Generic[T]):
    """Archives to make, and the options that decide what they are."""

    job: str
    options: dict[str, Any]
    """Every option that can change a byte."""
    items: Sequence[Item[T]]
    make: Callable[[T], bytes | Made]
    """Raises ArchiveError where nothing can be made."""
    noun: str = "archives"
    """What the items are."""
    num_present: int = 0
    """Made earlier, and therefore not among the items."""
    rejected: dict[str, str] = field(default_factory=dict)
    """Sources that planning had to give up already, with their reasons."""
    max_reject_fraction: float = 0.0

    @property
    def run_id(self) -> str:
        """The job and its options; the same again goes on where it stopped."""
        return ids.run_id(self.job, self.options)


def produce(plan: Plan[T], output_uri: str) -> None:
    """Makes and writes the archives of a plan that are not there yet; with none missing it writes nothing.

    Raises:
        ConfigError: archives of other options lie under the same names; raised before Ray starts.
        RejectLimitError: all others are written, but too many could not be made.
    """
    console, started = Console(), time.perf_counter()
    store = Store(output_uri)
    todo = _missing(plan, store)
    outcomes: list[Outcome] = []
    if todo:
        record = RunRecord(run_id=plan.run_id, job=plan.job, argv=command_line(), config=plan.options)
        record.begin(store)
        try:
            outcomes = _run(todo, plan.make, store)
        except BaseException as error:
            record.finish(store, "failed", repr(error))
            raise
        record.counts = _counts(plan, outcomes)
        record.facts["rejects"] = plan.rejected | _errors(outcomes)
        record.facts["notes"] = _notes(outcomes)
        record.finish(store, "done")
    _report(console, plan, outcomes, store, time.perf_counter() - started)


def make_and_write(
    store: Store, make: Callable[[T], bytes | Made], items: Sequence[Item[T]]
) -> list[Outcome]:
    """The work of one task."""
    return [_make_one(store, make, item) for item in items]


def _make_one(store: Store, make: Callable[[T], bytes | Made], item: Item[T]) -> Outcome:
    try:
        made = make(item.source)
    except ArchiveError as error:
        return Outcome(key=item.key, error=str(error))
    made = made if isinstance(made, Made) else Made(made)
    store.put(item.key, made.content)
    return Outcome(key=item.key, num_bytes=len(made.content), notes=made.notes)


def _missing(plan: Plan[T], store: Store) -> list[Item[T]]:
    present = {info.key for info in store.list()}
    todo = [item for item in plan.items if item.key not in present]
    is_ours = f"runs/{plan.run_id}/run.json" in present
    if len(todo) < len(plan.items) and not is_ours:
        taken = next(item.key for item in plan.items if item.key in present)
        raise ConfigError(
            "output", store.uri, f"has {taken} already, made with other options", "Choose another output."
        )
    return todo


def _run(items: Sequence[Item[T]], make: Callable[[T], bytes | Made], store: Store) -> list[Outcome]:
    """Spreads the items over the cluster. What an archive holds does not depend on how."""
    with ray_session() as cluster:
        task = ray.remote(make_and_write)
        size = min(MAX_ITEMS_PER_TASK, 1 + len(items) // (max(1, int(cluster.num_cpus)) * TASKS_PER_CPU))
        batches = [items[at : at + size] for at in range(0, len(items), size)]
        waiting = [task.remote(store, make, batch) for batch in batches]
        outcomes: list[Outcome] = []
        while waiting:
            done, waiting = ray.wait(waiting)
            outcomes += ray.get(done[0])
            log.info("%d of %d", len(outcomes), len(items))
    return sorted(outcomes, key=lambda outcome: outcome.key)


def _errors(outcomes: Sequence[Outcome]) -> dict[str, str]:
    return {outcome.key: outcome.error for outcome in outcomes if outcome.error is not None}


def _notes(outcomes: Sequence[Outcome]) -> dict[str, str]:
    return {subject: note for outcome in outcomes for subject, note in outcome.notes.items()}


def _counts(plan: Plan[T], outcomes: Sequence[Outcome]) -> dict[str, int]:
    num_failed = len(_errors(outcomes))
    return {
        "planned": len(plan.items) + len(plan.rejected),
        "written": len(outcomes) - num_failed,
        "present": plan.num_present + len(plan.items) - len(outcomes),
        "rejected": num_failed + len(plan.rejected),
        "bytes": sum(outcome.num_bytes for outcome in outcomes),
    }


def _report(
    console: Console, plan: Plan[T], outcomes: Sequence[Outcome], store: Store, elapsed_s: float
) -> None:
    counts = _counts(plan, outcomes)
    for name, error in (plan.rejected | _errors(outcomes)).items():
        console.print(f"rejected {name}: {error}", highlight=False, soft_wrap=True, markup=False)
    for subject, note in _notes(outcomes).items():
        console.print(f"{subject}: {note}", highlight=False, soft_wrap=True, markup=False)
    if not outcomes:
        console.print(f"Nothing to do: {counts['present']} {plan.noun} are in {store.uri}", soft_wrap=True)
    else:
        console.print(
            f"{counts['written']} {plan.noun} ({counts['bytes'] / 2**20:.1f} MiB) written to {store.uri} "
            f"in {elapsed_s:.1f} s, {counts['present']} were there, {counts['rejected']} rejected",
            soft_wrap=True,
        )
    if counts["rejected"] > plan.max_reject_fraction * counts["planned"]:
        raise RejectLimitError(
            f"{counts['rejected']} of {counts['planned']} records gave no archive; "
            f"allowed are {plan.max_reject_fraction:.0%}"
        )
