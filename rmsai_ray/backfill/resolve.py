"""A backfill, resolved: what the options mean for this lake and this model, and what is to be done."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from rmsai_ray import ids, runs
from rmsai_ray.archives.pseudonyms import Door
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.detectors import choose_detector, choose_detector_set
from rmsai_ray.backfill.plan import Unit, choose_unit_bytes, pack_units, with_sources
from rmsai_ray.backfill.read import ReadTask
from rmsai_ray.backfill.registered import located
from rmsai_ray.backfill.score import Scoring
from rmsai_ray.backfill.stages import EncodeTask, LogTask, Tasks, WriteTask
from rmsai_ray.detection.detector_set import DetectorSet
from rmsai_ray.detection.profiles import find_profile
from rmsai_ray.detection.shelf import shelve_detector_set
from rmsai_ray.encoding.encoder import WindowEncoder, limit_threads
from rmsai_ray.errors import ConfigError
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.checkpoint import load_model
from rmsai_ray.models.profiles import DEFAULT_PROFILE, get_profile
from rmsai_ray.models.shelf import shelve_model
from rmsai_ray.models.unnamed import without_names
from rmsai_ray.privacy import Pseudonymiser
from rmsai_ray.signals.leads import select_leads
from rmsai_ray.storage import Store
from rmsai_ray.tables.manifest import Manifest, difference
from rmsai_ray.tables.privacy_mark import check_mark
from rmsai_ray.tables.vectors import VectorTable


@dataclass(frozen=True, kw_only=True)
class Run:
    """A backfill, resolved: what the options mean for this lake and this model."""

    config: BackfillConfig
    run_id: str
    lake: Store
    bundle: ModelBundle
    scoring: Scoring
    detectors: DetectorSet | None = None
    """Fitted detectors that score beside the errors."""
    registered: dict[str, Any] = field(default_factory=dict)
    """What references to the registry stood for when the run began: ``model``, ``detectors``."""
    epoch: int = 0
    """Of the lease with which it holds the lake; 0 before that."""
    pseudonyms: Pseudonymiser | None = None

    @property
    def door(self) -> Door:
        """Between archives and lake."""
        return Door(self.pseudonyms)

    @property
    def fingerprint(self) -> str | None:
        """Of the key of the pseudonyms; None for real names."""
        return self.pseudonyms.fingerprint if self.pseudonyms else None

    @property
    def vectors(self) -> VectorTable:
        """The model's table in LanceDB."""
        return VectorTable(self.lake.uri, self.bundle.model_id, self.bundle.spec.embedding_dim)


def resolve(config: BackfillConfig) -> Run:
    """Loads the model, fixes the thresholds and names the run.

    Raises:
        ConfigError: an option breaks its rule, or the lake's rows have pseudonyms of another kind.
    """
    pseudonyms = Pseudonymiser.from_environment() if config.pseudonymise else None
    fingerprint = pseudonyms.fingerprint if pseudonyms else None
    check_mark(Store(config.lake), fingerprint)
    with located(config) as (local, registered):
        bundle = load_bundle(local)
        detectors = choose_detector_set(local, bundle.model_id)
    detector, set_id = choose_detector(config, detectors), detectors.set_id if detectors else None
    profile = find_profile(
        config.threshold_profile,
        config.lake,
        bundle.thresholds,
        scorer=set_id or bundle.model_id,
        detector=detector,
        quantiles=detectors.calibration if detectors else None,
        false_alarm_rate=config.false_alarm_rate,
    )
    named = replace(config, threshold_profile=profile.name)  # whatever file or step it was read from
    options = named.result_options(bundle.model_id, profile.version, detector, set_id, fingerprint)
    scoring = Scoring(
        profile=profile, detector=detector, verdict_rule=config.verdict_rule, detector_set=set_id
    )
    return Run(
        config=config,
        run_id=ids.run_id("backfill", options),
        lake=Store(config.lake),
        bundle=bundle,
        scoring=scoring,
        detectors=detectors,
        registered=registered,
        pseudonyms=pseudonyms,
    )


def load_bundle(config: BackfillConfig) -> ModelBundle:
    """The model that was asked for; a window profile alone means the packaged model of that name."""
    samples = get_profile(config.profile).window_samples if config.profile else None
    bundle = load_model(config.model or config.profile or DEFAULT_PROFILE, sequence_samples=samples)
    if config.profile and bundle.spec.profile != config.profile:
        raise ConfigError(
            "profile",
            config.profile,
            f"the model {config.model} was made for {bundle.spec.profile}",
            "Leave --profile out, or name a model of that profile.",
        )
    return bundle


def shelve(run: Run) -> None:
    """Puts the model and its detectors into the lake, for the workers and for those who read it later.

    Before that it compares, on CPUs, how the workers will encode with how torch does, which they do without.

    Raises:
        RmsaiError: the two differ.
    """
    if not run.config.num_gpus:
        limit_threads(1)
        WindowEncoder(run.bundle)
    shelve_model(run.lake, without_names(run.bundle, run.pseudonyms) if run.pseudonyms else run.bundle)
    if run.detectors:
        shelve_detector_set(run.lake, run.detectors)


def find_todo(run: Run, listing: pa.Table, manifest: Manifest) -> pa.Table:
    """Listed, and not in the manifest as it is."""
    todo = difference(listing, manifest, run.run_id, retry=run.config.retry_quarantined)
    return with_sources(todo, listing)


def plan_units(run: Run, todo: pa.Table, *, num_workers: int) -> list[Unit]:
    """The units of work, largest first so that the end of the run is even."""
    fixed = run.config.unit_bytes
    return list(
        pack_units(
            todo,
            run_id=run.run_id,
            unit_bytes=lambda left: fixed or choose_unit_bytes(left, num_workers),
            max_archive_bytes=run.config.max_archive_bytes,
            epoch=run.epoch,
            door=run.door,
        )
    )


def tasks_of(run: Run, *, on_gpu: bool, log_prefix: str | None = None) -> Tasks:
    """What the workers need to know of the run; ``log_prefix`` is that of its invocation's logs."""
    config, model_id = run.config, run.bundle.model_id
    return Tasks(
        log=LogTask(
            lake_uri=run.lake.uri, run_id=run.run_id, prefix=log_prefix or runs.log_prefix(run.run_id)
        ),
        read=ReadTask(
            archives_uri=config.archives,
            run_id=run.run_id,
            model_id=model_id,
            code_version=runs.code_version(),
            spec=run.bundle.spec,
            leads=select_leads(config.leads),
            tail=config.tail,
            strict=config.validation == "strict",
            attempts=config.attempts,
            max_archive_bytes=config.max_archive_bytes,
            pseudonyms=run.fingerprint,
            limits=config.limits,
        ),
        encode=EncodeTask(
            lake_uri=run.lake.uri,
            model_id=model_id,
            device="cuda" if on_gpu else "cpu",
            batch_windows=config.batch_windows,
            scoring=run.scoring,
        ),
        write=WriteTask(
            lake_uri=run.lake.uri,
            run_id=run.run_id,
            model_id=model_id,
            embedding_dim=run.bundle.spec.embedding_dim,
            epoch=run.epoch,
        ),
    )
