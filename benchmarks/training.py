"""Steps per second of a training by one and by two workers, through Ray Train, on this machine.

    python -m benchmarks.training [--epochs 3] [--patients 4]

The batch is the same, so two workers take half of it each. The first epoch is left out: it warms up.
Prints a table and one line of JSON.
"""

from __future__ import annotations

import json
import logging
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks._measure import report
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.job import ray_session, show_logs
from rmsai_ray.training.config import PretrainConfig
from rmsai_ray.training.pretrain import pretrain


@dataclass
class Options:
    """How much to train."""

    epochs: int = 3
    """The first of them is not counted."""
    patients: int = 4
    """Of 8 events each: 56 windows, most of them normal."""
    batch_windows: int = 32
    """Windows per step, of all workers together."""
    output: Path | None = None


def main(options: Options) -> None:
    show_logs()
    logging.getLogger("rmsai_ray").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, ray_session():
        root = Path(folder)
        _make_archives(root / "archives", options.patients)
        rates = {workers: _steps_per_s(root, workers, options) for workers in (1, 2)}
    rows = {f"{workers} workers: steps/s": rate for workers, rate in rates.items()}
    rows |= {f"{workers} workers: windows/s": rate * options.batch_windows for workers, rate in rates.items()}
    report("Training", rows, {"two workers / one": rates[2] / rates[1]}, options.output)


def _make_archives(folder: Path, num_patients: int) -> None:
    folder.mkdir()
    for patient in range(num_patients):
        name, content = simulate_archive(patient, 8, seed=1, proportions=(0.8, 0.2, 0, 0, 0))
        (folder / name).write_bytes(content)


def _steps_per_s(root: Path, workers: int, options: Options) -> float:
    output = root / f"{workers}" / "model"
    pretrain(
        PretrainConfig(
            archives=(str(root / "archives"),),
            output=str(output),
            epochs=options.epochs,
            batch_windows=options.batch_windows,
            workers=workers,
        )
    )
    (record,) = output.parent.glob("runs/*/run.json")
    epochs = json.loads(record.read_text())["facts"]["epochs"]
    return statistics.median(epoch["steps"] / epoch["seconds"] for epoch in epochs[1:])


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
