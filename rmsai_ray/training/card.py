"""The model card: what a person should know before using a trained model, in Markdown."""

from __future__ import annotations

from typing import Any

from rmsai_ray.models.bundle import ModelBundle

LIMITS = """\
- Research software, not a medical device. The error says that a window is unlike the normal windows of
  training; it is no diagnosis.
- A reconstruction error alone is weak at rhythms of low energy and of ordinary shape, such as bradycardia:
  combine it with the rate class and with detectors on the embedding.
- Embeddings of framed models hold where in the window the beats are, beside their shape: the same rhythm,
  shifted by half a beat, is another embedding.
- Leads, devices and patients unlike those of training have larger errors without being ill. Calibrate
  thresholds on normal windows of your own.
"""


def write_card(bundle: ModelBundle) -> str:
    """The text of ``CARD.md``; every figure in it is also in ``model.json``."""
    facts, metrics = bundle.facts, bundle.metrics
    return "\n".join(
        [
            f"# {bundle.spec.profile}",
            "",
            f"Model id `{bundle.model_id}`, made by code version `{facts['code_version']}`.",
            "",
            "## What it is",
            "",
            *_architecture(bundle),
            "## Training data",
            "",
            *_data(facts),
            "## Figures",
            "",
            "Of the test patients, of whom no window trained the network, chose its weights or calibrated "
            "its thresholds. Errors are squared, in normalised units: 1 is as good as predicting nothing.",
            "",
            *_figures(metrics),
            "## Thresholds",
            "",
            *_thresholds(bundle.thresholds or {}),
            "## Limits",
            "",
            LIMITS,
        ]
    )


def _architecture(bundle: ModelBundle) -> list[str]:
    spec = bundle.spec
    num_parameters = sum(tensor.numel() for tensor in bundle.network.state_dict().values())
    return [
        f"An autoencoder of the family `{spec.family}`: {spec.window_samples} samples of one lead at "
        f"{spec.sampling_rate_hz:g} Hz in, {spec.embedding_dim} numbers in between, {num_parameters:,} "
        f"parameters. Input is normalised by the normaliser of kind `{bundle.normaliser.kind}`, inside the "
        "checkpoint. "
        f"Architecture: {spec.architecture or 'as the source documents describe it'}.",
        "",
    ]


def _data(facts: dict[str, Any]) -> list[str]:
    counts, training = facts["num_windows"], facts["training"]
    return [
        f"Data hash `{facts['data_hash']}`. Divided by patient (seed {training['seed']}); trained and "
        "calibrated on normal windows only.",
        "",
        *_table(
            ("part", "patients", "windows", "normal windows"),
            [(part, len(facts["splits"][part]), *counts[part]) for part in ("train", "validation", "test")],
        ),
        f"Trained for {training['epochs_run']} of at most {training['epochs']} epochs; the weights are those "
        f"of epoch {training['best_epoch']}. Left out: {facts['left_out'] or 'nothing'}.",
        "",
        "Sources and licences:",
        "",
        *[f"- {note}" for note in facts["licences"] or ["not stated"]],
        "",
    ]


def _figures(metrics: dict[str, Any]) -> list[str]:
    held_out = metrics["held_out"]
    auroc = held_out["auroc_abnormal_by_source"]
    return [
        *_table(
            ("normal windows of", "mean squared error", "AUROC abnormal vs. normal, by this error alone"),
            [
                (name, _number(error), _number(auroc[name]))
                for name, error in held_out["mse_normal_by_source"].items()
            ],
        ),
        *_table(
            ("lead", "mean squared error, normal"),
            [(name, _number(error)) for name, error in held_out["mse_normal_by_lead"].items()],
        ),
        *_table(
            ("reported condition, whatever the beats", "mean squared error"),
            [(name, _number(error)) for name, error in held_out["mse_by_condition"].items()],
        ),
    ]


def _thresholds(thresholds: dict[str, Any]) -> list[str]:
    return [
        f"`T_normal` is the {thresholds['percentile']}th percentile of normal validation errors.",
        "",
        *_table(
            ("lead", "T_normal", "windows"),
            [
                (lead, _number(value), thresholds["num_windows"][lead])
                for lead, value in thresholds["T_normal"].items()
            ],
        ),
    ]


def _table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    lines = [header, ("---",) * len(header), *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines] + [""]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
