"""A training, top to bottom: read → divide by patient → train → calibrate → test once → save."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rmsai_ray import ids
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.errors import ConfigError
from rmsai_ray.job import ray_session
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.checkpoint import CARD_NAME, save_checkpoint
from rmsai_ray.models.frozen import DESCRIPTION_NAME, WEIGHTS_NAME
from rmsai_ray.runs import JsonLog, RunRecord, code_version, command_line
from rmsai_ray.storage import Store, arrow_filesystem, is_s3, normalise_uri, split_object_uri
from rmsai_ray.tables.lake import open_lake
from rmsai_ray.tables.queries import sql
from rmsai_ray.training.card import write_card
from rmsai_ray.training.config import TrainingConfig
from rmsai_ray.training.curve import draw_learning_curve
from rmsai_ray.training.data import WindowLabels
from rmsai_ray.training.distributed import plan_workers, train_on_ray
from rmsai_ray.training.figures import calibrate, held_out_figures
from rmsai_ray.training.loop import log_epoch
from rmsai_ray.training.pool import WindowPool, read_pool
from rmsai_ray.training.splits import NOBODY, Splits, split_by_patient
from rmsai_ray.training.state import Epoch, FitConfig, best_epoch
from rmsai_ray.training.tracking import open_trackers

CURVE_NAME = "learning-curve.png"
DEMO_PATIENTS, DEMO_EVENTS = 8, 10
DEMO_NEWCOMERS = 9000
"""Number of the first demo patient where the model knows others: nobody of these trained it."""

log = logging.getLogger(__name__)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a training begins with."""

    job: str
    bundle: ModelBundle
    known_parts: Mapping[str, str] = field(default_factory=lambda: NOBODY)
    """Parts of the patients that the model's ancestors knew."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Where the model comes from, for card and audit."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training with its place and its record."""

    config: TrainingConfig
    start: Start
    folder: str
    """The output's parent, which also has the run record."""
    record: RunRecord
    start_id: str
    """The model's id before training, which changes its weights in place."""

    def state_uri(self, pool: WindowPool) -> str:
        """Where this training's checkpoints lie; with other archives or another start it is another one."""
        key = ids.digest([pool.data_hash, str(len(pool.labels)), self.start_id])
        return f"{self.folder}/runs/{self.record.run_id}/training/{key}"


def train_model(start: Start, config: TrainingConfig) -> ModelBundle:
    """Trains, tests and saves one model; the run's record lies in ``runs/`` beside the output.

    The same command again goes on from the last complete epoch, or begins anew where none was complete.
    """
    with _recorded(start, config) as run:
        if config.demo:
            _make_demo_archives(config.archives[0], DEMO_NEWCOMERS if start.known_parts else 0)
        cohort = choose_events(config.lake, config.cohort, config.lake_model)
        with ray_session() as cluster:
            scaling = plan_workers(cluster, config.workers, use_gpu=config.gpu)
            run.record.facts["resources"] = {**asdict(cluster), **(scaling.resources_per_worker or {})}
            spec = start.bundle.spec
            only = choose_archives(config, cohort)
            pool = read_pool(config.archives, spec, cohort=cohort, only=only, num_cpus=cluster.num_cpus)
            if pool.left_out:
                log.warning("left out: %s", pool.left_out)
            splits = split_by_patient(
                pool.patients_by_source, config.seed, known=start.known_parts, leave_out=config.leave_out
            )
            masks = _masks(pool, splits)
            history = _train(run, pool, masks, scaling)
            measured = _measure(start.bundle, pool, masks)
        facts = {**_facts(run, pool, splits, masks, history), **start.facts}
        bundle = replace(measured, trained=True, facts=facts)
        _save(bundle, config.output, draw_learning_curve(history, bundle.model_id))
        _forget_state(run.state_uri(pool))
        run.record.facts |= {"model_id": bundle.model_id, "epochs": [asdict(epoch) for epoch in history]}
        run.record.counts = {"windows": len(pool.labels), "epochs": len(history)}
    log.info("%s in %s: %s", bundle.model_id, config.output, bundle.metrics["held_out"]["mse_normal"])
    return bundle


def choose_events(lake: str | None, cohort: str | None, model: str | None = None) -> frozenset[str] | None:
    """Keys of the lake's events that an SQL condition holds for; None where there is no condition.

    Raises:
        ConfigError: no such lake, a condition that DuckDB refuses, or no event that it holds for.
    """
    if lake is None or cohort is None:
        return None
    found = sql(open_lake(lake, model), f"SELECT event_uid FROM events WHERE {cohort}")
    if found.empty:
        raise ConfigError("cohort", cohort, f"holds for no event of {lake}", "Widen it.")
    return frozenset(found["event_uid"])


def choose_archives(config: TrainingConfig, cohort: Set[str] | None) -> frozenset[str] | None:
    """URIs of the archives that the cohort's events come from; None for all archives."""
    if config.lake is None or cohort is None or not config.cohort_archives_only:
        return None
    archive_ids = sorted({event.partition("/")[0] for event in cohort})
    rows = open_lake(config.lake, config.lake_model).rows(
        "SELECT uri FROM archives WHERE status = 'committed' AND archive_id IN (SELECT unnest(?))",
        [archive_ids],
    )
    return frozenset(row["uri"] for row in rows)


def _masks(pool: WindowPool, splits: Splits) -> dict[str, Mask]:
    """Which windows belong to the patients of each part."""
    return {part: np.isin(pool.labels.patients_N, names) for part, names in splits.to_json().items()}


def _train(run: Run, pool: WindowPool, masks: Mapping[str, Mask], scaling: Any) -> list[Epoch]:
    """Leaves the start's network with the weights of the best epoch."""
    config, bundle = run.config, run.start.bundle
    normal = {part: masks[part] & pool.labels.is_normal_N for part in ("train", "validation")}
    counts = {part: int(mask_N.sum()) for part, mask_N in normal.items()}
    log.info("%d windows to train and %d to validate, %d workers", *counts.values(), config.workers)
    sizes_by_rank = [
        {part: len(range(rank, count, config.workers)) for part, count in counts.items()}
        for rank in range(config.workers)
    ]
    with closing(_Teller(run)) as teller:
        weights, history = train_on_ray(
            bundle,
            pool.deal(normal, config.workers),
            {
                "fit": _fit_config(config, bundle),
                "threads": config.threads,
                "sizes_by_rank": sizes_by_rank,
            },
            scaling=scaling,
            storage_uri=run.state_uri(pool),
            on_news=teller,
        )
    bundle.network.load_state_dict(weights)
    bundle.network.eval()
    return history


class _Teller:
    """Passes the news of a training on: to people, to the run's log, to trackers."""

    def __init__(self, run: Run) -> None:
        config, self._record = run.config, run.record
        self._trackers = open_trackers(
            config.track, run_id=run.record.run_id, folder=run.folder, options=config.result_options()
        )

    def __call__(self, kind: str, value: Any) -> None:
        if kind == "resumed":
            log.info("going on after epoch %d", value)
        elif kind == "failed":
            log.warning("%s", value)
            self._record.facts.setdefault("failures", []).append(value)
        else:
            log_epoch(value)
            log.info("epoch", extra={"fields": asdict(value)})
            for tracker in self._trackers:
                tracker.track(value)

    def close(self) -> None:
        """Nothing more will come."""
        for tracker in self._trackers:
            tracker.close()


def _fit_config(config: TrainingConfig, bundle: ModelBundle) -> FitConfig:
    return FitConfig(
        epochs=config.epochs,
        batch_windows=config.batch_windows,
        learning_rate=config.learning_rate,
        patience=config.patience,
        seed=config.seed,
        augmentation=config.augmentation,
        fs=bundle.spec.sampling_rate_hz,
    )


def _measure(bundle: ModelBundle, pool: WindowPool, masks: Mapping[str, Mask]) -> ModelBundle:
    """Thresholds from validation, figures from test."""
    labels = {part: pool.labels.take(masks[part]) for part in ("validation", "test")}
    both_N = masks["validation"] | masks["test"]
    errors_M = pool.errors(bundle, both_N)
    errors = {part: errors_M[masks[part][both_N]] for part in labels}
    thresholds = calibrate(errors["validation"], labels["validation"], bundle.spec.leads)
    held_out = held_out_figures(errors["test"], labels["test"], pool.patients_by_source)
    return replace(bundle, thresholds=thresholds, metrics={"held_out": held_out})


def _facts(
    run: Run, pool: WindowPool, splits: Splits, masks: Mapping[str, Mask], history: list[Epoch]
) -> dict[str, Any]:
    config = run.config
    same = (
        "seed",
        "epochs",
        "batch_windows",
        "learning_rate",
        "workers",
        "threads",
        "augmentation",
        "cohort",
    )
    labels: dict[str, WindowLabels] = {part: pool.labels.take(mask_N) for part, mask_N in masks.items()}
    return {
        "code_version": code_version(),
        "data_hash": pool.data_hash,
        "splits": splits.to_json(),
        "num_windows": {part: [len(of), int(of.is_normal_N.sum())] for part, of in labels.items()},
        "left_out": pool.left_out,
        "licences": list(config.licences),
        "training": {
            **{name: getattr(config, name) for name in same},
            "device": "cuda" if config.gpu else "cpu",
            "epochs_run": len(history),
            "best_epoch": best_epoch(history).epoch,
            "history": [
                [epoch.epoch, round(epoch.train_mse, 5), round(epoch.validation_mse, 5)] for epoch in history
            ],
        },
    }


def _save(bundle: ModelBundle, output: str, curve: bytes) -> None:
    """The checkpoint folder with card and picture; on S3 its description is written last."""
    card = write_card(bundle)
    if not is_s3(output):
        (save_checkpoint(bundle, output, card=card) / CURVE_NAME).write_bytes(curve)
        return
    store = Store(output)
    with tempfile.TemporaryDirectory() as folder:
        saved = save_checkpoint(bundle, Path(folder) / "model", card=card)
        store.put(CURVE_NAME, curve)
        for name in (WEIGHTS_NAME, CARD_NAME, DESCRIPTION_NAME):
            store.put(name, (saved / name).read_bytes())


def _forget_state(state_uri: str) -> None:
    """Removes what only an unfinished training needs."""
    filesystem, path = arrow_filesystem(split_object_uri(state_uri)[0])
    filesystem.delete_dir(path)


@contextmanager
def _recorded(start: Start, config: TrainingConfig) -> Iterator[Run]:
    """Writes the run record before and after, and the log of what happens in between."""
    started = time.perf_counter()
    folder = split_object_uri(normalise_uri(config.output))[0]
    store, options = Store(folder), config.result_options()
    start_id = start.bundle.model_id
    run_id = ids.run_id(start.job, {**options, "model_id": start_id})
    record = RunRecord(run_id=run_id, job=start.job, argv=command_line(), config=asdict(config))
    record.begin(store)
    logs = JsonLog(store, run_id)
    logging.getLogger("rmsai_ray").addHandler(logs)
    status, error = "failed", None
    try:
        yield Run(config=config, start=start, folder=folder, record=record, start_id=start_id)
        status = "done"
    except BaseException as reason:
        error = repr(reason)
        raise
    finally:
        logging.getLogger("rmsai_ray").removeHandler(logs)
        logs.flush()
        record.timings_s = {"elapsed": time.perf_counter() - started}
        record.finish(store, status, error)


def _make_demo_archives(uri: str, first_patient: int) -> None:
    store = Store(uri)
    if any(True for _ in store.list()):
        return
    for patient in range(first_patient, first_patient + DEMO_PATIENTS):
        store.put(*simulate_archive(patient, DEMO_EVENTS, seed=1, preset="balanced"))
