from __future__ import annotations

import pytest

from rmsai_ray.backfill.estimate import Line


def test_what_a_unit_costs_at_least_is_told_from_what_a_byte_costs() -> None:
    line = Line.through([(100, 250), (100, 250), (10, 70)])
    assert (line.start, line.slope) == (pytest.approx(50), pytest.approx(2))


def test_units_of_one_size_cost_in_proportion() -> None:
    assert Line.through([(100, 250)]) == Line(0.0, 2.5)
    assert Line.through([(0, 0)]) == Line(0.0, 0.0)


def test_nothing_costs_less_than_nothing() -> None:
    assert Line.through([(10, 5), (100, 200)]).start == 0.0
    assert Line.through([(10, 50), (100, 20)]).slope == 0.0
