"""``rmsai card``: what a lake holds, and how well its embeddings know a patient again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rmsai_ray.cli.options import LakeOptions
from rmsai_ray.cli.output import Answer
from rmsai_ray.storage import Store
from rmsai_ray.tables.data_card import load_card

FIELDS = ("warning", "model", "pseudonyms", "period", "licence", "made", "code_version", "run_id")
INTERVALS = ("rank_1", "rank_1_all_probes", "true_accepts")


@dataclass(frozen=True, kw_only=True)
class Card(LakeOptions):
    """The data card that jobs/reidentify.py made: counts, licence, and the re-identification rates."""

    def answer(self) -> Answer:
        """One row a lead and division of the patients' windows."""
        card, _ = load_card(Store(self.lake), self.open().model_id)
        fields = {name: card[name] for name in FIELDS} | card["counts"]
        rows = pd.DataFrame(
            [
                {"lead": lead, "division": division, **_flat(figures)}
                for lead, by_division in card["reidentification"]["leads"].items()
                for division, figures in by_division.items()
                if figures
            ]
        )
        return Answer(
            data=card,
            rows=rows,
            tables={
                "Data card": pd.DataFrame({"field": fields.keys(), "value": fields.values()}),
                "Re-identification": rows,
            },
        )


def _flat(figures: Mapping[str, Any]) -> dict[str, Any]:
    """A figure and its interval as columns of their own."""
    flat: dict[str, Any] = {}
    for name, value in figures.items():
        if name in INTERVALS:
            interval = value or dict.fromkeys(("value", "low", "high"))
            flat |= {
                name: interval["value"],
                f"{name}_low": interval["low"],
                f"{name}_high": interval["high"],
            }
        else:
            flat[name] = value
    return flat
