"""Backfills one after the other on one Ray, until stopped; one that fails does not end the loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import pyarrow as pa

from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.plan import list_archives, name_archives
from rmsai_ray.backfill.resolve import Run, find_todo, resolve
from rmsai_ray.errors import RejectLimitError, RmsaiError
from rmsai_ray.job import StopRequested, ray_session, stopping_on_sigterm
from rmsai_ray.metrics import METER
from rmsai_ray.privacy import QuietError, quiet_errors
from rmsai_ray.tables import ledger
from rmsai_ray.tables.units import preview

LONGEST_PAUSE_S = 300.0

log = logging.getLogger(__name__)

Work = Callable[[Run, pa.Table], object]
"""Backfills a listing."""


def watch(config: BackfillConfig, work: Work) -> None:
    """Looks for archives every ``config.watch`` seconds; returns when it is stopped while it waits.

    Every cycle resolves model, detectors and thresholds anew, so that a promoted model is the next one's. A
    cycle that fails is logged, and the next one comes later and later, up to five minutes.

    Raises:
        StopRequested: it was stopped at work; what is finished stays.
    """
    seconds, num_failures = config.watch or 0.0, 0
    with stopping_on_sigterm():
        while True:
            try:
                with ray_session():
                    _watch(config, work)
                    return
            except Exception as error:
                # Whatever it was, Ray included: the next archives wait for a loop that goes on.
                num_failures += 1
                log.exception("a cycle failed: %s", type(error).__name__)
            if not _goes_on_after(pause_s(seconds, num_failures)):
                return


def pause_s(seconds: float, num_failures: int) -> float:
    """How long to wait after so many failures one after the other: twice as long each time, within bounds."""
    return max(seconds, min(LONGEST_PAUSE_S, max(1.0, seconds) * 2.0**num_failures))


def _watch(config: BackfillConfig, work: Work) -> None:
    """Until it is stopped while it waits."""
    seconds, num_failures = config.watch or 0.0, 0
    while True:
        try:
            with quiet_errors(config.pseudonymise):
                _cycle(resolve(config), work)
            num_failures = 0
        except QuietError:
            raise  # it may be anything
        except RejectLimitError as error:
            log.warning("%s", error)  # everything else is done
            num_failures = 0
        except RmsaiError as error:
            num_failures += 1
            log.error("a cycle failed: %s", error)
        METER.cycle_ended()
        if not _goes_on_after(pause_s(seconds, num_failures) if num_failures else seconds):
            return


def _cycle(run: Run, work: Work) -> None:
    """Works only if there is something to do: a cycle without leaves neither a record nor a log."""
    listing, model_id = name_archives(list_archives(run.config), run.door), run.bundle.model_id
    todo = find_todo(run, listing, preview(run.lake, model_id))
    if todo.num_rows or ledger.unit_ids(run.lake, model_id):
        work(run, listing)


def _goes_on_after(seconds: float) -> bool:
    """Waits; False where it was stopped meanwhile."""
    try:
        time.sleep(seconds)
    except StopRequested:
        return False
    return True
