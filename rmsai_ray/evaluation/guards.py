"""What an evaluation refuses: seen patients, flattering figures, and a second look at the test part."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from rmsai_ray.errors import ConfigError
from rmsai_ray.runs import now
from rmsai_ray.storage import Store

LEDGER = "test_uses.json"

METRICS = ("auroc", "auprc", "event_sensitivity", "false_alarms_per_hour", "vus_pr")

REFUSED_METRICS = {
    "point_adjusted_f1": (
        "counts a whole event as found when one point of it is, so that random scores beat published models "
        "(Kim et al., AAAI 2022)"
    ),
    "best_f1": "chooses its threshold on the labels that it is measured with",
    "accuracy": "is high for a score that never raises an alarm, because most windows are normal",
}
ALIASES = {"point_adjust_f1": "point_adjusted_f1", "f1_pa": "point_adjusted_f1", "pa_f1": "point_adjusted_f1"}


def check_metrics(names: Collection[str]) -> None:
    """Raises ConfigError for a metric that flatters, with the reason, and for one that is unknown."""
    for name in names:
        plain = name.lower().replace("-", "_")
        plain = ALIASES.get(plain, plain)
        if plain in REFUSED_METRICS:
            raise ConfigError("metrics", name, f"is refused: it {REFUSED_METRICS[plain]}", "Use auprc.")
        if plain not in METRICS:
            raise ConfigError("metrics", name, "is not known", f"Choose from {', '.join(METRICS)}.")


def check_disjoint(parts: Mapping[str, Collection[str]]) -> None:
    """Raises ConfigError where a patient is in two of the named parts."""
    names = list(parts)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = sorted(set(parts[first]) & set(parts[second]))
            if both:
                raise ConfigError(
                    "patients",
                    _some(both),
                    f"are in {first} and in {second}",
                    "A patient belongs to one part: what was learnt of a person is no finding about others.",
                )


def seen_patients(facts: Mapping[str, Any]) -> set[str] | None:
    """Patients that trained a checkpoint or chose its weights; None where it does not tell, or tells them by
    pseudonyms, as the copy in a pseudonymised lake does."""
    splits = facts.get("splits")
    if not isinstance(splits, Mapping) or "train" not in splits or facts.get("pseudonyms"):
        return None
    return {patient for part in ("train", "validation") for patient in splits.get(part, ())}


def check_unseen(model: str, facts: Mapping[str, Any], trained: bool, test: Collection[str]) -> None:
    """Raises ConfigError where a checkpoint has seen test patients, or does not say whom it has seen."""
    if not trained:
        return
    seen = seen_patients(facts)
    if seen is None:
        raise ConfigError(
            "model",
            model,
            "does not say which patients it was trained on, so that nothing shows it has not seen these",
            "Train it with jobs/pretrain.py, which stores its splits.",
        )
    both = sorted(seen & set(test))
    if both:
        raise ConfigError(
            "model",
            model,
            f"was trained or validated on {len(both)} of {len(set(test))} test patients: {_some(both)}",
            "Use --unseen-only to test on the others, or a model per fold: --fold-models or --retrain.",
        )


def open_test_part(
    store: Store, *, protocol: str, data_hash: str, run_id: str, reopen: str | None
) -> list[dict[str, Any]]:
    """Notes in the ledger that the test part is about to be used, and returns all its uses, oldest first.

    The same run may look again, since it sees the same; another one needs a reason.

    Raises:
        ConfigError: another run has used the part, and no reason to open it again is given.
    """
    ledger: dict[str, list[dict[str, Any]]] = json.loads(store.find(LEDGER) or b"{}")
    uses = ledger.setdefault(f"{protocol}/{data_hash}", [])
    others = [use for use in uses if use["run_id"] != run_id]
    if others and reopen is None:
        raise ConfigError(
            "protocol",
            protocol,
            f"its test part was used on {others[-1]['time'][:16]} by {others[-1]['run_id']}; what is chosen "
            "after looking at it twice is chosen on it",
            "Give a reason with --reopen-test, which the report will show.",
        )
    uses.append({"run_id": run_id, "time": now().isoformat(), "reason": reopen})
    store.put(LEDGER, (json.dumps(ledger, indent=1) + "\n").encode())
    return uses


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
