"""Which nights are due; a killed night goes on, a failed step stops neither alerts nor report."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from rmsai_ray.errors import AlertsRaisedError, ConfigError, LakeError, RejectLimitError, RmsaiError
from rmsai_ray.nightly import flow
from rmsai_ray.nightly.config import NightlyConfig, Retraining
from rmsai_ray.nightly.flow import Outcome, nightly, run_night
from rmsai_ray.nightly.state import NightState, due_nights, results_before
from rmsai_ray.nightly.steps import Night, Step, alerts
from rmsai_ray.storage import Store
from rmsai_ray.tables.alerts import read_alerts
from rmsai_ray.tables.lease import Lease

DAY = date(2026, 10, 3)
FIGURES: dict[str, Any] = {
    "archives": {"committed": 4},
    "archive_bytes": 10,
    "quarantine_reasons": {},
    "patients": 0,
    "windows": 0,
    "rates": {},
}
INVENTORY: dict[str, Any] = {
    "model_id": "m",
    "model_name": "ward",
    "registered": None,
    "model_age_days": None,
    "detector": "ensemble",
    "detector_set": None,
    "free_bytes": 10 << 30,
    "need_bytes": 1 << 20,
    "listed": 4,
    "arrived": {"": 4},
}


class Steps:
    """Steps that note that they ran; the one named ``broken`` fails, or stops the process."""

    def __init__(self, broken: str = "", error: BaseException | None = None, **results: Any) -> None:
        self.ran: list[str] = []
        self._broken, self._error = broken, error or ValueError("no luck")
        backfill = {"until": "2026-10-04T00:00:00+00:00", "model_id": "m", "too_many_rejects": None}
        self._results = {"inventory": INVENTORY, "backfill": {**backfill, "figures": FIGURES}, **results}

    def all(self) -> tuple[Step, ...]:
        return (
            Step(name="inventory", run=lambda night: self._run("inventory")),
            Step(name="backfill", run=lambda night: self._run("backfill"), needs=("inventory",)),
            Step(name="alerts", run=self._alerts),
            Step(name="maintenance", run=lambda night: self._run("maintenance"), needs=("backfill",)),
        )

    def _run(self, name: str) -> dict[str, Any]:
        self.ran.append(name)
        if name == self._broken:
            raise self._error
        return self._results.get(name, {"done": True})

    def _alerts(self, night: Night) -> dict[str, Any]:
        self._run("alerts")
        return alerts(night)


def night(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: Steps, day: date = DAY
) -> tuple[Outcome, dict[str, Any]]:
    monkeypatch.setattr(flow, "STEPS", steps.all())
    config = NightlyConfig(archives=str(tmp_path / "archives"), lake=str(tmp_path / "lake"))
    outcome = Outcome()
    run_night(config, Store(config.lake), day, outcome)
    [record] = [json.loads(path.read_text()) for path in (tmp_path / "lake/runs").glob("nightly-*/run.json")][
        -1:
    ]
    return outcome, record


def test_a_quiet_night_and_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, record = night(tmp_path, monkeypatch, Steps())
    outcome.tell()
    assert [step["status"] for step in record["facts"]["steps"]] == ["done"] * 4
    assert "Quiet" in (tmp_path / "lake/nights/2026-10-03/report.md").read_text()
    again = Steps()
    night(tmp_path, monkeypatch, again)
    assert again.ran == []
    assert due_nights(Store(str(tmp_path / "lake")), DAY, most=7) == []


@pytest.mark.parametrize("killed_in", ["inventory", "backfill", "maintenance"])
def test_a_killed_night_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    steps = Steps(killed_in, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        night(tmp_path, monkeypatch, steps)
    assert due_nights(Store(str(tmp_path / "lake")), DAY, most=7) == [DAY]
    rest = Steps()
    outcome, _ = night(tmp_path, monkeypatch, rest)
    outcome.tell()
    assert [*steps.ran[:-1], *rest.ran] == ["inventory", "backfill", "alerts", "maintenance"]


def test_a_failed_step_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps("backfill")
    outcome, record = night(tmp_path, monkeypatch, steps)
    assert steps.ran == ["inventory", "backfill", "alerts"]
    with pytest.raises(RmsaiError, match="backfill failed: ValueError: no luck"):
        outcome.tell()
    assert record["status"] == "failed"
    statuses = {step["step"]: step["status"] for step in record["facts"]["steps"]}
    assert statuses == {
        "inventory": "done",
        "backfill": "failed",
        "alerts": "done",
        "maintenance": "left out",
    }
    assert "Failed: backfill" in (tmp_path / "lake/nights/2026-10-03/report.md").read_text()
    [alert] = read_alerts(Store(str(tmp_path / "lake")))
    assert (alert["kind"], alert["severity"], alert["state"]) == ("failed_step", "critical", "open")
    rest = Steps()
    outcome, record = night(tmp_path, monkeypatch, rest)
    assert rest.ran == ["backfill", "alerts", "maintenance"]
    assert record["status"] == "done"
    night(tmp_path, monkeypatch, Steps(), date(2026, 10, 4))
    assert [row["state"] for row in read_alerts(Store(str(tmp_path / "lake")))] == ["resolved"]


def test_missing_data_alarms_once_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {**INVENTORY, "arrived": {"": 0}}
    outcome, _ = night(tmp_path, monkeypatch, Steps(inventory=nothing))
    with pytest.raises(AlertsRaisedError, match="missing_data"):
        outcome.tell()
    outcome, _ = night(tmp_path, monkeypatch, Steps(inventory=nothing), date(2026, 10, 4))
    outcome.tell()  # known already
    [alert] = read_alerts(Store(str(tmp_path / "lake")))
    assert (alert["count"], alert["notices"]) == (2, 1)


def test_rejects_come_before_alerts() -> None:
    outcome = Outcome(too_many_rejects=["3 of 4"], alerts=[{"severity": "critical"}])
    with pytest.raises(RejectLimitError):
        outcome.tell()


def test_missed_nights_are_due(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert due_nights(store, DAY, most=7) == [DAY]
    NightState(store=store, night="2026-09-29").put("report", {})
    assert due_nights(store, DAY, most=7) == [date(2026, 9, 30), date(2026, 10, 1), date(2026, 10, 2), DAY]
    assert due_nights(store, DAY, most=2) == [date(2026, 10, 2), DAY]
    assert due_nights(store, date(2026, 9, 29), most=7) == []


def test_the_latest_nights_before_one(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for day in (1, 2, 3):
        NightState(store=store, night=f"2026-10-0{day}").put("backfill", {"day": day})
    assert list(results_before(store, "2026-10-03", "backfill", most=9)) == ["2026-10-01", "2026-10-02"]
    assert results_before(store, "2026-10-03", "backfill", most=1) == {"2026-10-02": {"day": 2}}
    assert results_before(store, "2026-10-03", "backfill", most=0) == {}


def test_one_night_at_a_time(tmp_path: Path) -> None:
    config = NightlyConfig(archives=str(tmp_path / "archives"), lake=str(tmp_path / "lake"))
    with (
        Lease(Store(str(tmp_path / "lake/nights")), "nightly-other"),
        pytest.raises(LakeError, match=r"another night is at work.*nightly-other"),
    ):
        nightly(config)


def test_rows_begin_where_the_night_before_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night(tmp_path, monkeypatch, Steps())
    night(tmp_path, monkeypatch, Steps(), date(2026, 10, 4))
    begun = NightState(store=Store(str(tmp_path / "lake")), night="2026-10-04").find("begin")
    assert begun is not None
    assert datetime.fromisoformat(begun["since"]) == datetime(2026, 10, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    "options",
    [
        {"retraining": Retraining(mode="on")},
        {"retraining": Retraining(mode="on"), "registry": "r", "model": "m", "pseudonymise": True},
        {"refit_detectors": True},
        {"catch_up": 0},
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        NightlyConfig(archives="a", lake="l", **options)
