"""The report: everything as JSON, and the same for people as Markdown with pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rmsai_ray.evaluation.protocol import Protocol

PICTURES = {
    "curves.png": "ROC, and precision over recall",
    "histograms.png": "Scores of normal and other moments",
    "reliability.png": "Requested and realised false-alarm rates",
    "reconstructions.png": "Typical and worst windows (grey) and their reconstructions (red)",
    "top.png": "The windows that score highest in the lake",
    "look_alikes.png": "A window of the lake (left) and the most similar windows of other patients",
}


def write_report(folder: Path, protocol: Protocol, results: Mapping[str, Any]) -> None:
    """``report.md``, then ``report.json``, whose presence says that the evaluation is complete."""
    (folder / "report.md").write_text(_markdown(folder, protocol, results))
    whole = _plain({"protocol": asdict(protocol), **results})
    (folder / "report.json").write_text(json.dumps(whole, indent=1, default=str) + "\n")


def _markdown(folder: Path, protocol: Protocol, results: Mapping[str, Any]) -> str:
    parts = [
        [f"# {protocol.name}", "", protocol.question, ""],
        _facts(protocol, results),
        _scores("Scores", results.get("scores")),
        *[_scores(f"{name} against Normal", rows) for name, rows in results.get("conditions", {}).items()],
        _condition_aware(results.get("condition_aware")),
        _section("Rounds", _table_of(results.get("rounds"))),
        _section("Alarms of the declared score", _table_of(results.get("alarms"))),
        _reliability(results.get("reliability")),
        _stability(results.get("shift_stability")),
        _probes(results.get("probes")),
        _vus(results.get("vus_pr")),
        _lake(results.get("lake")),
        _pictures(folder),
    ]
    return "\n".join(line for part in parts for line in part)


def _facts(protocol: Protocol, results: Mapping[str, Any]) -> list[str]:
    shuffled = results["shuffled_labels"]
    lines = [
        f"- Declared score: `{protocol.declared}`; waveform alone: `{protocol.waveform}`; reconstruction "
        f"error: `{protocol.reconstruction}`; to beat: `{protocol.compared_with}`.",
        f"- Models: {', '.join(f'`{name}`' for name in dict.fromkeys(results['models']))}.",
        f"- Data `{results['data_hash']}`: {_counts(results['counts'])}; left out: "
        f"{_counts(results.get('left_out') or {}) or 'nothing'}.",
        f"- Labels dealt at random: AUROC {_number(shuffled['mean'])} ({_number(shuffled['low'])} to "
        f"{_number(shuffled['high'])}).",
        f"- Intervals: 95 %, {results.get('interval_over', 'patients drawn again with replacement')}.",
    ]
    lines += [
        f"- This test part was used on {use['time'][:16]} by {use['run_id']}"
        + (f", because: {use['reason']}" if use["reason"] else "")
        + "."
        for use in results.get("test_uses", ())
    ]
    return [*lines, ""]


def _scores(title: str, rows: Sequence[Mapping[str, Any]] | None) -> list[str]:
    if not rows:
        return []
    table = [
        (
            f"`{row['score']}`",
            row["role"],
            _interval(row["auroc"]),
            _interval(row["auroc_above_baseline"], sign=True),
            _interval(row["auprc"]),
            f"circular: {row['circular']}" if row["circular"] else "",
        )
        for row in rows
    ]
    header = ("score", "role", "AUROC", "above the baseline", "AUPRC", "note")
    return _section(title, _table(header, table))


def _condition_aware(found: Mapping[str, Mapping[str, Any]] | None) -> list[str]:
    if not found:
        return []
    table = [
        (
            condition,
            name,
            _interval(figures["auroc"]),
            _interval(figures["above_declared"], sign=True),
            f"circular: {figures['circular']}" if figures["circular"] else "",
        )
        for condition, rows in found.items()
        for name, figures in rows.items()
    ]
    return _section(
        "Beside a classifier that learned the condition from vital signs",
        [
            "`masked_vitals` is without the vital signs that define the label.",
            "",
            *_table(("condition", "what", "AUROC", "above the declared score", "note"), table),
        ],
    )


def _reliability(rows: Sequence[Mapping[str, Any]] | None) -> list[str]:
    if not rows:
        return []
    table = [
        (
            _percent(row["requested_rate"]),
            row["lead"],
            f"{_percent(row['rate'])} ({_percent(row['low'])} to {_percent(row['high'])})",
            f"{row['off_points']:+.1f}",
            "yes" if row["within_tolerance"] else "no",
            row["num_windows"],
            row["num_patients"],
        )
        for row in rows
    ]
    header = ("requested", "lead", "realised", "off by points", "within ±1.5", "normal windows", "patients")
    return _section("False-alarm rates on unseen patients", _table(header, table))


def _stability(found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return []
    return _section(
        "Shift stability",
        [
            f"{_percent(found['cosine'])} (cosine) and {_percent(found['euclidean'])} (Euclidean) of "
            f"{found['queries']} windows lie nearer to their own shift by {found['shift_s']:g} s than to any "
            f"window of another patient, among {found['gallery_windows']} windows.",
            "",
        ],
    )


def _probes(found: Mapping[str, Mapping[str, Any]] | None) -> list[str]:
    table = [
        (
            probe,
            name,
            _interval(result["macro"]),
            ", ".join(f"{label} {_number(value)}" for label, value in result["auroc"].items()),
        )
        for probe, by_model in (found or {}).items()
        for name, result in by_model.items()
    ]
    header = ("probe", "embeddings of", "macro AUROC", "by class")
    return _section("Linear probes on frozen embeddings", _table(header, table)) if table else []


def _vus(found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return []
    return _section("VUS-PR, point by point", _table(tuple(found), [tuple(map(_number, found.values()))]))


def _lake(found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return []
    top = [
        (
            row["window"],
            _number(row["anomaly_score"]),
            row["condition"],
            row["beats"] or row["statements"],
            ", ".join(row["rhythms"]),
            {True: "yes", False: "no", None: "unknown"}[row["abnormal"]],
        )
        for row in found["top"]
    ]
    alike = [
        (
            query["query"],
            query["condition"],
            "; ".join(
                f"{row['window']} ({row['condition']}, {row['similarity']:.3f})" for row in query["found"]
            ),
        )
        for query in found["look_alikes"]
    ]
    header = ("window", "score", "condition", "beats or statements", "rhythms", "abnormal")
    return [
        *_section(
            f"The first {len(top)} of the lake",
            [
                f"{found['top_abnormal']} of {found['top_with_annotations']} with annotations are abnormal.",
                "",
                *_table(header, top),
            ],
        ),
        *_section("What the search finds", _table(("window", "condition", "most similar"), alike)),
    ]


def _pictures(folder: Path) -> list[str]:
    drawn = sorted(path.name for path in folder.glob("*.png"))
    lines = [
        f"![{PICTURES.get(name, name)}]({name})\n\n{PICTURES.get(name, name.removesuffix('.png'))}.\n"
        for name in drawn
    ]
    return _section("Pictures", lines) if lines else []


def _section(title: str, lines: Iterable[str]) -> list[str]:
    lines = list(lines)
    return [f"## {title}", "", *lines, ""] if lines else []


def _table_of(rows: Sequence[Mapping[str, Any]] | None) -> list[str]:
    if not rows:
        return []
    return _table(tuple(rows[0]), [tuple(_number(value) for value in row.values()) for row in rows])


def _table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    lines = [header, ("---",) * len(header), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines] + [""]


def _interval(figures: Mapping[str, float | None] | None, *, sign: bool = False) -> str:
    if not figures or figures["value"] is None:
        return "–"
    form = "{:+.3f}" if sign else "{:.3f}"
    value, low, high = (
        "–" if figures[name] is None else form.format(figures[name]) for name in ("value", "low", "high")
    )
    return f"{value} ({low} to {high})"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _plain(value: Any) -> Any:
    """With null instead of what JSON cannot say."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
