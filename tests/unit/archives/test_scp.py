"""PTB-XL's statements: superclasses as its own table has them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from rmsai_ray.archives.scp import RHYTHM_CODES, SUPERCLASS_OF, superclasses

TABLE = Path(__file__).resolve().parents[4] / "shared" / "data" / "ptbxl" / "scp_statements.csv"


def test_superclasses_are_a_set_whatever_the_likelihoods() -> None:
    assert superclasses({"NORM": 100.0, "SR": 0.0}) == {"NORM"}
    assert superclasses({"IMI": 15.0, "LVH": 0.0, "CLBBB": 100.0, "AFIB": 0.0}) == {"MI", "HYP", "CD"}
    assert superclasses({}) == frozenset()


@pytest.mark.needs_shared_data
@pytest.mark.skipif(not TABLE.is_file(), reason="PTB-XL's table of statements is not beside the checkout")
def test_the_data_are_those_of_the_table() -> None:
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = [{**row, "code": next(iter(row.values()))} for row in csv.DictReader(file)]
    assert {row["code"]: row["diagnostic_class"] for row in rows if row["diagnostic_class"]} == SUPERCLASS_OF
    assert {row["code"] for row in rows if row["rhythm"]} == set(RHYTHM_CODES)
