"""A window of a real archive file, encoded, and looked at again from the row alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rmsai_ray import ids
from rmsai_ray.encoding.encoder import WindowEncoder
from rmsai_ray.encoding.inspection import embed_signal, load_lake_encoder, reconstruct, verify
from rmsai_ray.errors import ConfigError, LakeError, StorageError
from rmsai_ray.models.checkpoint import untrained_model
from rmsai_ray.models.shelf import shelve_model
from rmsai_ray.storage import Store
from rmsai_ray.tables import schemas
from rmsai_ray.tables.lake import Lake
from tests.upstream_files import write_archive_file

STARTS = (0, 70, 2260)


@pytest.fixture(scope="module")
def encoder() -> WindowEncoder:
    return WindowEncoder(untrained_model("rmsai-140x128", seed=3))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive_file(tmp_path, num_events=2)


@pytest.fixture
def lake(tmp_path: Path, encoder: WindowEncoder, archive: Path) -> Lake:
    """A lake with a manifest and a model; rows are made by the tests."""
    model_id, store = encoder.bundle.model_id, Store(str(tmp_path / "lake"))
    now = datetime.now(UTC)
    row: dict[str, Any] = {
        **dict.fromkeys(("size", "attempts", "num_events", "num_windows", "num_rejects"), 0),
        **{"uri": str(archive), "model_id": model_id, "archive_id": ids.archive_id(archive.read_bytes())},
        **{"etag": "", "modified_time": now, "committed_time": now, "status": "committed"},
        **{"degraded": False, "unit_id": "unit", "run_id": "run"},
    }
    folder = tmp_path / f"lake/archives/model={model_id}"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row], schemas.ARCHIVES), folder / "manifest.parquet")
    shelve_model(store, encoder.bundle)
    return Lake(store.uri, model_id)


def window_row(encoder: WindowEncoder, archive: Path, start: int) -> tuple[dict[str, Any], np.ndarray]:
    """A row of ``windows``, as far as it matters here, and the samples that it was made of (mV)."""
    with h5py.File(archive) as file:
        samples_T = file["event_1002/ecg/aVL"][start : start + 140].astype(np.float32)
    encoded = encoder.encode(samples_T[None], np.array([140], np.int32), ["aVL"])
    row = {
        "window_id": f"w{start}",
        "model_id": encoder.bundle.model_id,
        "archive_id": ids.archive_id(archive.read_bytes()),
        "event_id": "event_1002",
        "lead": "aVL",
        "start_sample": start,
        "num_samples": 140,
        "unit": "mV",
        "embedding": encoded.embedding_NE[0].tolist(),
        "beats": encoded.beats_N[0].tolist(),
        "norm_offset": float(encoded.offset_N[0]),
        "norm_scale": float(encoded.scale_N[0]),
        "reconstruction_error": float(encoded.mse_N[0]),
        "mse_raw": float(encoded.mse_raw_N[0]),
    }
    return row, samples_T


@pytest.mark.parametrize("start", STARTS)
def test_reconstruction_of_embedding_and_beats_has_the_stored_error(
    start: int, encoder: WindowEncoder, archive: Path
) -> None:
    row, samples_T = window_row(encoder, archive, start)
    found = reconstruct(encoder, row)
    assert np.mean((found.reconstruction_T - samples_T) ** 2) == pytest.approx(row["mse_raw"], rel=1e-4)
    assert found.time_s_T[[0, -1]].tolist() == pytest.approx([start / 200, (start + 139) / 200])
    assert found.unit == "mV"


@pytest.mark.parametrize("start", STARTS)
def test_verification_reads_the_same_signal_and_error(
    start: int, lake: Lake, encoder: WindowEncoder, archive: Path
) -> None:
    row, samples_T = window_row(encoder, archive, start)
    held = load_lake_encoder(lake)
    found = verify(lake, row, reconstruct(held, row), held.bundle)
    np.testing.assert_allclose(found.signal_T, samples_T, atol=1e-6)
    assert found.recomputed_error == pytest.approx(row["reconstruction_error"], rel=1e-4)
    assert found.agrees
    assert found.uri == str(archive)


def test_a_wrong_stored_error_is_found(lake: Lake, encoder: WindowEncoder, archive: Path) -> None:
    row, _ = window_row(encoder, archive, 0)
    wrong = row | {"reconstruction_error": row["reconstruction_error"] * 1.01}
    assert not verify(lake, wrong, reconstruct(encoder, wrong), encoder.bundle).agrees


def test_a_changed_archive_verifies_nothing(lake: Lake, encoder: WindowEncoder, archive: Path) -> None:
    row, _ = window_row(encoder, archive, 0)
    write_archive_file(archive.parent, num_events=2, seed=1)
    with pytest.raises(LakeError, match="changed"):
        verify(lake, row, reconstruct(encoder, row), encoder.bundle)
    archive.unlink()
    with pytest.raises(StorageError, match="cannot read"):
        verify(lake, row, reconstruct(encoder, row), encoder.bundle)


def test_another_models_row_is_refused(encoder: WindowEncoder, archive: Path) -> None:
    row, _ = window_row(encoder, archive, 0)
    with pytest.raises(LakeError, match="rmsai-140x128-000000000000"):
        reconstruct(encoder, row | {"model_id": "rmsai-140x128-000000000000"})


def test_padding_is_left_out(encoder: WindowEncoder, archive: Path) -> None:
    row, _ = window_row(encoder, archive, 0)
    found = reconstruct(encoder, row | {"num_samples": 100})
    assert len(found.reconstruction_T) == len(found.time_s_T) == 100


def test_a_signal_from_anywhere_is_encoded_as_in_the_lake(encoder: WindowEncoder, archive: Path) -> None:
    row, _ = window_row(encoder, archive, 70)
    with h5py.File(archive) as file:
        whole_T = file["event_1002/ecg/aVL"][:]
    found_E = embed_signal(encoder, whole_T, 200.0, lead="aVL", start_s=0.35)
    np.testing.assert_array_equal(found_E, np.asarray(row["embedding"], np.float32))


def test_a_signal_at_another_rate_is_resampled(encoder: WindowEncoder) -> None:
    seconds = np.arange(0, 0.7, 1 / 1000)
    at_1000_hz = embed_signal(encoder, np.sin(2 * np.pi * 3 * seconds), 1000.0, lead="ECG2")
    at_200_hz = embed_signal(encoder, np.sin(2 * np.pi * 3 * seconds[::5]), 200.0, lead="ECG2")
    np.testing.assert_allclose(at_1000_hz, at_200_hz, atol=0.05)


@pytest.mark.parametrize(
    ("samples", "start_s"), [(np.zeros(200), 1.0), (np.full(200, np.nan), 0.0), (np.zeros(0), 0.0)]
)
def test_nothing_to_encode_is_bad_input(samples: np.ndarray, start_s: float, encoder: WindowEncoder) -> None:
    with pytest.raises(ConfigError, match="no sample"):
        embed_signal(encoder, samples, 200.0, lead="ECG2", start_s=start_s)
