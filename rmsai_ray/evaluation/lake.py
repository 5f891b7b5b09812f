"""What an analyst of a backfilled lake sees first: its highest scores with annotations, and look-alikes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from rmsai_ray.archives.labels import BEAT_SYMBOLS, NORMAL_BEATS
from rmsai_ray.archives.reader import ReadOptions, read_archive
from rmsai_ray.archives.sources import open_source
from rmsai_ray.encoding.inspection import load_lake_encoder, read_signal
from rmsai_ray.evaluation.pictures import draw_signals
from rmsai_ray.models.bundle import ModelSpec
from rmsai_ray.tables.filters import WindowFilter
from rmsai_ray.tables.lake import Lake, open_lake
from rmsai_ray.tables.search import similar

NUM_TOP, COLUMNS = 20, 4
NUM_QUERIES, NUM_ALIKE = 4, 5


def look_at_lake(folder: Path, uri: str, model: str | None) -> dict[str, Any]:
    """The 20 windows of highest ``anomaly_score`` and what experts wrote beside them; search results.

    One window an event, since the leads of one event are one finding.
    """
    lake = open_lake(uri, model)
    spec = load_lake_encoder(lake).bundle.spec
    top = _top(lake)
    findings = [_annotated(lake, row, spec) for row in top]
    signals = [_signal(lake, row, spec) for row in top]
    draw_signals(folder / "top.png", [signals[i : i + COLUMNS] for i in range(0, len(signals), COLUMNS)])
    alike = _look_alikes(folder, lake, spec)
    judged = [finding["abnormal"] for finding in findings if finding["abnormal"] is not None]
    return {
        "lake": Path(uri).name,
        "model": lake.model_id,
        "top": findings,
        "top_with_annotations": len(judged),
        "top_abnormal": sum(judged),
        "look_alikes": alike,
    }


def _top(lake: Lake) -> list[dict[str, Any]]:
    return lake.rows(
        """
        SELECT * FROM (
            SELECT *, row_number() OVER
                (PARTITION BY archive_id, event_id ORDER BY anomaly_score DESC, window_id) AS place
            FROM windows
        ) WHERE place = 1 ORDER BY anomaly_score DESC, window_id LIMIT $limit
        """,
        {"limit": NUM_TOP},
    )


def _annotated(lake: Lake, row: dict[str, Any], spec: ModelSpec) -> dict[str, Any]:
    extras, fs = _extras(lake, row)
    annotations = extras.get("annotations") or {}
    ratio = fs / spec.sampling_rate_hz
    first, end = row["start_sample"] * ratio, (row["start_sample"] + row["num_samples"]) * ratio
    marks = zip(annotations.get("samples", ()), annotations.get("symbols", ()), strict=True)
    beats = Counter(symbol for sample, symbol in marks if symbol in BEAT_SYMBOLS and first <= sample < end)
    rhythms = [str(code) for _, code in annotations.get("rhythms", ()) if code]
    statements = sorted((extras.get("source") or {}).get("scp_codes", {}))
    known = bool(annotations) or bool(statements)
    abnormal = set(beats) - NORMAL_BEATS or set(rhythms) - {"N"} or set(statements) - {"NORM", "SR"}
    return {
        "window": row["window_id"].split("@")[0],
        "anomaly_score": float(row["anomaly_score"]),
        "condition": row["condition"],
        "beats": dict(beats),
        "rhythms": rhythms,
        "statements": statements,
        "abnormal": bool(abnormal or row["condition"] != "Normal") if known else None,
    }


def _extras(lake: Lake, row: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """The event's own notes, and the sampling rate that they count in."""
    [place] = lake.rows(
        "SELECT uri FROM archives WHERE status = 'committed' AND archive_id = ?", [row["archive_id"]]
    )
    uri = place["uri"]
    archive = read_archive(open_source(uri).read(uri), uri, options=ReadOptions(vitals=False))
    event = next(event for event in archive.events if event.event_id == row["event_id"])
    return event.ecg_extras, event.leads[row["lead"]].fs


def _signal(lake: Lake, row: dict[str, Any], spec: ModelSpec) -> tuple[str, Any, float]:
    _, x_T = read_signal(lake, row, spec)
    title = f"{row['window_id'].split('@')[0]} {row['anomaly_score']:.2f}"
    return title, x_T, spec.sampling_rate_hz


def _look_alikes(folder: Path, lake: Lake, spec: ModelSpec) -> list[dict[str, Any]]:
    """For windows spread over the scores: the most similar windows of other patients."""
    rows = lake.rows("SELECT window_id, patient_id FROM windows ORDER BY anomaly_score, window_id")
    places = np.linspace(0, len(rows) - 1, NUM_QUERIES + 2).astype(int)[1:-1]
    pictures, found = [], []
    for place in places.tolist():
        query = rows[place]
        others = similar(
            lake, query["window_id"], k=NUM_ALIKE, where=WindowFilter(not_patient=query["patient_id"])
        )
        wanted = [query["window_id"], *others["window_id"]]
        full = [lake.rows("FROM windows WHERE window_id = ?", [name])[0] for name in wanted]
        pictures.append([_signal(lake, row, spec) for row in full])
        found.append(
            {
                "query": query["window_id"].split("@")[0],
                "condition": full[0]["condition"],
                "found": [
                    {
                        "window": row["window_id"].split("@")[0],
                        "condition": row["condition"],
                        "similarity": float(similarity),
                    }
                    for row, similarity in zip(full[1:], others["similarity"], strict=True)
                ],
            }
        )
    draw_signals(folder / "look_alikes.png", pictures)
    return found
