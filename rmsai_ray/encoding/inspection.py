"""One window looked at closely: its reconstruction, its signal again, its error; and a signal as a question.

Shapes: T samples of a window, E dimensions of the embedding. The lake keeps embeddings and no signals: a
reconstruction comes from embedding and beats, a signal from the archive that it was cut from.
"""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rmsai_ray.archives.packed import content_id
from rmsai_ray.archives.reader import read_archive
from rmsai_ray.archives.sources import open_source
from rmsai_ray.encoding.encoder import WindowEncoder
from rmsai_ray.errors import ConfigError, LakeError
from rmsai_ray.models.bundle import ModelBundle, ModelSpec
from rmsai_ray.models.frozen import FrozenModel
from rmsai_ray.models.shelf import load_shelved_frozen
from rmsai_ray.signals.quality import fill_gaps
from rmsai_ray.signals.resampling import resample
from rmsai_ray.signals.windows import Windows, cut_windows
from rmsai_ray.storage import Store
from rmsai_ray.tables.lake import Lake

FloatArray = npt.NDArray[np.float32]

RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-3, 1e-6
"""Between a stored error and the recomputed one: other processors round otherwise."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """One window of the lake and what its embedding decodes to, real samples only."""

    time_s_T: npt.NDArray[np.float64]
    """Seconds from the start of the lead's signal."""
    reconstruction_T: FloatArray
    """In ``unit``, without what the model's normaliser filters off."""
    normalised_T: FloatArray
    """The same in normalised units."""
    unit: str
    """mV, or raw where the gain is unknown."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The window's signal, read again from its archive, and the errors that follow."""

    uri: str
    signal_T: FloatArray
    """As the model was given it, filtered, in the reconstruction's unit, real samples only."""
    stored_error: float
    """``reconstruction_error`` of the row."""
    recomputed_error: float
    """Mean squared error of the reconstruction, in normalised units."""

    @property
    def agrees(self) -> bool:
        """Whether the two errors are the same but for rounding."""
        return bool(
            np.isclose(
                self.recomputed_error, self.stored_error, rtol=RELATIVE_TOLERANCE, atol=ABSOLUTE_TOLERANCE
            )
        )


def load_lake_encoder(lake: Lake) -> WindowEncoder:
    """The model that made the lake's rows, on the CPU.

    Raises:
        StorageError: the lake does not hold the model.
        CheckpointError: what it holds is another one.
    """
    return WindowEncoder(load_shelved_frozen(Store(lake.uri), lake.model_id))


def reconstruct(encoder: WindowEncoder, row: Mapping[str, Any]) -> Reconstruction:
    """Decodes the stored embedding, with the stored beats, and brings it back to the signal's unit.

    Args:
        encoder: holds the model that the row names.
        row: a row of ``windows`` with its embedding and beats.

    Raises:
        LakeError: the row is another model's.
    """
    if row["model_id"] != encoder.bundle.model_id:
        raise LakeError(f"{row['window_id']} is of {row['model_id']}, not of {encoder.bundle.model_id}")
    [y_T] = encoder.reconstruct(np.asarray([row["embedding"]], np.float32), [row["beats"]])
    y_T = y_T[: row["num_samples"]]
    first, fs = row["start_sample"], encoder.bundle.spec.sampling_rate_hz
    return Reconstruction(
        time_s_T=np.arange(first, first + row["num_samples"]) / fs,
        normalised_T=y_T,
        reconstruction_T=y_T * np.float32(row["norm_scale"]) + np.float32(row["norm_offset"]),
        unit=row["unit"],
    )


def verify(
    lake: Lake, row: Mapping[str, Any], reconstruction: Reconstruction, bundle: ModelBundle | FrozenModel
) -> Verification:
    """Reads the window's archive again and computes the error of the reconstruction anew.

    Raises:
        StorageError: the archive cannot be read.
        LakeError: its content is not what was encoded, or does not hold the window.
    """
    uri, signal_T = read_signal(lake, row, bundle.spec)
    [x_T], [offset], [scale] = bundle.normaliser.apply(
        signal_T[None], np.array([len(signal_T)]), [row["lead"]]
    )
    difference_T = (x_T - reconstruction.normalised_T).astype(np.float64)
    return Verification(
        uri=uri,
        signal_T=x_T * scale + offset,
        stored_error=float(row["reconstruction_error"]),
        recomputed_error=float(np.mean(difference_T**2)),
    )


def read_signal(lake: Lake, row: Mapping[str, Any], spec: ModelSpec) -> tuple[str, FloatArray]:
    """(URI of the archive, the window's real samples in its unit), cut as they were for encoding.

    Raises:
        StorageError, LakeError: as :func:`verify`.
    """
    [place] = lake.rows(
        "SELECT uri FROM archives WHERE status = 'committed' AND archive_id = ?", [row["archive_id"]]
    )
    uri = place["uri"]
    content = open_source(uri).read(uri)
    if content_id(content) != row["archive_id"]:
        raise LakeError(f"{uri} has changed since it was encoded: backfill it again")
    leads = {event.event_id: event.leads for event in read_archive(content, uri).events}
    lead = leads.get(row["event_id"], {}).get(row["lead"])
    if lead is None:
        raise LakeError(f"{uri}: this version reads no {row['lead']} in {row['event_id']}: backfill it again")
    windows = prepare_windows(lead.samples, lead.fs, spec)
    [place_in_lead] = np.flatnonzero(windows.starts_N == row["start_sample"])
    return uri, windows.samples_NT[place_in_lead, : row["num_samples"]]


def embed_signal(
    encoder: WindowEncoder, samples_T: npt.ArrayLike, fs: float, *, lead: str, start_s: float = 0.0
) -> FloatArray:
    """The embedding of one window of a signal from anywhere, to search with.

    Args:
        encoder: holds the model of the lake to be searched.
        samples_T: the signal in mV, NaN where unknown; a window that it does not fill is padded.
        fs: its sampling rate in Hz.
        lead: the lead, for models with statistics per lead.
        start_s: where the window starts.

    Raises:
        ConfigError: nothing of the signal lies there.
    """
    signal_T = np.asarray(samples_T, np.float64)[max(0, round(start_s * fs)) :]
    if signal_T.ndim != 1 or not np.isfinite(signal_T).any():
        raise ConfigError(
            "signal", signal_T.shape, "has no sample there", "Give one column and a start inside."
        )
    first = prepare_windows(signal_T, fs, encoder.bundle.spec)
    embedding_NE = encoder.encode(first.samples_NT[:1], first.num_samples_N[:1], [lead]).embedding_NE
    return np.asarray(embedding_NE[0], np.float32)


def prepare_windows(samples_T: npt.ArrayLike, fs: float, spec: ModelSpec) -> Windows:
    """Windows as a backfill cuts them: gaps bridged, at the model's sampling rate, the tail one included."""
    filled_T, _ = fill_gaps(samples_T)
    return cut_windows(
        resample(filled_T, fs, spec.sampling_rate_hz), spec.window_samples, spec.stride_samples
    )
