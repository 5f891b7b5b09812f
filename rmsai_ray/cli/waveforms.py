"""The subcommands' dealings with signals: reconstructions, and signals from files as questions.

The models are imported where they are needed, so that questions about tables start without torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import tyro

from rmsai_ray.cli.options import LakeOptions
from rmsai_ray.cli.output import Answer
from rmsai_ray.errors import ConfigError, StorageError
from rmsai_ray.signals.leads import select_leads
from rmsai_ray.tables.lake import Lake
from rmsai_ray.tables.queries import find_window

if TYPE_CHECKING:
    from rmsai_ray.encoding.inspection import Reconstruction, Verification

ROW_COLUMNS = (
    "window_id", "model_id", "condition", "lead", "start_sample", "num_samples", "unit", "norm_offset",
    "norm_scale", "reconstruction_error", "mae", "mse_raw", "threshold", "anomaly_status", "anomaly_type",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SignalFile:
    """A signal from anywhere, encoded with the lake's model."""

    signal: Path | None = None
    """One column of numbers as .npy or .csv, in mV."""
    signal_hz: float | None = None
    """Its sampling rate; needed with --signal."""
    signal_lead: str = "ECG2"
    """Its lead; matters to models with statistics per lead."""
    signal_start_s: float = 0.0
    """Where in the signal the window starts."""

    def embed(self, lake: Lake) -> npt.NDArray[np.float32]:
        """The embedding of the window.

        Raises:
            ConfigError: the file holds no such signal.
        """
        if self.signal is None or self.signal_hz is None or self.signal_hz <= 0:
            raise ConfigError("signal_hz", self.signal_hz, "is no sampling rate", "Give --signal-hz in Hz.")
        select_leads([self.signal_lead])
        samples_T = read_samples(self.signal)
        from rmsai_ray.encoding.inspection import embed_signal, load_lake_encoder

        return embed_signal(
            load_lake_encoder(lake),
            samples_T,
            self.signal_hz,
            lead=self.signal_lead,
            start_s=self.signal_start_s,
        )


@dataclass(frozen=True, kw_only=True)
class Reconstruct(LakeOptions):
    """What a window's embedding and beats decode to, in mV, and the errors that the lake has for it."""

    window: tyro.conf.Positional[str]
    """Window id, chunk id or vector id."""
    verify: bool = False
    """Read the archive again and compute the error anew; exit code 1 where it differs."""
    plot: Path | None = None
    """Draw it into this .png, .svg or .pdf, with the signal where --verify reads it."""

    def answer(self) -> Answer:
        """One row a sample."""
        from rmsai_ray.encoding import inspection

        lake = self.open()
        row = find_window(lake, self.window)
        encoder = inspection.load_lake_encoder(lake)
        reconstruction = inspection.reconstruct(encoder, row)
        checked = inspection.verify(lake, row, reconstruction, encoder.bundle) if self.verify else None
        samples = _samples(reconstruction, checked)
        if self.plot is not None:
            draw(self.plot, str(row["window_id"]), samples, reconstruction.unit)
        shown = {name: row[name] for name in ROW_COLUMNS} | _errors(checked)
        return Answer(
            data={**shown, "samples": samples.to_dict("list")},
            rows=samples,
            tables={"Reconstruction": pd.DataFrame({"field": shown.keys(), "value": shown.values()})},
            ok=checked is None or checked.agrees,
        )


def read_samples(path: Path) -> npt.NDArray[np.float64]:
    """One signal from a ``.npy`` file, or from text with one number a line and at most one line of heading.

    Raises:
        StorageError: the file cannot be read.
        ConfigError: there is something else in it.
    """
    try:
        values = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _read_text(path)
        samples = np.asarray(values, np.float64)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    except ValueError as error:
        raise ConfigError("signal", str(path), f"is no signal: {error}", "Give one number a line.") from error
    if samples.size == 0 or samples.size != max(samples.shape):
        raise ConfigError(
            "signal", str(path), f"has the shape {samples.shape}", "Give one column, of one lead."
        )
    return samples.ravel()


def draw(path: Path, title: str, samples: pd.DataFrame, unit: str) -> None:
    """Draws signal and reconstruction over time.

    Raises:
        ConfigError: the file's suffix is no format for pictures.
        StorageError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.5), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="time in the lead's signal [s]", ylabel=f"ECG [{unit}]")
    for name in ("signal", "reconstruction"):
        if name in samples:
            axes.plot(samples["time_s"], samples[name], label=name, linewidth=1)
    axes.legend(loc="upper right")
    try:
        figure.savefig(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}") from error
    except ValueError as error:
        raise ConfigError("plot", str(path), str(error), "Name a .png, .svg or .pdf.") from error


def _read_text(path: Path) -> npt.NDArray[np.float64]:
    lines = path.read_text().splitlines()
    has_heading = bool(lines) and not _is_number(lines[0])
    return np.array([float(line) for line in lines[has_heading:]])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _samples(reconstruction: Reconstruction, checked: Verification | None) -> pd.DataFrame:
    """One row a sample: ``time_s``, ``signal`` where it was read, ``reconstruction``."""
    signal = {} if checked is None else {"signal": checked.signal_T}
    return pd.DataFrame(
        {"time_s": reconstruction.time_s_T, **signal, "reconstruction": reconstruction.reconstruction_T}
    )


def _errors(checked: Verification | None) -> dict[str, Any]:
    if checked is None:
        return {}
    values = {name: value for name, value in asdict(checked).items() if name != "signal_T"}
    return {**values, "agrees": checked.agrees}
