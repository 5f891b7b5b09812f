"""From the windows of an event to one verdict about the event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rmsai_ray.detection.decisions import NORMAL, SEVERITY
from rmsai_ray.errors import ConfigError

KINDS = (NORMAL, *SEVERITY)
"""What a window can be."""

MIN_SUPPORT_WINDOWS = 2
MIN_SUPPORT_PERCENT = 5
NORMAL_MAJORITY_PERCENT = 90


def event_verdict(types: Sequence[str | None], rule: str = "severity") -> tuple[str, int]:
    """(verdict, support): Normal or an anomaly type, and how many windows carry it.

    Args:
        types: ``anomaly_type`` of the event's windows; None is normal.
        rule: ``severity``, the severest type that 2 windows and 5 % of them carry, so that one outlier among
            hundreds decides nothing (an event of one window needs just that one; where nothing is carried by
            enough windows, the mildest of what they carry); ``max``, the severest type of any window;
            ``majority90``, Normal where 90 % of the windows are, else the most frequent type.

    Raises:
        ConfigError: no rule of that name.
    """
    return _verdict(Counter(NORMAL if kind is None else kind for kind in types), rule)


def event_verdicts(
    support_EK: npt.NDArray[np.integer[Any]], rule: str
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int32]]:
    """:func:`event_verdict` of E events, of which ``support_EK`` counts the windows of each of :data:`KINDS`.

    Raises:
        ConfigError: no rule of that name.
    """
    known: dict[tuple[int, ...], tuple[str, int]] = {}
    verdicts = np.empty(len(support_EK), object)
    support_E = np.empty(len(support_EK), np.int32)
    for event, counts in enumerate(map(tuple, support_EK.tolist())):
        if counts not in known:
            known[counts] = _verdict(
                Counter({kind: num for kind, num in zip(KINDS, counts, strict=True) if num}), rule
            )
        verdicts[event], support_E[event] = known[counts]
    return verdicts, support_E


def _verdict(support: Counter[str], rule: str) -> tuple[str, int]:
    if rule not in RULES:
        raise ConfigError("verdict_rule", rule, "is not a rule", f"Choose from {', '.join(RULES)}.")
    verdict = RULES[rule](support)
    return verdict, support[verdict]


def _severest_with_support(support: Counter[str]) -> str:
    total = support.total()
    least = min(MIN_SUPPORT_WINDOWS, total)
    supported = [
        kind
        for kind, count in support.items()
        if count >= least and 100 * count >= MIN_SUPPORT_PERCENT * total
    ]
    return _severest(supported) if supported else min(support, key=_rank, default=NORMAL)


def _most_frequent_unless_normal(support: Counter[str]) -> str:
    if 100 * support[NORMAL] >= NORMAL_MAJORITY_PERCENT * support.total():
        return NORMAL
    abnormal = [kind for kind in support if kind != NORMAL]
    return max(abnormal, key=lambda kind: (support[kind], SEVERITY[kind]))


def _severest(kinds: Iterable[str]) -> str:
    return max(kinds, key=_rank, default=NORMAL)


def _rank(kind: str) -> int:
    return SEVERITY.get(kind, 0)


RULES: dict[str, Callable[[Counter[str]], str]] = {
    "severity": _severest_with_support,
    "max": _severest,
    "majority90": _most_frequent_unless_normal,
}
