"""Beats that others cut and standardised, of one patient (ECG5000): train on normals, score the rest.

Shapes: N beats, T samples of a beat.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rmsai_ray.detection.detector_set import ENSEMBLE, assemble_detector_set, fit_detector
from rmsai_ray.errors import ConfigError
from rmsai_ray.evaluation.baselines import Part, baseline_scores
from rmsai_ray.evaluation.config import EvaluateConfig
from rmsai_ray.evaluation.measuring import Measurer
from rmsai_ray.evaluation.pictures import draw_curves
from rmsai_ray.evaluation.protocol import Protocol
from rmsai_ray.evaluation.results import score_table, shuffled_auroc
from rmsai_ray.ids import archive_id
from rmsai_ray.models.bundle import ModelBundle, ModelSpec
from rmsai_ray.models.checkpoint import untrained_like
from rmsai_ray.training.data import WindowSet
from rmsai_ray.training.loop import FitConfig, fit

log = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]

ARRAYS = ("train_x", "train_class", "test_x", "test_is_anomaly")
NORMAL_CLASS = 1
BATCH_BEATS, LEARNING_RATE = 32, 3e-3
LEAD = "ECG"
NOTHING_TO_SEE = ("heart_rate", "rr_irregularity")
"""Baselines that need more than one beat."""


def run(
    config: EvaluateConfig,
    protocol: Protocol,
    folder: Path,
    open_part: Callable[[str], list[dict[str, Any]]],
) -> dict[str, Any]:
    """Everything that the report says. There is one patient: intervals are over beats."""
    arrays, data_hash = _read(config)
    bundle, parts = _train(arrays["train_x"][arrays["train_class"] == NORMAL_CLASS], protocol, config)
    uses = open_part(data_hash)  # the test beats are looked at from here on
    parts["test"] = _beats(arrays["test_x"])
    is_positive_N = arrays["test_is_anomaly"].astype(np.bool_)
    scores, ours = _scores(bundle, parts, protocol, config)
    draw_curves(folder / "curves.png", scores, is_positive_N, protocol, ours)
    return {
        "models": [bundle.model_id],
        "data_hash": data_hash,
        "test_uses": uses,
        "counts": {part: len(windows) for part, windows in parts.items()}
        | {"positives": int(is_positive_N.sum())},
        "scores": score_table(
            scores,
            is_positive_N,
            np.arange(len(is_positive_N)),
            protocol,
            ours=ours,
            seed=config.seed,
            num_draws=config.draws,
        ),
        "interval_over": "beats of one patient: nothing is known of other patients",
        "shuffled_labels": shuffled_auroc(scores[protocol.declared], is_positive_N, config.seed),
    }


def _read(config: EvaluateConfig) -> tuple[Mapping[str, npt.NDArray[Any]], str]:
    path = Path(config.beats_file or "")
    if not path.is_file():
        raise ConfigError("beats_file", config.beats_file, "is no file", "Give the .npz of ECG5000.")
    with np.load(path, allow_pickle=False) as file:
        missing = sorted(set(ARRAYS) - set(file.files))
        if missing:
            raise ConfigError("beats_file", str(path), f"lacks {', '.join(missing)}", "Give ECG5000's.")
        return {name: file[name] for name in ARRAYS}, archive_id(path.read_bytes())


def _beats(x_NT: FloatArray) -> WindowSet:
    num = len(x_NT)
    return WindowSet(
        signals_NT=x_NT.astype(np.float32),
        num_samples_N=np.full(num, x_NT.shape[1], np.int32),
        leads_N=np.full(num, LEAD),
        patients_N=np.full(num, "chf-15"),
        conditions_N=np.full(num, "Normal"),
        is_normal_N=np.ones(num, np.bool_),
    )


def _train(
    normal_NT: FloatArray, protocol: Protocol, config: EvaluateConfig
) -> tuple[ModelBundle, dict[str, WindowSet]]:
    order = np.random.default_rng(protocol.split.seed).permutation(len(normal_NT))
    num_validation = round(protocol.split.validation_share * len(order))
    parts = {
        "train": _beats(normal_NT[order[num_validation:]]),
        "validation": _beats(normal_NT[order[:num_validation]]),
    }
    bundle = untrained_like(_spec(protocol, normal_NT.shape[1]), seed=config.seed)
    epochs = config.retrain or int(protocol.network["epochs"])
    fit_config = FitConfig(
        epochs=epochs,
        batch_windows=BATCH_BEATS,
        learning_rate=LEARNING_RATE,
        patience=epochs,
        seed=config.seed,
        augmentation="none",
    )
    log.info("training on %d normal beats", len(parts["train"]))
    fit(bundle.network, bundle.normaliser, parts["train"], parts["validation"], fit_config)
    return replace(bundle, trained=True), parts


def _spec(protocol: Protocol, window_samples: int) -> ModelSpec:
    network = protocol.network
    return ModelSpec(
        family=network["family"],
        profile=protocol.name,
        window_samples=window_samples,
        stride_samples=window_samples,
        sampling_rate_hz=network["sampling_rate_hz"],
        embedding_dim=network["embedding_dim"],
        leads=(LEAD,),
        architecture=dict(network["architecture"]),
    )


def _scores(
    bundle: ModelBundle, parts: Mapping[str, WindowSet], protocol: Protocol, config: EvaluateConfig
) -> tuple[dict[str, FloatArray], tuple[str, ...]]:
    measurers = {part: Measurer(windows, seed=config.seed) for part, windows in parts.items()}
    measured = {part: measurer.measured(bundle) for part, measurer in measurers.items()}
    names = sorted({name for members in protocol.sets.values() for name in members})
    detectors = {name: fit_detector(name, measured["train"], config.seed) for name in names}
    ours = {name: detector.anomaly_score(measured["test"]) for name, detector in detectors.items()}
    for name, members in protocol.sets.items():
        ensemble = assemble_detector_set(
            {member: detectors[member] for member in members},
            measured["validation"],
            model_id=bundle.model_id,
        )
        ours[name] = ensemble.scores(measured["test"])[ENSEMBLE]
    untrained = {
        part: Part(measurer.windows, measurer.untrained(bundle)) for part, measurer in measurers.items()
    }
    base = baseline_scores(
        untrained["train"], {"test": untrained["test"]}, bundle.spec.sampling_rate_hz, seed=config.seed
    )["test"]
    kept = {name: values for name, values in base.items() if name not in NOTHING_TO_SEE}
    return {**ours, **kept}, tuple(ours)
