"""Scores are what the model says, recomputed here by hand; and they depend on the window alone."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from rmsai_ray.archives.reader import read_archive
from rmsai_ray.backfill.rows import UnitRows
from rmsai_ray.backfill.score import Scoring, score_unit
from rmsai_ray.detection.thresholds import SEED, ThresholdProfile
from rmsai_ray.encoding.encoder import Encoded, WindowEncoder
from rmsai_ray.models.base import build_network
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.checkpoint import untrained_model
from rmsai_ray.models.profiles import PROFILES
from rmsai_ray.signals.normalise import Normaliser
from rmsai_ray.tables import schemas
from rmsai_ray.tables.blocks import UnitTables
from tests.local_backfill import tiny_bundle
from tests.upstream_files import archive_bytes, edited
from tests.upstream_files import replace as replace_dataset

SCORING = Scoring(profile=SEED, detector="reconstruction_error", verdict_rule="severity")


@cache
def archives() -> tuple[bytes, ...]:
    """Three archives of two events; the second has a lead of half a second, the third one of 3.5 seconds."""
    raws = [archive_bytes(num_events=2, seed=seed) for seed in range(3)]
    return raws[0], shortened(raws[1], 100), shortened(raws[2], 700)


def shortened(raw: bytes, num_samples: int) -> bytes:
    def change(file: h5py.File) -> None:
        for event in ("event_1001", "event_1002"):
            ecg = file[event]["ecg"]
            replace_dataset(ecg, "ECG2", ecg["ECG2"][:num_samples])

    return edited(raw, change)


def unit_of(bundle: ModelBundle, raws: tuple[bytes, ...], leads: tuple[str, ...]) -> UnitTables:
    rows = UnitRows("run", bundle.model_id, "unit", bundle.spec, "code")
    for raw in raws:
        rows.add_archive(read_archive(raw, "PT1234_2025-09.h5"), "uri", leads, tail=True)
    windows, events, rejects = rows.tables()
    return UnitTables(
        unit_id="unit", archives=[], windows=windows, events=events, rejects=rejects,
        seconds={"read": 1.0}, num_bytes={},
    )  # fmt: skip


def small_recurrent() -> ModelBundle:
    """The source document's network with an embedding of 4, for short overlapping windows."""
    spec = replace(PROFILES["rmsai-140x128"], profile="tiny-140x4", embedding_dim=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network("recurrent", window_samples=140, embedding_dim=4, architecture={})
    return ModelBundle(network=network, spec=spec, normaliser=Normaliser("window"), trained=False)


@pytest.fixture(scope="module", params=[tiny_bundle, small_recurrent])
def bundle(request: pytest.FixtureRequest) -> ModelBundle:
    """A small network of each kind: one window an event, and overlapping ones."""
    made: ModelBundle = request.param()
    return made


def test_errors_and_embeddings_are_what_the_network_says(bundle: ModelBundle) -> None:
    unit = unit_of(bundle, archives()[:2], ("ECG2",))
    scored = score_unit(unit, WindowEncoder(bundle), SCORING).windows
    assert scored.schema.equals(schemas.windows(bundle.spec.embedding_dim), check_metadata=True)
    assert scored["window_id"].equals(unit.windows["window_id"])
    signals = np.array(unit.windows["signal"].to_pylist())
    for row, signal in zip(scored.to_pylist()[::7], signals[::7], strict=True):
        real = np.arange(len(signal)) < row["num_samples"]
        x = np.where(real, (signal - row["norm_offset"]) / row["norm_scale"], 0).astype(np.float32)
        assert x[real].mean() == pytest.approx(0, abs=1e-4)
        assert x[real].std() == pytest.approx(1, abs=1e-4)
        with torch.inference_mode():
            z, y = bundle.network(torch.from_numpy(x)[None])
        error = (y[0].numpy() - x)[real].astype(np.float64)
        assert row["reconstruction_error"] == pytest.approx(np.mean(error**2), rel=1e-4)
        assert row["mae"] == pytest.approx(np.mean(np.abs(error)), rel=1e-4)
        assert row["mse_raw"] == pytest.approx(np.mean((error * row["norm_scale"]) ** 2), rel=1e-4)
        assert row["embedding"] == pytest.approx(z[0].tolist(), abs=1e-5)
        beats = bundle.network.find_beats(torch.from_numpy(x)[None])
        assert row["beats"] == beats[0].nonzero().flatten().tolist()
    assert set(scored["num_samples"].to_pylist()) >= {100, bundle.spec.window_samples}


def test_no_embedding_is_a_placeholder(bundle: ModelBundle) -> None:
    scored = score_unit(unit_of(bundle, archives(), ("ECG1",)), WindowEncoder(bundle), SCORING).windows
    embeddings = np.array(scored["embedding"].to_pylist())
    assert np.isfinite(embeddings).all()
    assert np.abs(embeddings).sum(axis=1).min() > 0
    assert len(np.unique(embeddings, axis=0)) == len(embeddings)


@pytest.mark.parametrize("name", ["framed-2400x64", "rmsai-140x128"])
def test_rows_do_not_depend_on_order_or_batches(name: str) -> None:
    """Bit by bit, with networks of their real size: which kernels run depends on it."""
    bundle = untrained_model(name)
    _, one, two = archives()
    expected = score_unit(unit_of(bundle, (one, two), ("ECG2",)), WindowEncoder(bundle), SCORING)
    assert expected.windows.num_rows == (4 if name == "framed-2400x64" else 20)
    for batch_windows, raws in ((1, (two,)), (7, (two, one)), (256, (one,))):
        encoder = WindowEncoder(bundle, batch_windows=batch_windows)
        scored = score_unit(unit_of(bundle, raws, ("ECG2",)), encoder, SCORING)
        for table, key in (("windows", "window_id"), ("events", "event_uid")):
            mine, theirs = getattr(scored, table).to_pylist(), getattr(expected, table).to_pylist()
            by_key = {row[key]: row for row in theirs}
            assert len(mine) > 0
            assert repr(mine) == repr([by_key[row[key]] for row in mine]), batch_windows


def profile(threshold: float) -> ThresholdProfile:
    return replace(SEED, name="planted", version="7", base={"*": threshold}, conditions={})


def test_decisions_follow_from_score_and_threshold() -> None:
    unit = unit_of(tiny_bundle(), archives(), ("ECG1", "ECG2"))
    first = score_unit(unit, WindowEncoder(tiny_bundle()), SCORING).windows
    middle = float(np.median(first["anomaly_score"].to_numpy()))
    scored = score_unit(unit, WindowEncoder(tiny_bundle()), replace(SCORING, profile=profile(middle))).windows
    rows = scored.to_pylist()
    assert 0 < sum(row["is_anomaly"] for row in rows) < len(rows)
    for row in rows:
        assert row["is_anomaly"] == (row["anomaly_score"] > row["threshold"])
        assert row["is_anomaly_condition"] == (row["anomaly_score"] > row["threshold_condition"])
        assert row["anomaly_score"] == row["reconstruction_error"]
        assert (row["threshold_profile"], row["threshold_version"]) == ("planted", "7")
        assert row["detector"] == "reconstruction_error"


def test_events_count_their_own_windows() -> None:
    unit = unit_of(tiny_bundle(), archives(), ("ECG1", "ECG2"))
    scored = score_unit(unit, WindowEncoder(tiny_bundle()), replace(SCORING, verdict_rule="max"))
    windows = scored.windows.to_pylist()
    assert len(scored.events) == 6
    for event in scored.events.to_pylist():
        own = [
            row
            for row in windows
            if (row["archive_id"], row["event_id"]) == (event["archive_id"], event["event_id"])
        ]
        assert event["num_windows"] == len(own) == 2
        assert event["num_anomalous"] == sum(row["is_anomaly"] for row in own)
        assert event["num_anomalous_condition"] == sum(row["is_anomaly_condition"] for row in own)
        assert event["quality_score"] == pytest.approx(np.mean([row["quality_score"] for row in own]))
        assert event["verdict_rule"] == "max"
        assert event["verdict_support"] == sum(
            (row["anomaly_type"] or "Normal") == event["verdict"] for row in own
        )


def test_an_event_without_windows_is_not_judged() -> None:
    scored = score_unit(unit_of(tiny_bundle(), archives()[:1], ()), WindowEncoder(tiny_bundle()), SCORING)
    assert scored.windows.num_rows == 0
    assert scored.windows.schema.equals(schemas.windows(4))
    for event in scored.events.to_pylist():
        assert (event["verdict"], event["quality_score"], event["num_anomalous"]) == ("Unknown", None, 0)


def test_the_model_sees_the_signals_where_they_lie() -> None:
    """From reading to the model, within one process, they are not copied."""
    unit, seen = unit_of(tiny_bundle(), archives()[:2], ("ECG1",)), []

    class Watcher(WindowEncoder):
        def encode(self, signals_NT: Any, num_samples_N: Any, leads: Any) -> Encoded:
            seen.append(signals_NT)
            return super().encode(signals_NT, num_samples_N, leads)

    score_unit(unit, Watcher(tiny_bundle()), SCORING)
    (signals_NT,) = seen
    assert np.shares_memory(signals_NT, unit.windows["signal"].chunk(0).flatten().to_numpy())


def test_signals_end_here_and_time_is_kept() -> None:
    unit = unit_of(tiny_bundle(), archives()[:1], ("ECG1",))
    scored = score_unit(unit, WindowEncoder(tiny_bundle()), SCORING)
    assert "signal" not in scored.windows.column_names
    assert scored.seconds["read"] == 1.0
    assert scored.seconds["encode"] > 0
