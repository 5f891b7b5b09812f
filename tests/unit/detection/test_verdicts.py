import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmsai_ray.detection.decisions import SEVERITY
from rmsai_ray.detection.verdicts import KINDS, RULES, event_verdict, event_verdicts
from rmsai_ray.errors import ConfigError

B, T = "Bradycardia", "Tachycardia"
AF, VT = "Atrial Fibrillation", "Ventricular Tachycardia"
N = None


@pytest.mark.parametrize(
    ("types", "severity", "largest", "majority90"),
    [
        ([], ("Normal", 0), ("Normal", 0), ("Normal", 0)),
        ([N] * 7, ("Normal", 7), ("Normal", 7), ("Normal", 7)),
        ([VT], (VT, 1), (VT, 1), (VT, 1)),  # all there is
        ([N, VT], ("Normal", 1), (VT, 1), (VT, 1)),
        ([VT, AF], (AF, 1), (VT, 1), (VT, 1)),  # both are AF at least
        ([N] * 6 + [VT], ("Normal", 6), (VT, 1), (VT, 1)),
        ([N] * 5 + [VT] * 2, (VT, 2), (VT, 2), (VT, 2)),
        ([N] * 229 + [VT] * 2, ("Normal", 229), (VT, 2), ("Normal", 229)),  # two windows, but 0.9 %
        ([N] * 133 + [VT] * 7, (VT, 7), (VT, 7), ("Normal", 133)),  # exactly 5 %
        ([N] * 134 + [VT] * 6, ("Normal", 134), (VT, 6), ("Normal", 134)),
        ([T] * 6 + [VT], (T, 6), (VT, 1), (T, 6)),
        ([T] * 4 + [AF] * 3, (AF, 3), (AF, 3), (T, 4)),
        ([B] * 3 + [AF] * 3 + [N], (AF, 3), (AF, 3), (AF, 3)),  # as many of both: the severer
        ([N] * 18 + [B] * 2, (B, 2), (B, 2), ("Normal", 18)),  # exactly 90 %
        ([N] * 17 + [B] * 2 + [VT], (B, 2), (VT, 1), (B, 2)),
    ],
)
def test_verdicts_by_rule(
    types: list[str | None], severity: tuple[str, int], largest: tuple[str, int], majority90: tuple[str, int]
) -> None:
    assert event_verdict(types, "severity") == severity
    assert event_verdict(types, "max") == largest
    assert event_verdict(types, "majority90") == majority90


@given(
    st.lists(st.sampled_from([None, *SEVERITY]), max_size=300), st.sampled_from(sorted(RULES)), st.randoms()
)
def test_the_order_of_windows_and_the_support_count(types: list[str | None], rule: str, random) -> None:  # type: ignore[no-untyped-def]
    verdict, support = event_verdict(types, rule)
    assert support == sum((kind or "Normal") == verdict for kind in types)
    random.shuffle(types)
    assert event_verdict(types, rule) == (verdict, support)


@given(
    st.lists(st.lists(st.sampled_from([None, *SEVERITY]), max_size=12), max_size=8),
    st.sampled_from(sorted(RULES)),
)
def test_many_events_are_judged_as_each_alone(events: list[list[str | None]], rule: str) -> None:
    support_EK = np.array(
        [[[*map(str, types)].count(kind) for kind in ("None", *KINDS[1:])] for types in events]
    )
    verdicts, support = event_verdicts(support_EK.reshape(len(events), len(KINDS)), rule)
    assert list(zip(verdicts, support, strict=True)) == [event_verdict(types, rule) for types in events]


@given(st.lists(st.sampled_from([None, *SEVERITY]), max_size=60))
def test_support_can_only_soften_the_worst(types: list[str | None]) -> None:
    supported, _ = event_verdict(types, "severity")
    worst, _ = event_verdict(types, "max")
    assert SEVERITY.get(supported, 0) <= SEVERITY.get(worst, 0)


@given(st.lists(st.sampled_from([*SEVERITY]), min_size=1, max_size=20), st.sampled_from(sorted(RULES)))
def test_an_event_without_a_normal_window_is_not_normal(types: list[str], rule: str) -> None:
    assert event_verdict(types, rule)[0] != "Normal"


def test_an_unknown_rule_is_answered_with_the_list() -> None:
    with pytest.raises(ConfigError, match="severity, max, majority90"):
        event_verdict([], "vote")
