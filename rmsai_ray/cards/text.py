"""The data card for people, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WARNING = (
    "An ECG identifies its owner. Names, dates and texts can be taken away; the waveform stays, and with "
    "it what the table below measures. Whoever holds a recording of a patient from elsewhere can look for "
    "that patient here. Treat this lake as personal data, whatever it is called in it."
)
DIVISIONS = {
    "halves": "Earlier against later half of each patient's windows",
    "sessions": "First archive of a patient against the others",
}


def card_text(card: Mapping[str, Any]) -> str:
    """The whole card."""
    counts, found = card["counts"], card["reidentification"]
    by_lead = ", ".join(f"{lead} {num:,}" for lead, num in counts["windows_by_lead"].items())
    pseudonyms = card["pseudonyms"]
    first, _, rest = WARNING.partition(". ")
    lines = [
        f"# Data card: {card['model']}",
        "",
        f"**{first}.** {rest}",
        "",
        f"- Patients: {counts['patients']}; archives: {counts['archives']:,}; events: {counts['events']:,}; "
        f"windows: {counts['windows']:,} ({by_lead}); rejects: {counts['rejects']:,}.",
        f"- Names and dates: {f'pseudonyms under the key {pseudonyms}' if pseudonyms else 'real'}.",
        f"- Months: {card['period'][0] or 'unknown'} to {card['period'][1] or 'unknown'}"
        f"{', shifted by patient' if pseudonyms else ''}.",
        f"- Licence: {card['licence']}.",
        f"- Made {card['made'][:10]} by {card['code_version']}, run `{card['run_id']}`.",
        "",
        "## Re-identification",
        "",
        f"Of {found['patients']} patients, by cosine of the embeddings; no window of a gallery overlaps with "
        "a probe. *Rank 1*: the most similar patient of the gallery is the right one, for one window and for "
        "all of a patient's probes together. *True accepts*: a window passes for its own patient, where 1 in "
        "1,000 passes for another. 95 % intervals over patients drawn again.",
    ]
    for name, title in DIVISIONS.items():
        rows = {lead: of[name] for lead, of in found["leads"].items() if of[name]}
        lines += [
            "",
            f"### {title}",
            "",
            *(_table(rows) if rows else ["Fewer than two patients have windows of both."]),
        ]
    return "\n".join(lines) + "\n"


def _table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    header = (
        "lead",
        "patients, probed",
        "rank 1, one window",
        "rank 1, all probes",
        "chance",
        "true accepts",
    )
    table = [
        (
            lead,
            f"{row['num_patients']}, {row['num_probed']}",
            _interval(row["rank_1"]),
            _interval(row["rank_1_all_probes"]),
            f"{row['chance']:.3f}",
            _interval(row["true_accepts"]) if row["true_accepts"] else "too few comparisons",
        )
        for lead, row in rows.items()
    ]
    return ["| " + " | ".join(cells) + " |" for cells in (header, ("---",) * len(header), *table)]


def _interval(value: Mapping[str, float | None]) -> str:
    low, high = value["low"], value["high"]
    around = "" if low is None or high is None else f" ({low:.3f}–{high:.3f})"
    return f"{value['value']:.3f}{around}"
