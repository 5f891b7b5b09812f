"""When a model is trained further, and what speaks against it; what a night records of itself."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from rmsai_ray.monitoring.features import Slice
from rmsai_ray.nightly import retraining
from rmsai_ray.nightly.config import AlertBounds, NightlyConfig, Retraining
from rmsai_ray.nightly.drift_page import drift_section
from rmsai_ray.nightly.findings import findings_of
from rmsai_ray.nightly.pages import Page, as_html, as_markdown
from rmsai_ray.nightly.retraining import Occasion, consider
from rmsai_ray.nightly.state import NightState
from rmsai_ray.registry import CHAMPION, ModelRegistry
from rmsai_ray.storage import Store
from tests.lake_builder import MODEL_A, build_lake

NIGHT = date(2026, 10, 20)
DRIFT = {"severity": "critical", "drifted": ["worst_error"]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of three patients, and a registry."""
    folder = tmp_path_factory.mktemp("night")
    build_lake(folder / "lake", (MODEL_A,))
    ModelRegistry(str(folder / "registry")).register("ward", "framed-2400x64", alias=CHAMPION)
    return folder


def ask(home: Path, *, drift: Any = None, age: float | None = None, **options: Any) -> dict[str, Any]:
    settings = Retraining(**{"mode": "dry", "min_patients": 3, **options})
    config = NightlyConfig(
        archives=str(home / "archives"),
        lake=str(home / "lake"),
        registry=str(home / "registry"),
        model="ward@champion",
        retraining=settings,
    )
    occasion = Occasion(night=NIGHT, rows=Slice(), model_id=MODEL_A, model_age_days=age, drift=drift)
    return consider(config, Store(config.lake), occasion)


def test_reasons(home: Path) -> None:
    assert ask(home, mode="off")["status"] == "off"
    assert ask(home, age=400.0)["status"] == "no_reason"
    assert ask(home, drift=DRIFT, on_drift=False)["status"] == "no_reason"
    assert ask(home, drift={**DRIFT, "severity": "warning"})["status"] == "no_reason"
    assert ask(home, drift=DRIFT)["reasons"] == ["drift: worst_error"]
    assert ask(home, age=400.0, after_days=365.0)["reasons"] == ["age: 400 days are more than 365"]
    assert ask(home, after_patients=2)["reasons"] == ["volume: 2 patients since the last training"]
    assert ask(home, after_patients=3)["status"] == "no_reason"


def test_what_speaks_against_it(home: Path) -> None:
    few = ask(home, drift=DRIFT)
    assert few["status"] == "refused"
    assert few["against"] == ["2 new patients are fewer than 3", "both parts need 3 patients"]


def test_at_most_one_in_a_period(home: Path) -> None:
    store = Store(str(home / "lake"))
    state = NightState(store=store, night="2026-10-10")
    until = datetime(2020, 1, 1, tzinfo=UTC).isoformat()
    state.put("retraining", {"result": {"challenger": "m", "until": until}})
    assert "10 days ago" in ask(home, drift=DRIFT, every_days=30)["against"][0]
    assert "10 days ago" not in " ".join(ask(home, drift=DRIFT, every_days=10)["against"])
    state.forget(("retraining",))


def test_who_is_known_takes_no_part(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody of the model's own patients decides, or trains again, as somebody new."""
    assert ask(home, drift=DRIFT)["patients"] == {"learning": 1, "held_out": 1}
    monkeypatch.setattr(retraining, "known_parts", lambda ancestors: {"PT1000": "train"})
    assert ask(home, drift=DRIFT)["patients"] == {"learning": 1, "held_out": 0}


def test_the_record_hides_what_may_be_secret() -> None:
    config = NightlyConfig(
        archives="s3://ward/smith",
        lake="l",
        pseudonymise=True,
        alerts=AlertBounds(webhook="https://pager/secret-path", expect=("smith/",)),
    )
    text = repr(config.recorded(NIGHT))
    assert "secret-path" not in text
    assert "smith" not in text
    assert "pager" in text


@pytest.mark.parametrize(
    ("free_gib", "level", "severity"),
    [
        (0.5, "firing", "critical"),
        (1.5, "firing", "warning"),
        (2.2, "between", "warning"),
        (9.0, "clear", "warning"),
    ],
)
def test_disk_space(free_gib: float, level: str, severity: str) -> None:
    gib = 1 << 30
    inventory = {"arrived": {}, "free_bytes": free_gib * gib, "need_bytes": gib, "model_age_days": None}
    [_, disk] = findings_of({"inventory": inventory}, {}, AlertBounds())
    assert (disk.kind, disk.level, disk.severity) == ("disk_space", level, severity)


def test_rates_and_quarantine() -> None:
    def rate(low: float, patients: int = 20) -> dict[str, float]:
        return {"value": low + 0.1, "low": low, "high": low + 0.2, "windows": 100, "patients": patients}

    figures = {
        "archives": {"committed": 8, "quarantined": 2},
        "quarantine_reasons": {"not_hdf5": 2},
        "rates": {"all": rate(0.45), "Normal": rate(0.16)},
    }
    found = findings_of({"backfill": {"figures": figures, "model_id": "m"}}, {}, AlertBounds())
    levels = {(one.kind, one.subject): one.level for one in found}
    assert levels == {
        ("failed_step", ""): "clear",
        ("anomaly_rate", "all"): "between",
        ("anomaly_rate", "Normal"): "firing",
        ("quarantine_rate", ""): "firing",
    }
    assert "not_hdf5 2" in found[-1].detail
    figures["rates"] = {"all": rate(0.9, patients=2)}
    found = findings_of({"backfill": {"figures": figures, "model_id": "m"}}, {}, AlertBounds())
    assert [one.kind for one in found] == ["failed_step", "quarantine_rate"]  # too few patients for a rate


def test_a_page_of_drift_where_nothing_differs() -> None:
    row = {"ks": 0.0, "chance": 0.1, "p_value": 1.0, "num_patients": 9, "is_drift": False}
    report = {
        "detail": "no feature of 2 has drifted",
        "features": [
            {**row, "feature": "<b>", "psi": 0.0, "energy": None},
            {**row, "feature": "embedding", "psi": None, "ks": None, "energy": 0.0},
        ],
        "num_recent_patients": 9,
        "num_reference_patients": 9,
        "reference": {"source": "a test"},
        "left_out": {"Temp": "2 patients have it"},
    }
    page = Page(title="Drift", verdict="quiet", tone="quiet", sections=[drift_section(report, 0.1)])
    assert "Not compared: Temp: 2 patients have it." in as_markdown(page)
    assert "&lt;b&gt;" in as_html(page)
    assert "<b>" not in as_html(page)
