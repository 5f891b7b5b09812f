"""The report's pictures, each made from what was scored already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from rmsai_ray.encoding.encoder import WindowEncoder
from rmsai_ray.evaluation.corpus import Corpus
from rmsai_ray.evaluation.measuring import Measurer
from rmsai_ray.evaluation.models import Contest
from rmsai_ray.evaluation.protocol import Protocol
from rmsai_ray.evaluation.scoring import FloatArray, Scored

MOST_BASELINE_CURVES = 3
NUM_EXAMPLES = 3
HISTOGRAM_BINS = 60
DPI = 110
GREY, OURS, OTHER = "0.6", "tab:blue", "tab:red"


@contextmanager
def _picture(path: Path, rows: int, columns: int, size: tuple[float, float]) -> Iterator[npt.NDArray[Any]]:
    """Axes (rows, columns) of a figure without a window; saved at the end."""
    figure = Figure(figsize=size, layout="constrained")
    yield figure.subplots(rows, columns, squeeze=False)
    figure.savefig(path, dpi=DPI)


def draw_results(folder: Path, scored: Scored, protocol: Protocol, results: Mapping[str, Any]) -> None:
    """Curves, histograms of the declared score, and how reliable thresholds are."""
    is_positive_U = ~scored.moments["is_normal"].to_numpy(np.bool_)
    draw_curves(folder / "curves.png", scored.scores, is_positive_U, protocol, scored.ours)
    _draw_histograms(folder / "histograms.png", scored, protocol, is_positive_U)
    _draw_reliability(folder / "reliability.png", results["reliability"])


def draw_curves(
    path: Path,
    scores: Mapping[str, FloatArray],
    is_positive_U: npt.NDArray[np.bool_],
    protocol: Protocol,
    ours: tuple[str, ...],
) -> None:
    """ROC and precision–recall of our scores in colour, of the best baselines in grey."""
    if is_positive_U.all() or not is_positive_U.any():
        return
    curves = {name: roc_curve(is_positive_U, values) for name, values in scores.items()}
    areas = {name: float(np.trapezoid(curve[1], curve[0])) for name, curve in curves.items()}
    baselines = sorted(set(scores) - set(ours), key=lambda name: -areas[name])[:MOST_BASELINE_CURVES]
    with _picture(path, 1, 2, (11, 5)) as [[roc, pr]]:
        for name in (*ours, *baselines):
            style: dict[str, Any] = {"lw": 2.5 if name == protocol.declared else 1}
            if name not in ours:
                style |= {"ls": "--", "color": GREY}
            roc.plot(curves[name][0], curves[name][1], label=f"{name} {areas[name]:.3f}", **style)
            precision, recall, _ = precision_recall_curve(is_positive_U, scores[name])
            pr.plot(recall, precision, **style)
        roc.plot([0, 1], [0, 1], color="0.85", lw=1)
        roc.set(xlabel="false-positive rate", ylabel="sensitivity", title=f"ROC, {protocol.name}")
        pr.axhline(is_positive_U.mean(), color="0.85", lw=1)
        pr.set(
            xlabel="sensitivity (recall)", ylabel="precision", title="precision and recall", ylim=(0, 1.02)
        )
        roc.legend(fontsize=8, loc="lower right")


def _draw_histograms(
    path: Path, scored: Scored, protocol: Protocol, is_positive_U: npt.NDArray[np.bool_]
) -> None:
    names = [protocol.declared, protocol.waveform, protocol.reconstruction, protocol.compared_with]
    shown = list(dict.fromkeys(name for name in names if name))
    with _picture(path, 1, len(shown), (4 * len(shown), 3.4)) as [axes]:
        for axis, name in zip(axes, shown, strict=True):
            values = np.clip(scored.scores[name], *np.quantile(scored.scores[name], [0.002, 0.98]))
            bins = np.histogram_bin_edges(values, HISTOGRAM_BINS)
            for label, rows, colour in (("normal", ~is_positive_U, GREY), ("not", is_positive_U, OTHER)):
                axis.hist(values[rows], bins, density=True, alpha=0.6, color=colour, label=label)
            axis.set(title=name, xlabel="score", yticks=[])
            axis.legend(fontsize=8, loc="upper right")


def _draw_reliability(path: Path, rows: list[dict[str, Any]]) -> None:
    overall = [row for row in rows if row["lead"] == "*"]
    with _picture(path, 1, 1, (5, 4.2)) as [[axis]]:
        requested = np.array([row["requested_rate"] for row in overall]) * 100
        realised = np.array([row["rate"] for row in overall]) * 100
        low, high = (np.array([row[end] for row in overall]) * 100 for end in ("low", "high"))
        axis.errorbar(requested, realised, [realised - low, high - realised], fmt="o-", capsize=4)
        axis.plot([0, requested.max()], [0, requested.max()], color=GREY, ls="--", label="as requested")
        axis.set(
            xlabel="requested false-alarm rate, %",
            ylabel="realised on unseen patients, %",
            title="normal windows, 95 % over patients",
        )
        axis.legend(fontsize=8)


def draw_reconstructions(folder: Path, corpus: Corpus, contest: Contest, measurer: Measurer) -> None:
    """Typical and worst windows of the first round's test patients, with what the network makes of them."""
    windows, bundle = corpus.windows, contest.bundle
    tested = np.flatnonzero(np.isin(windows.patients_N, contest.round.test))
    order = tested[np.argsort(measurer.measured(bundle).mse_N[tested], kind="stable")]
    typical = order[len(order) // 2 : len(order) // 2 + NUM_EXAMPLES]
    shown = {"typical": typical, "worst": order[-NUM_EXAMPLES:][::-1]}
    encoder, fs = WindowEncoder(bundle), bundle.spec.sampling_rate_hz
    with _picture(folder / "reconstructions.png", 2 * NUM_EXAMPLES, 1, (11, 3 * NUM_EXAMPLES)) as axes:
        rows = [(kind, row) for kind, chosen in shown.items() for row in chosen]
        for axis, (kind, row) in zip(axes[:, 0], rows, strict=False):
            one = windows.take(np.array([row]))
            leads = one.leads_N.tolist()
            x_NT, _, _ = bundle.normaliser.apply(one.signals_NT, one.num_samples_N, leads)
            encoded = encoder.encode(one.signals_NT, one.num_samples_N, leads)
            y_NT = encoder.reconstruct(encoded.embedding_NE, encoded.beats_N)
            _draw_pair(axis, x_NT[0], y_NT[0], int(one.num_samples_N[0]), fs)
            moment = corpus.moments.iloc[corpus.moment_N[row]]
            axis.set_title(
                f"{kind}: {moment['patient']} {moment['event_id']} {leads[0]}, {moment['condition']}, "
                f"error {encoded.mse_N[0]:.3f}",
                fontsize=8,
            )


def _draw_pair(axis: Axes, x_T: FloatArray, y_T: FloatArray, num_samples: int, fs: float) -> None:
    time_s = np.arange(num_samples) / fs
    axis.plot(time_s, x_T[:num_samples], color="0.3", lw=0.8)
    axis.plot(time_s, y_T[:num_samples], color=OTHER, lw=0.8)
    axis.tick_params(labelsize=7)


def draw_signals(path: Path, rows: list[list[tuple[str, FloatArray, float]]]) -> None:
    """A grid of short signals: (title, samples, sampling rate), row by row."""
    columns = max(map(len, rows))
    with _picture(path, len(rows), columns, (3.2 * columns, 1.4 * len(rows))) as axes:
        for line, signals in zip(axes, rows, strict=True):
            for axis in line[len(signals) :]:
                axis.set_axis_off()
            for axis, (title, x_T, fs) in zip(line, signals, strict=False):
                axis.plot(np.arange(len(x_T)) / fs, x_T, color="0.2", lw=0.6)
                axis.set_title(title, fontsize=6)
                axis.tick_params(labelsize=5)
