"""Fits detectors on the normal windows of a lake, one Ray task a detector, and writes them as a set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import ray
from rich.console import Console
from rich.table import Table

from rmsai_ray import ids
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.detectors import NONE
from rmsai_ray.backfill.flow import backfill
from rmsai_ray.detection.calibration import GRID
from rmsai_ray.detection.detector_set import (
    DEFAULT_DETECTORS,
    DetectorSet,
    assemble_detector_set,
    default_members,
    fit_detector,
)
from rmsai_ray.detection.detectors import DETECTORS, Detector
from rmsai_ray.detection.fitting import NormalWindows, facts_of, read_normal_windows
from rmsai_ray.errors import ConfigError
from rmsai_ray.job import ray_session
from rmsai_ray.models.shelf import load_shelved_model
from rmsai_ray.runs import RunRecord, code_version, command_line
from rmsai_ray.storage import Store
from rmsai_ray.tables.lake import open_lake

DEMO_PATIENTS, DEMO_EVENTS, DEMO_SEED = 10, 5, 2027


@dataclass(frozen=True, kw_only=True)
class FitDetectorsConfig:
    """Fits detectors on the normal windows of a lake, for the model that made it."""

    lake: str
    """The lake of a finished backfill: a folder or s3://bucket/prefix."""
    output: str
    """Folder that becomes the detector set; CHECKPOINT/detectors makes it that model's own."""
    model: str | None = None
    """Id of the model in the lake; needed where it holds several."""
    detectors: tuple[str, ...] = DEFAULT_DETECTORS
    """Which to fit: two_sided_error, mahalanobis, knn, isolation_forest, one_class_svm, rhythm; worst_error,
    error_contrast and reconstruction_error need no fit, and are calibrated."""
    members: tuple[str, ...] = ()
    """Which of them make the ensemble; none named means worst_error, error_contrast and rhythm."""
    max_windows: int = 200_000
    """Normal windows to learn from, and as many again to calibrate on; of more, a random sample."""
    seed: int = 0
    """Of everything random."""
    demo: bool = False
    """First fill the lake with simulated normal patients, if it is empty."""

    def __post_init__(self) -> None:
        if self.max_windows < 2:
            raise ConfigError("max_windows", self.max_windows, "is too few", "Give some thousands.")
        for name in self.detectors:
            DETECTORS.get(name)
        foreign = [name for name in self.members if name not in self.detectors]
        if foreign or not self.detectors:
            known = ", ".join(self.detectors) or "none"
            raise ConfigError(
                "members", list(self.members), f"are not among the fitted ({known})", "Fit them."
            )

    def result_options(self, model_id: str) -> dict[str, Any]:
        """Every option that can change the set; their hash names the run."""
        options = {name: list(getattr(self, name)) for name in ("detectors", "members")}
        return {**options, "model_id": model_id, "max_windows": self.max_windows, "seed": self.seed}


def fit_detectors(config: FitDetectorsConfig) -> str:
    """Reads the normal windows, fits, calibrates on held-out patients, and writes the set and a run record,
    whose id it returns.

    Raises:
        ConfigError: no such lake or model, or no normal windows in it.
    """
    console = Console()
    if config.demo:
        make_demo_lake(config.lake)
    lake, store = open_lake(config.lake, config.model), Store(config.lake)
    bundle = load_shelved_model(store, lake.model_id)
    parts = read_normal_windows(
        lake,
        bundle.facts.get("splits") or {},
        bundle.spec.sampling_rate_hz,
        max_windows=config.max_windows,
        seed=config.seed,
    )
    run_id = ids.run_id("fit-detectors", config.result_options(lake.model_id))
    facts = facts_of(parts, run_id=run_id, code_version=code_version())
    record = RunRecord(
        run_id=run_id, job="fit-detectors", argv=command_line(), config=asdict(config), facts=dict(facts)
    )
    record.begin(store)
    try:
        fitted = fit_on_ray(config, lake.model_id, parts, facts)
        folder = fitted.save(config.output)
    except BaseException as error:
        record.finish(store, "failed", repr(error))
        raise
    record.facts["set_id"] = fitted.set_id
    record.counts = {name: len(part.measured) for name, part in parts.items()}
    record.finish(store, "done")
    print_set(console, fitted, parts, str(folder), config.lake)
    return run_id


def fit_on_ray(
    config: FitDetectorsConfig, model_id: str, parts: dict[str, NormalWindows], facts: dict[str, Any]
) -> DetectorSet:
    """One task a detector; the windows travel once."""
    train, validation = parts["train"].measured, parts["validation"]
    with ray_session():
        windows = ray.put(train)
        fit = ray.remote(num_cpus=1)(fit_detector)
        tasks = [fit.remote(name, windows, config.seed) for name in config.detectors]
        detectors: Sequence[Detector] = ray.get(tasks)
    return assemble_detector_set(
        dict(zip(config.detectors, detectors, strict=True)),
        validation.measured,
        model_id=model_id,
        facts=facts,
        members=config.members or default_members(config.detectors),
        validation_patients_N=validation.patients_N,
    )


def make_demo_lake(lake_uri: str) -> None:
    """Simulated normal patients, backfilled with the default model beside the lake; done once."""
    archives = Store(f"{lake_uri.rstrip('/')}/demo-archives")
    present = {info.key for info in archives.list()}
    for patient in range(DEMO_PATIENTS):
        name, content = simulate_archive(patient, DEMO_EVENTS, seed=DEMO_SEED, preset="all-normal")
        if name not in present:
            archives.put(name, content)
    backfill(BackfillConfig(archives=archives.uri, lake=lake_uri, detectors=NONE))


def print_set(
    console: Console, fitted: DetectorSet, parts: dict[str, NormalWindows], folder: str, lake: str
) -> None:
    """What was fitted on what, and how to use it."""
    table = Table(title=f"Detectors {fitted.set_id}", title_justify="left")
    table.add_column("detector")
    table.add_column("in the ensemble")
    table.add_column("95 % of normal windows score below", justify="right")
    for name, quantiles in fitted.calibration.items():
        of_all = np.interp(0.95, GRID, quantiles["*"])
        table.add_row(name, "yes" if name in fitted.members else "", f"{of_all:.4g}")
    console.print(table)
    for name, part in parts.items():
        console.print(f"{name}: {len(part.measured):,} normal windows of {len(part.patients)} patients")
    console.print(f"written to {folder}", soft_wrap=True)
    console.print(
        f"next: python jobs/backfill.py --archives … --lake {lake} --detectors {folder}", soft_wrap=True
    )
