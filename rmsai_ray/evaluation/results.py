"""Scores become figures: one table of all scores, alarms as people meet them, rates as they come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rmsai_ray.detection.calibration import realised_rates
from rmsai_ray.evaluation.bootstrap import draw_patients, figures_with_intervals
from rmsai_ray.evaluation.metrics import auroc, event_figures
from rmsai_ray.evaluation.protocol import Protocol
from rmsai_ray.evaluation.scoring import FloatArray, Scored

SHUFFLES = 20
TOLERANCE_POINTS = 1.5
"""By how many percentage points a realised rate may miss the requested one."""


def score_table(
    scores: Mapping[str, FloatArray],
    is_positive_U: npt.NDArray[np.bool_],
    groups_U: npt.NDArray[Any],
    protocol: Protocol,
    *,
    ours: tuple[str, ...],
    seed: int,
    num_draws: int,
) -> list[dict[str, Any]]:
    """One row a score: AUROC and AUPRC, and what they are above the protocol's baseline, with intervals.

    Args:
        scores: by name.
        is_positive_U: labels.
        groups_U: what is drawn again for the intervals: patients.
        protocol: names the declared score and the baseline.
        ours: scores that are no baselines.
        seed: of the draws.
        num_draws: how many.
    """
    weights = draw_patients(groups_U, seed=seed, num_draws=num_draws)
    base = protocol.compared_with if protocol.compared_with in scores else None
    roc, above = figures_with_intervals("auroc", scores, is_positive_U, weights, compared_with=base)
    precision, _ = figures_with_intervals("auprc", scores, is_positive_U, weights)
    return [
        {
            "score": name,
            "role": _role(name, protocol, ours),
            "auroc": roc[name].to_json(),
            "auprc": precision[name].to_json(),
            "auroc_above_baseline": above[name].to_json() if name in above else None,
            "circular": protocol.circular.get(name),
        }
        for name in sorted(scores, key=lambda name: (name not in ours, -roc[name].value))
    ]


def _role(name: str, protocol: Protocol, ours: tuple[str, ...]) -> str:
    roles = [role for role in ("declared", "waveform", "reconstruction") if getattr(protocol, role) == name]
    return " and ".join(roles) or ("ours" if name in ours else "baseline")


def shuffled_auroc(scores_U: FloatArray, is_positive_U: npt.NDArray[np.bool_], seed: int) -> dict[str, float]:
    """Mean and extremes of the AUROC when labels are dealt at random: 0.5, or the evaluation is wrong."""
    rng = np.random.default_rng(seed)
    values = [auroc(scores_U, rng.permutation(is_positive_U)) for _ in range(SHUFFLES)]
    return {"mean": float(np.mean(values)), "low": float(np.min(values)), "high": float(np.max(values))}


def by_round(scored: Scored, is_positive_U: npt.NDArray[np.bool_], names: list[str]) -> list[dict[str, Any]]:
    """AUROC within each round, where nothing has to be comparable between models."""
    rounds = scored.moments["round"].to_numpy()
    return [
        {
            "round": str(name),
            "patients": int(scored.moments["patient"][rounds == name].nunique()),
            "moments": int((rounds == name).sum()),
            "positives": int(is_positive_U[rounds == name].sum()),
            **{
                f"auroc {score}": auroc(scored.scores[score][rounds == name], is_positive_U[rounds == name])
                for score in names
            },
        }
        for name in pd.unique(rounds)
    ]


def alarms(scored: Scored, is_positive_U: npt.NDArray[np.bool_], window_s: float) -> list[dict[str, Any]]:
    """Event sensitivity, PPV and false alarms an hour of the declared score, by requested rate."""
    records = scored.moments["record"].to_numpy()
    return [
        {
            "requested_rate": rate,
            **asdict(event_figures(margin_U > 0, is_positive_U, records, window_s)),
        }
        for rate, margin_U in scored.margins.items()
    ]


def reliability(scored: Scored, protocol: Protocol, *, seed: int, num_draws: int) -> list[dict[str, Any]]:
    """Requested and realised rate of windows by lead (as a lake decides), normal windows of test patients."""
    windows, rows = scored.windows, []
    for rate in protocol.false_alarm_rates:
        found = realised_rates(
            windows[f"margin {rate}"],
            windows["lead"],
            windows["patient"],
            windows["is_normal"],
            {"*": 0.0},
            seed=seed,
            num_resamples=num_draws,
        )
        rows += [_reliability_row(rate, asdict(one)) for one in found]
    return rows


def _reliability_row(rate: float, found: dict[str, Any]) -> dict[str, Any]:
    off_points = 100 * (found["rate"] - rate)
    del found["threshold"]  # margins are compared with 0
    return {
        "requested_rate": rate,
        **found,
        "off_points": round(off_points, 2),
        "within_tolerance": bool(abs(off_points) <= TOLERANCE_POINTS),
    }
