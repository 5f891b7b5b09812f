"""Figures of a score against labels: definitions only, no data and no resampling.

Shapes: N things that are scored (windows, beats, records). Higher scores are more anomalous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

Scores = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.bool_]


def auroc(scores_N: Scores, is_positive_N: Labels, weights_N: Scores | None = None) -> float:
    """Area under the ROC curve, ties count half (scikit-learn); NaN where one class is absent."""
    if not _has_both(is_positive_N, weights_N):
        return float("nan")
    return float(roc_auc_score(is_positive_N, scores_N, sample_weight=weights_N))


def auprc(scores_N: Scores, is_positive_N: Labels, weights_N: Scores | None = None) -> float:
    """Average precision: Σ (recall step) · precision, without interpolation (scikit-learn).

    The score of a coin is the share of positives. NaN where one class is absent.
    """
    if not _has_both(is_positive_N, weights_N):
        return float("nan")
    return float(average_precision_score(is_positive_N, scores_N, sample_weight=weights_N))


def _has_both(is_positive_N: Labels, weights_N: Scores | None) -> bool:
    weighed = is_positive_N if weights_N is None else is_positive_N[weights_N > 0]
    return bool(weighed.any() and not weighed.all())


def macro_auroc(scores_NC: Scores, is_positive_NC: Labels, classes: Sequence[str]) -> dict[str, float]:
    """AUROC of each class against the others, and their unweighted mean as ``macro``.

    A class without positives or without negatives is absent, and not in the mean.
    """
    by_class = {name: auroc(scores_NC[:, c], is_positive_NC[:, c]) for c, name in enumerate(classes)}
    known = {name: value for name, value in by_class.items() if np.isfinite(value)}
    return {**known, "macro": float(np.mean(list(known.values()))) if known else float("nan")}


@dataclass(frozen=True, kw_only=True)
class EventFigures:
    """How alarms look to the person who has to answer them."""

    num_events: int
    """Runs of neighbouring positive windows."""
    num_alarms: int
    """Runs of neighbouring windows above the threshold."""
    sensitivity: float
    """Share of the events that an alarm touches; NaN without events."""
    positive_predictive_value: float
    """Share of the alarms that touch an event; NaN without alarms."""
    false_alarms_per_hour: float
    """Alarms that touch no event, per hour of recording without events; NaN without such an hour."""


def event_figures(
    is_alarm_N: Labels, is_positive_N: Labels, records_N: npt.NDArray[Any], window_s: float
) -> EventFigures:
    """Events and alarms as runs of windows; a run ends with its record.

    An event counts once however long it is, and no window of it is corrected after the fact: the windows
    beside a hit stay misses (what "point adjustment" would change).

    Args:
        is_alarm_N: windows above their threshold, in order of time within each record.
        is_positive_N: windows that are abnormal.
        records_N: which recording a window is of.
        window_s: seconds that a window stands for.
    """
    events, alarms = _runs(is_positive_N, records_N), _runs(is_alarm_N, records_N)
    num_hit = sum(bool(is_alarm_N[first:end].any()) for first, end in events)
    num_right = sum(bool(is_positive_N[first:end].any()) for first, end in alarms)
    quiet_hours = float((~is_positive_N).sum() * window_s / 3600)
    return EventFigures(
        num_events=len(events),
        num_alarms=len(alarms),
        sensitivity=num_hit / len(events) if events else float("nan"),
        positive_predictive_value=num_right / len(alarms) if alarms else float("nan"),
        false_alarms_per_hour=(len(alarms) - num_right) / quiet_hours if quiet_hours else float("nan"),
    )


def _runs(is_set_N: Labels, records_N: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """(first, end) of each run of set windows within one record."""
    if not len(is_set_N):
        return []
    is_new_N = np.append(True, records_N[1:] != records_N[:-1])
    starts = np.flatnonzero(is_set_N & (is_new_N | ~np.append(False, is_set_N[:-1])))
    ends = np.flatnonzero(is_set_N & np.append(is_new_N[1:] | ~is_set_N[1:], True)) + 1
    return list(zip(starts.tolist(), ends.tolist(), strict=True))
