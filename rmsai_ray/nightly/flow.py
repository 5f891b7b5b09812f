"""The night, top to bottom: which nights are due → their steps, one after the other → exit code.

inventory → backfill → detectors → drift → alerts → maintenance → retraining → report
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from rich.console import Console

from rmsai_ray import ids
from rmsai_ray.errors import AlertsRaisedError, LakeHeldError, RejectLimitError, RmsaiError
from rmsai_ray.job import EXIT_ALERTS, EXIT_CRITICAL_ALERTS, EXIT_TOO_MANY_REJECTS, ray_session
from rmsai_ray.nightly.config import NightlyConfig
from rmsai_ray.nightly.demo import FIRST_DAY, NUM_DAYS, make_day, register_demo_model
from rmsai_ray.nightly.report import write_report
from rmsai_ray.nightly.state import (
    BEGIN,
    FOLDER,
    LAST_STEP,
    NightState,
    Result,
    due_nights,
    previous_night,
    time_of,
)
from rmsai_ray.nightly.steps import STEPS, Night
from rmsai_ray.privacy import WITHHELD
from rmsai_ray.runs import JsonLog, RunRecord, command_line, now
from rmsai_ray.storage import Store
from rmsai_ray.tables.lease import Lease

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Outcome:
    """What the nights of one invocation came to."""

    nights: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    too_many_rejects: list[str] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)

    def tell(self) -> None:
        """Raises the worst of it, if there is something to raise."""
        if self.failed:
            raise RmsaiError("; ".join(self.failed) + ". The same command goes on from here.")
        if self.too_many_rejects:
            raise RejectLimitError("; ".join(self.too_many_rejects))
        if self.alerts:
            lines = [f"{row['kind']} {row['subject']}".strip() + f": {row['detail']}" for row in self.alerts]
            is_critical = any(row["severity"] == "critical" for row in self.alerts)
            raise AlertsRaisedError("; ".join(lines), is_critical=is_critical)


def nightly(config: NightlyConfig) -> None:
    """Does every night that is due.

    Raises:
        ConfigError: before anything is done.
        LakeHeldError: another night is at work on this lake.
        RmsaiError: a step failed; the others that could be done were done, alerts and report among them.
        RejectLimitError: more archives are quarantined than allowed.
        AlertsRaisedError: a night opened alerts.
    """
    console, store = Console(), Store(config.lake)
    last = config.date or (_last_demo_day() if config.demo else now().date() - timedelta(days=1))
    with _alone(store, config):
        if config.again:
            NightState(store=store, night=last.isoformat()).forget(_step_names())
        due = due_nights(store, last, most=config.catch_up)
        if config.demo:
            due = [day for day in _demo_days(last) if LAST_STEP not in _finished(store, day)]
        if not due:
            console.print(f"Nothing to do: the night of {last} is finished ({_report_uri(store, last)}).")
            return
        outcome = Outcome()
        with ray_session():
            for day in due:
                if config.demo:
                    make_day(config.archives, (day - FIRST_DAY).days + 1)
                    register_demo_model(str(config.registry), str(config.name))
                console.rule(f"Night of {day}")
                run_night(config, store, day, outcome)
                console.print(f"report: {_report_uri(store, day)}", soft_wrap=True)
    outcome.tell()


def run_night(config: NightlyConfig, store: Store, day: date, outcome: Outcome) -> dict[str, Result]:
    """One night, or what is left of it; returns what its steps have said."""
    state = NightState(store=store, night=day.isoformat())
    options = config.result_options() | {"date": day.isoformat()}
    run_id = ids.run_id("nightly", options)
    begun = _begin(state, run_id)
    night = Night(
        config=config,
        store=store,
        date=day,
        run_id=run_id,
        since=time_of(begun["since"]),
        results={},
        failed={},
    )
    with _recorded(store, config, run_id, day) as record:
        steps: list[Result] = []
        for step in STEPS:
            steps.append(_do(night, state, step.name, step.run, step.needs))
        record.facts |= {"night": day.isoformat(), "since": begun["since"], "steps": steps}
        record.timings_s = {step["step"]: step["seconds"] for step in steps}
        if "inventory" in night.results:
            record.facts["model"] = {"model_id": night.model_id}
        write_report(state, night.results, steps, config.alerts, config.drift.min_energy)
        if not night.failed:
            state.put(LAST_STEP, {"step": LAST_STEP, "ended": now().isoformat(), "exit": _exit_of(night)})
    _add(outcome, night)
    return night.results


def _do(night: Night, state: NightState, name: str, run: Any, needs: tuple[str, ...]) -> Result:
    """One step, unless it is finished, or what it needs has failed. A failure is noted, and ends no night."""
    finished = state.find(name)
    if finished is not None:
        night.results[name] = finished["result"]
        return finished | {"status": "done before"}
    missing = [needed for needed in needs if needed not in night.results]
    if missing:
        return {"step": name, "status": "left out", "error": f"needs {', '.join(missing)}", "seconds": 0.0}
    log.info("step", extra={"fields": {"step": name, "night": night.date.isoformat()}})
    began, started = now(), time.perf_counter()
    told: Result = {"step": name, "started": began.isoformat()}
    try:
        result = run(night)
    except LakeHeldError:
        raise  # nothing is wrong with the night: the same command, later
    except Exception as error:
        # Whatever went wrong in one step, the others must tell of it: it becomes an alert and exit code 1.
        log.exception("the step %s failed", name)
        night.failed[name] = f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - started
        return told | {"status": "failed", "error": night.failed[name], "seconds": seconds}
    seconds = round(time.perf_counter() - started, 3)
    told |= {"status": "done", "seconds": seconds, "ended": now().isoformat()}
    told |= {"runs": [f"runs/{result['run']}/run.json"] if result.get("run") else [], "result": result}
    night.results[name] = result
    if name != "alerts" or not night.failed:  # else what failed may end well next time, and be no alert then
        state.put(name, told)
    return told


def _begin(state: NightState, run_id: str) -> Result:
    """Fixes where the night's rows begin, the first time."""
    begun = state.find(BEGIN)
    if begun is None:
        before = previous_night(state.store, state.night)
        backfilled = before.find("backfill") if before else None
        since = backfilled["result"]["until"] if backfilled else None
        begun = {"run_id": run_id, "since": since, "began": now().isoformat()}
        state.put(BEGIN, begun)
    return begun


def _add(outcome: Outcome, night: Night) -> None:
    name = night.date.isoformat()
    outcome.nights.append(name)
    outcome.failed += [f"{name}: {step} failed: {error}" for step, error in night.failed.items()]
    too_many = night.results.get("backfill", {}).get("too_many_rejects")
    outcome.too_many_rejects += [f"{name}: {too_many}"] if too_many else []
    outcome.alerts += night.results.get("alerts", {}).get("opened", [])


def _exit_of(night: Night) -> int:
    """The exit code that this night alone would have."""
    if night.results["backfill"]["too_many_rejects"]:
        return EXIT_TOO_MANY_REJECTS
    return {None: 0, "warning": EXIT_ALERTS, "critical": EXIT_CRITICAL_ALERTS}[
        night.results["alerts"]["worst"]
    ]


@contextmanager
def _alone(store: Store, config: NightlyConfig) -> Iterator[None]:
    """One night at a time on a lake.

    Raises:
        LakeHeldError: another is at work, and where.
    """
    run_id = ids.run_id("nightly", config.result_options())
    lease = Lease(Store(store.child_uri(FOLDER)), run_id)
    try:
        lease.__enter__()
    except LakeHeldError as error:
        raise LakeHeldError(f"another night is at work: {error}") from error
    try:
        yield
    finally:
        lease.__exit__(None, None, None)


@contextmanager
def _recorded(store: Store, config: NightlyConfig, run_id: str, day: date) -> Iterator[RunRecord]:
    argv = [command_line()[0], WITHHELD] if config.pseudonymise else command_line()
    record = RunRecord(run_id=run_id, job="nightly", argv=argv, config=config.recorded(day))
    record.begin(store)
    logs = JsonLog(store, run_id)
    logging.getLogger("rmsai_ray").addHandler(logs)
    status, error = "failed", None
    try:
        yield record
        failed = [step["step"] for step in record.facts["steps"] if step["status"] == "failed"]
        status, error = ("failed", f"failed steps: {failed}") if failed else ("done", None)
    except BaseException as reason:
        error = repr(reason)
        raise
    finally:
        logging.getLogger("rmsai_ray").removeHandler(logs)
        logs.flush()
        record.finish(store, status, error)


def _step_names() -> tuple[str, ...]:
    return (*(step.name for step in STEPS), LAST_STEP)


def _finished(store: Store, day: date) -> set[str]:
    state = NightState(store=store, night=day.isoformat())
    return {LAST_STEP} if state.find(LAST_STEP) else set()


def _demo_days(last: date) -> list[date]:
    return [day for number in range(NUM_DAYS) if (day := FIRST_DAY + timedelta(days=number)) <= last]


def _last_demo_day() -> date:
    return FIRST_DAY + timedelta(days=NUM_DAYS - 1)


def _report_uri(store: Store, day: date) -> str:
    return store.child_uri(NightState(store=store, night=day.isoformat()).key("report.html"))
