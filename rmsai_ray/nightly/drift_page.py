"""What a report says of drift."""

from __future__ import annotations

from typing import Any

from rmsai_ray.nightly.pages import Picture, Section, Table
from rmsai_ray.nightly.pictures import draw_drift


def drift_section(report: dict[str, Any], energy_bound: float) -> Section:
    """The check in words, as a table and as a picture."""
    lines = [f"{report['detail'][:1].upper()}{report['detail'][1:]}."]
    if not report["features"]:
        return Section(title="Drift", lines=lines)
    num_recent, num_before = report["num_recent_patients"], report["num_reference_patients"]
    lines += [
        f"{num_recent} patients of this night against {num_before} of the reference "
        f"({report['reference']['source']}). A patient counts once, whatever the number of windows; p says "
        "how often chance alone gives any feature so large a distance.",
    ]
    lines += [f"Not compared: {name}: {reason}." for name, reason in report["left_out"].items()]
    rows = [
        (
            row["feature"],
            _number(row["psi"]),
            _number(row["ks"]),
            _number(row["energy"]),
            f"{row['chance']:.2f}",
            f"{row['p_value']:.4f}",
            str(row["num_patients"]),
            "drift" if row["is_drift"] else "",
        )
        for row in sorted(report["features"], key=_unlikely_first)
    ]
    header = ("feature", "PSI", "KS", "energy", "chance", "p", "patients", "")
    picture = Picture(
        name="drift.png",
        content=draw_drift(report["features"], energy_bound),
        caption="Distance from the reference; red: drift",
    )
    table = Table(header=header, rows=rows)
    return Section(title="Drift", lines=lines, tables=[table], pictures=[picture])


def _unlikely_first(row: dict[str, Any]) -> tuple[float, float]:
    return row["p_value"], -(row["psi"] or row["energy"] or 0.0)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
