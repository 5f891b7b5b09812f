"""The data card of a lake, top to bottom: counts → re-identification lead by lead → JSON and Markdown."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from rmsai_ray import ids
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.detectors import NONE
from rmsai_ray.backfill.flow import backfill
from rmsai_ray.cards.reidentification import (
    FALSE_ACCEPTS,
    Recordings,
    divide_by_session,
    divide_in_time,
    measure,
)
from rmsai_ray.cards.text import WARNING, card_text
from rmsai_ray.encoding.inspection import load_lake_encoder
from rmsai_ray.errors import ConfigError
from rmsai_ray.runs import RunRecord, code_version, command_line, now
from rmsai_ray.storage import Store
from rmsai_ray.tables.data_card import save_card
from rmsai_ray.tables.lake import Lake, open_lake
from rmsai_ray.tables.privacy_mark import read_mark

CARD_VERSION = 1
LEAST_CELL = 10
"""Counts of fewer people are not told."""
DEMO_PATIENTS, DEMO_EVENTS, DEMO_SEED, DEMO_PERIODS = 8, 2, 5, ("2026-10", "2026-11")

WINDOWS = """
SELECT embedding, patient_id, archive_id, period, event_id, start_sample, num_samples,
       epoch_us(event_time) / 1e6 AS event_s
FROM windows
WHERE lead = $lead AND NOT is_tail AND patient_id IN (SELECT unnest($patients::VARCHAR[]))
"""
PERIODS = (
    "SELECT min(period) AS first, max(period) AS last FROM archives WHERE regexp_matches(period, '^\\d')"
)


@dataclass(frozen=True, kw_only=True)
class ReidentifyConfig:
    """Measures how well a lake's embeddings know patients again, and writes the lake's data card."""

    lake: str
    """A backfilled lake: a folder or s3://bucket/prefix."""
    model: str | None = None
    """Which model, where the lake holds several."""
    patients: int = 1000
    """Compare so many at most, drawn at random."""
    windows: int = 50
    """Of each patient and lead, in the gallery and among the probes, so many at most."""
    draws: int = 1000
    """How often patients are drawn again for the intervals."""
    seed: int = 0
    """Of all that is drawn."""
    licence: str = "not stated"
    """Under which terms the data may be used; the card shows it."""
    demo: bool = False
    """First fill the lake with simulated patients, if it is empty."""

    def __post_init__(self) -> None:
        for name, least in (("patients", 2), ("windows", 1), ("draws", 10), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(name, getattr(self, name), f"must be at least {least}", "Give more.")


def reidentify(config: ReidentifyConfig) -> dict[str, Any]:
    """Writes the card; returns it.

    Raises:
        ConfigError: no such lake or model, or fewer than two patients in it.
    """
    if config.demo:
        make_demo_lake(config.lake)
    lake, store = open_lake(config.lake, config.model), Store(config.lake)
    options = {name: getattr(config, name) for name in ("patients", "windows", "draws", "seed")}
    run_id = ids.run_id("reidentify", {**options, "model_id": lake.model_id})
    record = RunRecord(run_id=run_id, job="reidentify", argv=command_line(), config=asdict(config))
    record.begin(store)
    try:
        card = make_card(lake, store, config, run_id)
        save_card(store, lake.model_id, card, text := card_text(card))
    except BaseException as error:
        record.finish(store, "failed", repr(error))
        raise
    record.counts = {"leads": len(card["reidentification"]["leads"])}
    record.finish(store, "done")
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
    return card


def make_card(lake: Lake, store: Store, config: ReidentifyConfig, run_id: str) -> dict[str, Any]:
    """Everything that the card says."""
    patients = [
        row["patient_id"] for row in lake.rows("SELECT DISTINCT patient_id FROM windows ORDER BY ALL")
    ]
    if len(patients) < 2:
        raise ConfigError("lake", config.lake, f"has windows of {len(patients)} patients", "Backfill more.")
    [periods] = lake.rows(PERIODS)
    chosen = sorted(np.random.default_rng(config.seed).permutation(patients)[: config.patients].tolist())
    leads = lake.rows(
        "SELECT lead, count(*) AS num FROM windows GROUP BY lead, lead_number ORDER BY lead_number"
    )
    fs = load_lake_encoder(lake).bundle.spec.sampling_rate_hz
    return {
        "card": CARD_VERSION,
        "warning": WARNING,
        "model": lake.model_id,
        "pseudonyms": read_mark(store),
        "licence": config.licence,
        "period": [periods["first"], periods["last"]],
        "counts": {
            "patients": _told(len(patients)),
            **{name: _count(lake, name) for name in ("archives", "events", "windows", "rejects")},
            "windows_by_lead": {row["lead"]: row["num"] for row in leads},
        },
        "reidentification": {
            "false_accepts": FALSE_ACCEPTS,
            "patients": len(chosen),
            "leads": {row["lead"]: _of_lead(lake, row["lead"], chosen, fs, config) for row in leads},
        },
        "run_id": run_id,
        "code_version": code_version(),
        "made": now().isoformat(),
    }


def _of_lead(
    lake: Lake, lead: str, patients: list[str], fs: float, config: ReidentifyConfig
) -> dict[str, dict[str, Any] | None]:
    """Figures of halves in time, and of sessions apart; None where too few patients have them."""
    found = recordings(lake.table(WINDOWS, {"lead": lead, "patients": patients}), fs)
    answers = {}
    for name, divide in (("halves", divide_in_time), ("sessions", divide_by_session)):
        gallery, probes = divide(found, most_windows=config.windows, seed=config.seed)
        figures = measure(found, gallery, probes, seed=config.seed, num_draws=config.draws)
        answers[name] = figures.to_json() if figures else None
    return answers


def recordings(rows: pa.Table, fs: float) -> Recordings:
    """Rows of windows as recordings. Where events have no time, their order in the archive is one.

    Args:
        rows: the columns of :data:`WINDOWS`.
        fs: of the model's signals, Hz.
    """
    embedding = rows["embedding"].combine_chunks()
    event_s = np.array(rows["event_s"].to_pylist(), np.float64)  # None becomes NaN
    _, order = np.unique(np.array(rows["event_id"].to_pylist(), np.str_), return_inverse=True)
    start_s = np.where(np.isfinite(event_s), event_s, order * 1e6)
    start_s = start_s + rows["start_sample"].to_numpy() / fs
    return Recordings(
        embedding_NE=embedding.flatten().to_numpy().reshape(len(embedding), -1).astype(np.float32),
        patient_N=np.array(rows["patient_id"].to_pylist(), np.str_),
        session_N=np.array(rows["archive_id"].to_pylist(), np.str_),
        start_s_N=start_s,
        end_s_N=start_s + rows["num_samples"].to_numpy() / fs,
    )


def _count(lake: Lake, table: str) -> int:
    [row] = lake.rows(f"SELECT count(*) AS num FROM {table}")
    return int(row["num"])


def _told(num_patients: int) -> int | str:
    return num_patients if num_patients >= LEAST_CELL else f"fewer than {LEAST_CELL}"


def make_demo_lake(lake_uri: str) -> None:
    """Simulated patients, each with an archive of two months, backfilled beside the lake; done once."""
    archives = Store(f"{lake_uri.rstrip('/')}/demo-archives")
    present = {info.key for info in archives.list()}
    for patient in range(DEMO_PATIENTS):
        for period in DEMO_PERIODS:
            name, content = simulate_archive(patient, DEMO_EVENTS, seed=DEMO_SEED, period=period)
            if name not in present:
                archives.put(name, content)
    backfill(BackfillConfig(archives=archives.uri, lake=lake_uri, detectors=NONE))
