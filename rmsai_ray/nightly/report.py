"""The report of a night: what came in, what was found, what was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rmsai_ray.nightly.config import AlertBounds
from rmsai_ray.nightly.drift_page import drift_section
from rmsai_ray.nightly.figures import ALL, NORMAL
from rmsai_ray.nightly.pages import Page, Picture, Section, Table, as_html, as_markdown
from rmsai_ray.nightly.pictures import draw_comparison, draw_rates
from rmsai_ray.nightly.state import NightState, Result, results_before

TREND_NIGHTS = 30
SHOWN_CONDITIONS = 8
MIB, GIB = 1 << 20, 1 << 30


def write_report(
    state: NightState,
    results: Mapping[str, Result],
    steps: Sequence[Result],
    bounds: AlertBounds,
    energy_bound: float,
) -> None:
    """``report.md`` with its pictures, and ``report.html``, which needs nothing else."""
    earlier = results_before(state.store, state.night, "backfill", most=TREND_NIGHTS - 1)
    nights = {name: found["result"] for name, found in earlier.items()}
    if "backfill" in results:
        nights[state.night] = results["backfill"]
    page = make_page(state.night, results, steps, nights, bounds, energy_bound)
    for section in page.sections:
        for picture in section.pictures:
            state.store.put(state.key(picture.name), picture.content)
    state.store.put(state.key("report.md"), as_markdown(page).encode())
    state.store.put(state.key("report.html"), as_html(page).encode())


def make_page(
    night: str,
    results: Mapping[str, Result],
    steps: Sequence[Result],
    nights: Mapping[str, Result],
    bounds: AlertBounds,
    energy_bound: float,
) -> Page:
    """Everything that the report says.

    Args:
        night: YYYY-MM-DD.
        results: step → what it said, of those that ended well.
        steps: every step with status and seconds.
        nights: night → what its backfill said, this one last.
        bounds: for the pictures.
        energy_bound: likewise.
    """
    sections = [_alerts(results.get("alerts"))]
    if "backfill" in results:
        sections += [_came_in(results), _rates(results["backfill"], nights, bounds)]
    if "drift" in results:
        sections.append(drift_section(results["drift"]["report"], energy_bound))
    sections += [_models(results), _steps(steps)]
    verdict, tone = _verdict(results, steps)
    return Page(title=f"Night of {night}", verdict=verdict, tone=tone, sections=sections)


def _verdict(results: Mapping[str, Result], steps: Sequence[Result]) -> tuple[str, str]:
    failed = [step["step"] for step in steps if step["status"] == "failed"]
    if failed:
        return f"Failed: {', '.join(failed)}", "critical"
    alerts = results["alerts"]
    opened = alerts["opened"]
    if opened:
        kinds = ", ".join(sorted({row["kind"].replace("_", " ") for row in opened}))
        return f"{_count(len(opened), 'new alert')}: {kinds}", str(alerts["worst"])
    waiting = len(alerts["unresolved"])
    return (
        ("Quiet", "quiet")
        if not waiting
        else (f"Nothing new; {_count(waiting, 'alert')} not resolved", "warning")
    )


def _alerts(alerts: Result | None) -> Section:
    if alerts is None:
        return Section(title="Alerts", lines=["Not checked, because the step failed."])
    lines = [] if alerts["unresolved"] else [f"None is open. {alerts['checked']} conditions were checked."]
    if alerts["resolved"]:
        lines.append("Resolved: " + "; ".join(_name(row) for row in alerts["resolved"]) + ".")
    lines += [
        f"{_count(num, 'message')} not taken by the {way}; the next run tries again."
        for way, num in alerts["not_delivered"].items()
        if num
    ]
    new = {row["alert_id"] for row in alerts["opened"]}
    rows = [
        (
            row["severity"],
            _name(row),
            row["detail"],
            "new"
            if row["alert_id"] in new
            else f"since {row['opened_night']}, {_count(row['count'], 'night')}",
            row["state"],
            row["alert_id"],
        )
        for row in alerts["unresolved"]
    ]
    header = ("severity", "what", "found", "since", "state", "id")
    return Section(title="Alerts", lines=lines, tables=[Table(header=header, rows=rows)] if rows else [])


def _came_in(results: Mapping[str, Result]) -> Section:
    figures, inventory = results["backfill"]["figures"], results.get("inventory", {})
    counts = figures["archives"]
    rows = [
        ("archives new", f"{sum(counts.values()):,}" + (f" ({_pairs(counts)})" if counts else "")),
        ("archives listed in all", f"{inventory.get('listed', 0):,}"),
        ("bytes of archives", f"{figures['archive_bytes'] / MIB:,.1f} MiB"),
        ("patients", f"{figures['patients']:,}"),
        ("windows", f"{figures['windows']:,}"),
    ]
    if inventory.get("free_bytes") is not None:
        need, free = inventory["need_bytes"] / GIB, inventory["free_bytes"] / GIB
        rows.append(("disk", f"{need:,.2f} GiB needed for them, {free:,.1f} GiB were free"))
    rows += [
        (f"arrived below {prefix or 'the archives URI'}", f"{num:,}")
        for prefix, num in inventory.get("arrived", {}).items()
    ]
    lines = [results["backfill"]["too_many_rejects"]] if results["backfill"]["too_many_rejects"] else []
    tables = [Table(header=("what", "how much"), rows=rows)]
    if figures["quarantine_reasons"]:
        reasons = [(reason, f"{num:,}") for reason, num in figures["quarantine_reasons"].items()]
        tables.append(Table(header=("quarantined because of", "archives"), rows=reasons))
    else:
        lines.append("Nothing was quarantined.")
    return Section(title="What came in", lines=lines, tables=tables)


def _rates(backfill: Result, nights: Mapping[str, Result], bounds: AlertBounds) -> Section:
    rates = backfill["figures"]["rates"]
    if not rates:
        return Section(title="Anomalous windows", lines=["No window came in."])
    shown = list(rates.items())[: SHOWN_CONDITIONS + 1]
    rows = [
        (
            "all events" if name == ALL else name,
            _interval(rate, percent=True),
            f"{rate['windows']:,}",
            f"{rate['patients']:,}",
        )
        for name, rate in shown
    ]
    left = len(rates) - len(shown)
    by_night = {
        name: found["figures"]["rates"] for name, found in nights.items() if found["figures"]["rates"]
    }
    limits = {ALL: bounds.max_anomaly_rate, NORMAL: bounds.max_normal_anomaly_rate}
    picture = Picture(
        name="rates.png",
        content=draw_rates(by_night, limits),
        caption="Anomalous windows by night; dotted: what they may be",
    )
    lines = ["Intervals: 95 %, patients drawn again with replacement."]
    return Section(
        title="Anomalous windows",
        lines=[*lines, f"{left} rarer conditions are not shown."] if left else lines,
        tables=[Table(header=("condition", "anomalous", "windows", "patients"), rows=rows)],
        pictures=[picture],
    )


def _models(results: Mapping[str, Result]) -> Section:
    inventory, found = results.get("inventory", {}), results.get("retraining", {})
    lines = []
    if inventory:
        age = inventory["model_age_days"]
        registered = inventory["registered"]
        which = f"{registered['name']}@{registered['version']}" if registered else inventory["model_name"]
        lines.append(
            f"Tonight's rows are by {which} ({inventory['model_id']})"
            + (f", registered {age:.0f} days ago" if age is not None else "")
            + f"; the score is that of {inventory['detector']}."
        )
    if fitted := (results.get("detectors") or {}).get("fitted"):
        lines.append(
            f"Detectors were fitted anew: {fitted['name']}@{fitted['version']}, for a person to promote."
        )
    lines += _retraining_lines(found)
    comparison = found.get("comparison")
    if not comparison:
        return Section(title="Models", lines=lines)
    header = ("figure", "champion", "challenger", "challenger better by", "trivial")
    mse, auroc = comparison["mse_normal"], comparison["auroc"]
    pairs = ((mse, comparison["gain"]), (auroc, comparison["auroc_change"]))
    figures = [
        [_interval(found) for found in (of["champion"], of["challenger"], difference)]
        for of, difference in pairs
    ]
    rows = [
        ("error of normal windows (declared)", *figures[0], f"{mse['trivial']:.3f}"),
        ("AUROC, abnormal windows", *figures[1], _interval(auroc["trivial"])),
    ]
    lines.append(
        f"Compared on {comparison['windows']:,} windows ({comparison['abnormal_windows']:,} abnormal) of "
        f"{comparison['patients']} held-out patients, who trained neither; intervals over patients. "
        "Trivial: to predict each window's mean, and the spread of the signal as a score."
    )
    picture = Picture(
        name="models.png",
        content=draw_comparison(comparison),
        caption="Champion and challenger, held-out patients",
    )
    return Section(title="Models", lines=lines, tables=[Table(header=header, rows=rows)], pictures=[picture])


def _retraining_lines(found: Result) -> list[str]:
    status = found.get("status")
    if status in (None, "off"):
        return ["Retraining is off." if status else "Retraining was not considered."]
    if status == "no_reason":
        return ["There was no reason to train."]
    reasons = f"Reason to train: {'; '.join(found['reasons'])}."
    if status == "refused":
        return [reasons, f"Not trained: {'; '.join(found['against'])}."]
    if status == "dry":
        num = found["patients"]
        return [
            reasons,
            f"Would train on {num['learning']} patients and compare on {num['held_out']} (mode dry).",
        ]
    done = (
        "it is better, and was promoted: the next backfill uses it"
        if status == "promoted"
        else "it is not better, and was kept as challenger"
    )
    return [
        reasons,
        f"Challenger {found['challenger']} (version {found['version']}) was trained for {found['epochs']} "
        f"epochs on {found['splits']['train']} patients; {done}.",
    ]


def _steps(steps: Sequence[Result]) -> Section:
    rows = [
        (
            step["step"],
            step["status"],
            f"{step['seconds']:.1f}",
            ", ".join(step.get("runs", ())) or step.get("error", ""),
        )
        for step in steps
    ]
    total = sum(step["seconds"] for step in steps)
    return Section(
        title="Steps",
        lines=[f"{total:.1f} s in all. Run records lie in the lake."],
        tables=[Table(header=("step", "status", "seconds", "run records, or error"), rows=rows)],
    )


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['kind'].replace('_', ' ')} {row['subject']}".strip()


def _pairs(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _interval(found: Mapping[str, float | None], *, percent: bool = False) -> str:
    values = [found[name] for name in ("value", "low", "high")]
    if values[0] is None:
        return "–"
    texts = [
        "–" if value is None else f"{100 * value:.1f} %" if percent else f"{value:.3f}" for value in values
    ]
    return f"{texts[0]} ({texts[1]} to {texts[2]})"
