from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmsai_ray.archives.limits import MEBIBYTE
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.plan import Unit, choose_unit_bytes, list_archives, pack_units, period_in_name
from rmsai_ray.backfill.read import unit_from_json, unit_to_json
from rmsai_ray.errors import ConfigError

NOON = datetime(2025, 10, 3, 12, tzinfo=UTC)


def archive(uri: str, size: int = 10, **changes: Any) -> dict[str, Any]:
    base = {
        "uri": uri, "size": size, "etag": "e", "modified_time": NOON, "replaces": "",
        "previous_archive_id": None, "same_size_ids": [],
    }  # fmt: skip
    return base | changes


def pack(*archives: dict[str, Any], unit_bytes: int = 20, limit: int = 1000, run: str = "r") -> list[Unit]:
    todo = pa.Table.from_pylist(list(archives))
    return list(pack_units(todo, run_id=run, unit_bytes=lambda left: unit_bytes, max_archive_bytes=limit))


def uris(units: list[Unit]) -> list[list[str]]:
    return [[found["uri"] for found in unit.archives] for unit in units]


def test_units_close_before_they_would_grow_too_large() -> None:
    units = pack(archive("a"), archive("b"), archive("c"), archive("d", 21), archive("e"))
    assert uris(units) == [["a", "b"], ["c"], ["d"], ["e"]]
    assert [unit.num_bytes for unit in units] == [20, 10, 21, 10]


def test_archives_of_one_period_lie_together() -> None:
    names = ["PT1_2025-10.h5", "PT2_2025-09.h5", "PT3_2025-10.h5", "PT4_2025-09.h5"]
    assert uris(pack(*map(archive, names))) == [names[1::2], names[::2]]


def test_members_of_a_pack_stay_together() -> None:
    members = [archive(f"a.pack.h5#PT{i}_2025-{10 + i % 2}.h5") for i in range(4)]
    units = pack(archive("PT9_2025-10.h5"), *members, archive("b.h5"))
    assert uris(units) == [["PT9_2025-10.h5", "b.h5"], [row["uri"] for row in members]]


def test_a_unit_is_in_the_order_of_names_whatever_the_periods() -> None:
    names = ["PT1_2025-10.h5", "PT2_2025-09.h5", "copies/of_the_first.h5"]
    assert uris(pack(*map(archive, names), unit_bytes=100)) == [names]


def test_what_is_never_fetched_takes_no_room() -> None:
    assert uris(pack(archive("a"), archive("huge", 10**9), archive("z"))) == [["a", "huge", "z"]]


def test_nothing_to_do_is_no_unit() -> None:
    assert (
        list(pack_units(pa.table({"uri": []}), run_id="r", unit_bytes=lambda left: 1, max_archive_bytes=1))
        == []
    )


def test_units_shrink_with_what_is_left() -> None:
    todo = pa.Table.from_pylist([archive(f"{i:02}") for i in range(16)])
    units = pack_units(todo, run_id="r", unit_bytes=lambda left: max(10, left // 4), max_archive_bytes=1000)
    assert [len(unit.archives) for unit in units] == [4, 3, 2, 1, 1, 1, 1, 1, 1, 1]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=12),
    st.integers(1, 40),
    st.randoms(use_true_random=False),
)
def test_every_archive_is_in_one_unit_whatever_the_order(
    sizes: list[int], unit_bytes: int, random: Any
) -> None:
    archives = [archive(f"PT{i}_2025-{i % 3 + 1:02}.h5", size) for i, size in enumerate(sizes)]
    units = pack(*archives, unit_bytes=unit_bytes)
    assert sorted(uri for unit in uris(units) for uri in unit) == sorted(found["uri"] for found in archives)
    assert all(unit.num_bytes <= unit_bytes or len(unit.archives) == 1 for unit in units)
    shuffled = pack(*random.sample(archives, len(archives)), unit_bytes=unit_bytes)
    assert [unit.unit_id for unit in shuffled] == [unit.unit_id for unit in units]


def test_a_unit_is_named_by_its_run_its_inputs_and_what_they_replace() -> None:
    base = archive("a")
    units = [
        pack(base), pack(base, run="other"), pack(archive("b")), pack(archive("a", 11)),
        pack(archive("a", etag="f")), pack(archive("a", replaces="u1")), pack(base, archive("b")),
    ]  # fmt: skip
    assert len({found[0].unit_id for found in units}) == len(units)
    unrelated = archive("a", same_size_ids=["x"], previous_archive_id="y", modified_time=NOON.replace(hour=1))
    assert pack(unrelated)[0].unit_id == pack(base)[0].unit_id


def test_a_unit_travels_as_json() -> None:
    (unit,) = pack(archive("/ä.h5", previous_archive_id="y", same_size_ids=["x"]))
    assert unit_from_json(unit_to_json(unit)) == unit


@pytest.mark.parametrize(
    ("total", "workers", "mebibytes"), [(0, 1, 2), (100, 2, 25), (160, 1, 80), (10**6, 4, 256), (10, 16, 2)]
)
def test_units_are_small_enough_to_share_and_never_tiny_or_huge(
    total: int, workers: int, mebibytes: float
) -> None:
    assert choose_unit_bytes(total * MEBIBYTE, workers) == mebibytes * MEBIBYTE


@pytest.mark.parametrize(
    ("uri", "period"),
    [("s3://b/PT1_2025-09.h5", "2025-09"), ("/a_2024-01.d/PT1.h5", ""), ("PT_1_2025-10.hdf5", "2025-10"),
     ("PT1_2025-9.h5", "")],
)  # fmt: skip
def test_period_in_name(uri: str, period: str) -> None:
    assert period_in_name(uri) == period


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four archives, modified on successive days at noon UTC, and what is no archive."""
    names = [
        "PT1_2025-09.h5",
        "PT2_2025-10.hdf5",
        "ward/PT1_2025-10.h5",
        "ward/PT3_2025-11.h5",
        "ward/notes.txt",
    ]
    for days, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"123")
        seconds = NOON.timestamp() + days * 86400
        os.utime(path, (seconds, seconds))
    return tmp_path


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, {0, 1, 2, 3}),
        ({"prefix": "ward/PT"}, {2, 3}),
        ({"prefix": "PT1"}, {0}),
        ({"period": "2025-10"}, {1, 2}),
        ({"since": date(2025, 10, 4)}, {1, 2, 3}),
        ({"until": date(2025, 10, 4)}, {0, 1}),
        ({"since": date(2025, 10, 4), "until": date(2025, 10, 4)}, {1}),
        ({"prefix": "ward/", "period": "2025-11"}, {3}),
        ({"period": "2024-01"}, set()),
    ],
)
def test_filters(folder: Path, filters: dict[str, Any], expected: set[int]) -> None:
    config = BackfillConfig(archives=str(folder), lake="unused", **filters)
    listed = list_archives(config).to_pylist()
    day = {row["modified_time"].day - NOON.day for row in listed}
    assert day == expected
    assert all(row["uri"].startswith(f"{folder}/") and row["size"] == 3 and row["etag"] for row in listed)


def test_one_archive_can_be_named(folder: Path) -> None:
    config = BackfillConfig(archives=str(folder / "ward/PT1_2025-10.h5"), lake="unused")
    assert list_archives(config)["uri"].to_pylist() == [str(folder / "ward/PT1_2025-10.h5")]


@pytest.mark.parametrize(
    ("name", "value"),
    [("leads", ("II",)), ("max_reject_fraction", 1.5), ("max_reject_fraction", -0.1), ("period", "2025/10"),
     ("attempts", 0), ("max_archive_bytes", -1), ("batch_windows", 0), ("unit_bytes", 0), ("watch", 0.0),
     ("num_encoders", 0), ("num_gpus", -1.0)],
)  # fmt: skip
def test_bad_options_name_value_rule_and_fix(name: str, value: Any) -> None:
    good = BackfillConfig(archives="a", lake="l")
    with pytest.raises(ConfigError, match=rf"^{name}=.*: .+\. .+\.$"):
        replace(good, **{name: value})


def test_only_what_can_change_a_result_names_the_run() -> None:
    base = BackfillConfig(archives="a", lake="l")
    resolved = ("m", "1", "knn", "m+12345678")
    expected = base.result_options(*resolved)
    same = replace(base, num_encoders=2, batch_windows=7, prefix="PT1", unit_bytes=5, attempts=1)
    assert same.result_options(*resolved) == expected
    all_leads = replace(base, leads=("vVX", "aVF", "aVL", "aVR", "ECG3", "ECG2", "ECG1"))
    assert all_leads.result_options(*resolved) == expected
    for change in (
        {"leads": ("ECG1",)}, {"verdict_rule": "max"}, {"validation": "strict"}, {"tail": False},
        {"threshold_profile": "seed"},
    ):  # fmt: skip
        changed = replace(base, **change)  # type: ignore[arg-type]
        assert changed.result_options(*resolved) != expected, change
    for place, other in enumerate(("n", "2", "rhythm", None)):
        assert base.result_options(*resolved[:place], other, *resolved[place + 1 :]) != expected
