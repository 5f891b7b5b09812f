"""The pictures of a night's report."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rmsai_ray.nightly.figures import ALL, NORMAL

RED, GREY, BLUE = "#b3261e", "#8c959f", "#0969da"
MAJOR_PSI = 0.2


def draw_rates(rates_by_night: Mapping[str, Mapping[str, Any]], bounds: Mapping[str, float]) -> bytes:
    """Share of anomalous windows with its interval, night by night; bounds are dotted."""
    figure, axes = _figure(7.5, 3.2)
    nights = list(rates_by_night)
    for shift, (name, colour, label) in enumerate(
        ((ALL, BLUE, "all events"), (NORMAL, GREY, "Normal events"))
    ):
        known = [(i, rates[name]) for i, rates in enumerate(rates_by_night.values()) if name in rates]
        if not known:
            continue
        place_N = np.array([i for i, _ in known]) + 0.06 * shift
        value_N, low_N, high_N = (
            100 * np.array([rate[key] for _, rate in known], float) for key in ("value", "low", "high")
        )
        axes.errorbar(
            place_N,
            value_N,
            [value_N - low_N, high_N - value_N],
            fmt="o-",
            color=colour,
            capsize=3,
            label=label,
        )
        axes.axhline(100 * bounds[name], color=colour, linestyle=":", linewidth=1)
    axes.set_xticks(range(len(nights)), nights, rotation=30 if len(nights) > 6 else 0)
    axes.set_xlim(-0.5, len(nights) - 0.4)
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # room for the legend
    axes.set_ylabel("anomalous windows, %")
    axes.legend(frameon=False, loc="upper left", ncols=2)
    return _png(figure)


def draw_drift(features: Sequence[Mapping[str, Any]], energy_bound: float) -> bytes:
    """Distance of every feature, with what chance gives (a tick) and the least that counts (dotted)."""
    histograms = [row for row in features if row["psi"] is not None]
    rows = sorted(histograms, key=lambda row: row["psi"])
    embedding = next((row for row in features if row["energy"] is not None), None)
    figure, axes = _figure(7.5, 0.9 + 0.27 * (len(rows) + (embedding is not None)))
    names = [row["feature"].replace("_", " ") for row in rows]
    values = [row["psi"] for row in rows]
    chances = [row["chance"] for row in rows]
    drifted = [row["is_drift"] for row in rows]
    if embedding:  # in units of its own bound, so that one picture shows all
        scale = MAJOR_PSI / energy_bound
        names.append(f"embedding (× {scale:g})")
        values.append(embedding["energy"] * scale)
        chances.append(embedding["chance"] * scale)
        drifted.append(embedding["is_drift"])
    place_N = np.arange(len(names))
    axes.barh(place_N, values, color=[RED if one else GREY for one in drifted], height=0.7)
    axes.plot(chances, place_N, "|", color="black", markersize=11, label="exceeded by chance in 5 %")
    axes.axvline(MAJOR_PSI, color=RED, linestyle=":", linewidth=1, label="least that counts")
    axes.set_yticks(place_N, names)
    axes.set_xlabel("population stability index; energy distance of embeddings")
    axes.legend(frameon=False, loc="lower right")
    return _png(figure)


def draw_comparison(comparison: Mapping[str, Any]) -> bytes:
    """Error and AUROC of champion and challenger, with intervals over held-out patients."""
    figure = Figure(figsize=(7.5, 2.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = (
        ("mse_normal", "mean error of normal windows (less is better)"),
        ("auroc", "AUROC, abnormal against normal (more is better)"),
    )
    for number, (key, label) in enumerate(panels):
        axes = figure.add_subplot(1, 2, number + 1)
        axes.spines[["top", "right"]].set_visible(False)
        for place, (name, colour) in enumerate((("challenger", RED), ("champion", BLUE))):
            found = comparison[key][name]
            if found["value"] is None or found["low"] is None:
                continue
            value = found["value"]
            spread = [[max(0.0, value - found["low"])], [max(0.0, found["high"] - value)]]
            axes.errorbar([value], [place], xerr=spread, fmt="o", color=colour, capsize=4)
        axes.set_yticks([0, 1], ["challenger", "champion"] if number == 0 else ["", ""])
        axes.set_ylim(-0.6, 1.6)
        axes.set_xlabel(label, fontsize=8)
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
