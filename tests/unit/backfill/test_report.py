from __future__ import annotations

import io

import pyarrow as pa
import pytest
from rich.console import Console

from rmsai_ray.backfill.flow import check_rejects
from rmsai_ray.backfill.report import BY_LIBRARY, Summary, count_status, print_summary, unit_report
from rmsai_ray.errors import RejectLimitError
from rmsai_ray.tables.blocks import UnitTables
from tests.small_tables import events, rejects, windows


def unit() -> UnitTables:
    """Three windows of two leads, one of them anomalous; a copy; an archive that is broken."""
    sick = windows("u1", "x", 1, condition="AF", lead="ECG2", is_anomaly=True)
    well = windows("u1", "y", 2, condition="Normal", lead="ECG1")
    line = {"archive_id": "x", "attempts": 1, "num_windows": 1, "error": None}
    return UnitTables(
        unit_id="u1",
        archives=[
            {**line, "uri": uri, "status": status, "patient_id": "PT1"}
            for uri, status in (
                ("/x", "committed"),
                ("/y", "committed"),
                ("/c", "skipped"),
                ("/b", "quarantined"),
            )
        ],
        windows=pa.concat_tables([sick, well]),
        events=events("u1", "x", "y"),
        rejects=rejects("u1", "/b").set_column(5, "reason", pa.array(["corrupt"])),
        seconds={},
        num_bytes={},
    )


def report() -> dict[str, object]:
    return unit_report(unit(), {"read": 1.0, "encode": 3.0, "write": 0.5}, {"read": 2**20, "parquet": 2**19})


def shown(summary: Summary) -> str:
    text = io.StringIO()
    console = Console(file=text, width=120)
    listing, places = {"committed": 3, "quarantined": 1}, {"tables": "/lake/{events}/", "next": "rmsai stats"}
    print_summary(
        console,
        summary,
        listing=listing,
        places=places,
        elapsed_s=12.34,
        binding="encode, at 47% of the bound",
    )
    return text.getvalue()


def test_a_report_counts_what_became_of_everything() -> None:
    found = report()
    assert found["archives"] == {"committed": 2, "skipped": 1, "quarantined": 1}
    assert found["counts"] == {"events": 2, "windows": 3, "anomalies": 1}
    assert found["windows_by"] == {"AF\tECG2": 1, "Normal\tECG1": 2}
    assert found["anomalies_by"] == {"AF\tECG2": 1}
    assert found["rejects"] == {"corrupt": 1}


def test_the_summary_says_what_was_read_the_slow_way() -> None:
    summary = Summary()
    summary.add(report())
    assert "unusual layout" not in shown(summary)
    summary.num_bytes[BY_LIBRARY] = 2**21
    assert "2.0 MiB, which take three times" in shown(summary)


def test_a_report_names_its_unit_and_how_often_reads_were_tried_again() -> None:
    found = report()
    assert found["unit_id"]
    assert found["retries"] == 0


def test_a_unit_without_windows_reports_zeros() -> None:
    empty = UnitTables(
        unit_id="u", archives=[], windows=windows("u", "x", 0), events=events("u"), rejects=rejects("u"),
        seconds={}, num_bytes={},
    )  # fmt: skip
    assert unit_report(empty, {}, {})["counts"] == {"events": 0, "windows": 0, "anomalies": 0}


def test_reports_add_up() -> None:
    summary = Summary()
    assert summary.slowest_stage is None
    for _ in range(2):
        summary.add(report())
    assert summary.num_units == 2
    assert summary.slowest_stage == "encode"
    assert summary.to_json() == {
        "archives": {"committed": 4, "skipped": 2, "quarantined": 2},
        "events": 4,
        "windows": 6,
        "anomalies": 2,
        "rejects": {"corrupt": 2},
        "bytes": {"read": 2**21, "parquet": 2**20},
        "units": 2,
        "units_by_node": {},
    }


def test_the_summary_says_how_much_how_fast_and_what_next() -> None:
    summary = Summary()
    summary.add(report())
    text = shown(summary)
    for expected in (
        "4 (3 committed, 1 quarantined)", "3 (33.3% anomalous)", "1.0 MiB read, 0.5 MiB Parquet",
        "read 22%, encode 67%, write 11%", "encode, at 47% of the bound", "12.3 s", "corrupt", "0%", "100%",
        "/lake/{events}/", "rmsai stats",
    ):  # fmt: skip
        assert expected in text, expected


def test_the_summary_of_nothing_is_short_and_whole() -> None:
    text = shown(Summary())
    assert "archives listed" in text
    assert "anomalous" not in text
    assert "slowest" not in text


def test_statuses_are_counted() -> None:
    assert count_status(["a", "b", "a"]) == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("quarantined", "allowed", "passes"), [(0, 0.0, True), (1, 0.1, True), (2, 0.1, False)]
)
def test_more_rejects_than_allowed_is_an_error_with_both_numbers(
    quarantined: int, allowed: float, passes: bool
) -> None:
    counts = {"committed": 8, "skipped": 2 - quarantined, "quarantined": quarantined}
    if passes:
        check_rejects(counts, allowed)
        check_rejects({}, allowed)
        return
    with pytest.raises(RejectLimitError, match=r"2 of 10 .* 10.0%"):
        check_rejects(counts, allowed)
