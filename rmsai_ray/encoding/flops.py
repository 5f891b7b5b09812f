"""How much arithmetic a network needs, and how much a core can do: the bound of encoding."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from rmsai_ray.models.base import EcgAutoencoder

SIZES = (256, 512, 1024)
"""Of square matrices; which of them is fastest depends on a core's caches."""


def flops_per_window(network: EcgAutoencoder) -> int:
    """Floating-point operations of the linear and recurrent layers, 2 per weight and step, for one window.

    Activations, normalisation and errors are not counted: they are not what a matrix product bounds.
    """
    counted = 0

    def count(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal counted
        weights = sum(weight.numel() for name, weight in layer.named_parameters() if "weight" in name)
        steps = inputs[0].numel() // inputs[0].shape[-1]
        counted += 2 * weights * steps

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.LSTM)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    num_windows = 16
    try:
        with torch.inference_mode():
            network(torch.zeros(num_windows, network.window_samples))
    finally:
        for hook in hooks:
            hook.remove()
    return counted // num_windows


def sgemm_flops_per_s(seconds: float = 0.2) -> float:
    """What one core reaches in float32 matrix products, FLOP/s: the best of a few sizes within a time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return max(_matmul_flops_per_s(size, seconds / len(SIZES)) for size in SIZES)
    finally:
        torch.set_num_threads(threads)


def _matmul_flops_per_s(size: int, seconds: float) -> float:
    """The best single product within the time."""
    left, right, product = (torch.rand(size, size) for _ in range(3))
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(left, right, out=product)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
