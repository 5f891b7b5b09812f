"""The model card: what a person should know before using a trained model, in Markdown."""

from __future__ import annotations

from typing import Any

from rmsai_ray.archives.labels import NORMAL
from rmsai_ray.models.bundle import ModelBundle

LIMITS = (
    "Research software, not a medical device. The error says that a window is unlike the normal windows of "
    "training; it is no diagnosis.",
    "A reconstruction error alone is weak at rhythms of low energy and of ordinary shape, such as "
    "bradycardia: combine it with the rate class and with detectors on the embedding.",
    "Leads, devices and patients unlike those of training have larger errors without being ill. Calibrate "
    "thresholds on normal windows of your own.",
)
LIMITS_OF_FAMILIES = {
    "framed": (
        "The decoder is told where the beats are, so the error does not say whether they come at the right "
        "time: irregular rhythms of ordinary beats are for the rhythm detector and the ensemble.",
        "The shape of this network and its training were chosen in trials on development recordings of "
        "MIT-BIH and PTB-XL (`docs/experiments.md`), so figures of such recordings above are a little kind. "
        "Records kept apart from all of this are for an independent evaluation.",
    ),
}


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
            *_lineage(facts),
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
            *[f"- {limit}" for limit in _limits(bundle)],
            "",
        ]
    )


def _architecture(bundle: ModelBundle) -> list[str]:
    spec = bundle.spec
    num_parameters = sum(tensor.numel() for tensor in bundle.network.state_dict().values())
    return [
        f"An autoencoder of the family `{spec.family}`: {spec.window_samples} samples of one lead at "
        f"{spec.sampling_rate_hz:g} Hz in, {spec.embedding_dim} numbers in between, {num_parameters:,} "
        f"parameters. Input is normalised as `{bundle.normaliser.to_json()}` says, inside the "
        "checkpoint. "
        f"Architecture: {spec.architecture or 'as the source documents describe it'}.",
        "",
    ]


def _lineage(facts: dict[str, Any]) -> list[str]:
    if not facts.get("lineage"):
        return []
    *older, parent = facts["lineage"]
    frozen = ", ".join(f"`{prefix}…`" for prefix in facts["frozen"])
    lines = [
        f"Fine-tuned from `{parent['model_id']}`, trained on data `{parent['data_hash'] or 'unknown'}`; "
        f"layers left as they were: {frozen or 'none'}. Patients whom it knew stay in the part they were in."
    ]
    if older:
        names = ", ".join(f"`{ancestor['model_id']}`" for ancestor in reversed(older))
        lines.append(f"Before that: {names}.")
    return [*lines, ""]


def _limits(bundle: ModelBundle) -> list[str]:
    limits = [*LIMITS, *LIMITS_OF_FAMILIES.get(bundle.spec.family, ())]
    errors = bundle.metrics["held_out"]["mse_by_condition"]
    like_normal = [
        name for name, error in errors.items() if name != NORMAL and error <= errors.get(NORMAL, -1.0)
    ]
    if like_normal:
        limits.append(
            f"On average reconstructed no worse than what is reported as Normal (compare the table above): "
            f"{', '.join(like_normal)}. This error does not find them; they are for the rate class and for "
            "other detectors."
        )
    return limits


def _data(facts: dict[str, Any]) -> list[str]:
    counts, training = facts["num_windows"], facts["training"]
    return [
        f"Data hash `{facts['data_hash']}`. Divided by patient (seed {training['seed']}); trained and "
        f"calibrated on normal windows only{_cohort(training)}.",
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


def _cohort(training: dict[str, Any]) -> str:
    cohort = training.get("cohort")
    return f", of events for which `{cohort}`" if cohort else ""


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
