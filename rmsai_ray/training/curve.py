"""The learning curve of a training, as a picture."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rmsai_ray.training.state import Epoch, best_epoch


def draw_learning_curve(history: list[Epoch], title: str) -> bytes:
    """A PNG: both errors over the epochs, with the epoch whose weights were kept."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(title=title, xlabel="epoch", ylabel="mean squared error, normalised units")
    numbers = [epoch.epoch for epoch in history]
    axes.plot(numbers, [epoch.train_mse for epoch in history], label="training, augmented windows")
    axes.plot(numbers, [epoch.validation_mse for epoch in history], label="validation")
    best = best_epoch(history)
    axes.plot(best.epoch, best.validation_mse, "o", color="black", label=f"kept: {best.validation_mse:.4f}")
    axes.set_ylim(bottom=0)
    axes.legend()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
