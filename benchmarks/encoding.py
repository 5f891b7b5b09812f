"""Encoding on one core, against the core's matrix products, torch and ONNX Runtime; and by two processes.

    python -m benchmarks.encoding [--windows 128] [--repeat 3] [--output result.json]

For every profile: windows to embeddings and errors (decoding included) by lanes and by torch in several batch
sizes, of one thread, in GFLOP/s of CPU time: the arithmetic of the reference network's layers over the time
of everything. The bound is the best float32 matrix product of numpy or torch in the same run. ONNX Runtime's
own LSTM stands beside them where it and ``onnx`` are installed (they are no dependencies). Weights do not
matter for speed: profiles without packaged ones are untrained. Processes are timed by the clock, from a
common start.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks._measure import interleaved, medians, report
from rmsai_ray.encoding.encoder import WindowEncoder, limit_threads
from rmsai_ray.encoding.flops import flops_per_window
from rmsai_ray.encoding.torch_engine import TorchEngine
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.checkpoint import load_model

WINDOWS_OF_PROFILE = {"seed-2400x64": 1, "rmsai-140x128": 4, "framed-2400x64": 16}
"""Times the windows asked for, so that each takes about as long."""
TORCH_BATCHES = (16, 32, 256)
MATRIX_SIZES = (256, 384, 512, 1024)
GIGA = 1e9


@dataclass
class Options:
    """What to measure."""

    windows: int = 128
    repeat: int = 3
    profiles: tuple[str, ...] = tuple(WINDOWS_OF_PROFILE)
    workers: bool = True
    """Measure two processes, too."""
    output: Path | None = None


def main(options: Options) -> None:
    """Measures, prints, writes."""
    limit_threads(1)
    rows: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    for profile in options.profiles:
        num_windows = options.windows * WINDOWS_OF_PROFILE[profile]
        measure_profile(profile, num_windows, options.repeat, rows, ratios)
        if options.workers:
            speeds = medians(
                interleaved(
                    options.repeat,
                    {f"{n}": partial(windows_per_s, profile, num_windows, n) for n in (1, 2)},
                )
            )
            rows |= {f"{profile}: processes {n} (windows/s)": speed for n, speed in speeds.items()}
            ratios[f"{profile}: two processes / one"] = speeds["2"] / speeds["1"]
    report("Encoding, one thread per process", rows, ratios, options.output)


def measure_profile(
    profile: str, num_windows: int, repeat: int, rows: dict[str, Any], ratios: dict[str, float]
) -> None:
    """One profile's speeds and differences, into the rows and ratios."""
    bundle = load_model(profile, allow_untrained=True)
    signals_NT, num_samples_N, leads = example_windows(bundle, num_windows)
    encoder, fs = WindowEncoder(bundle), bundle.spec.sampling_rate_hz
    x_NT, _, _ = bundle.normaliser.apply(signals_NT, num_samples_N, leads)
    engines = {f"torch, batch {n}": TorchEngine(bundle.network, fs, batch_windows=n) for n in TORCH_BATCHES}
    ways: dict[str, Callable[[], object]] = {
        name: partial(engine.measure, x_NT, num_samples_N) for name, engine in engines.items()
    }
    ways["lanes"] = partial(encoder._engine.measure, x_NT, num_samples_N)
    ways["lanes, with the normaliser"] = partial(encoder.encode, signals_NT, num_samples_N, leads)
    if bundle.spec.family == "recurrent" and all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))):
        ways["ONNX Runtime, without errors"] = onnx_network(bundle, x_NT)
    work = flops_per_window(bundle.network) * num_windows / GIGA
    measures = {name: partial(rate, way, work) for name, way in ways.items()}
    speeds = medians(interleaved(repeat, {"matrix products": matrix_products, **measures}))
    best_torch = max(speed for name, speed in speeds.items() if name.startswith("torch"))
    rows |= {f"{profile}: {name} (GFLOP/s)": speed for name, speed in speeds.items()}
    per_window = flops_per_window(bundle.network) / GIGA
    rows[f"{profile}: lanes, with the normaliser (windows/s)"] = (
        speeds["lanes, with the normaliser"] / per_window
    )
    ratios[f"{profile}: lanes / matrix products"] = speeds["lanes"] / speeds["matrix products"]
    ratios[f"{profile}: lanes / best torch"] = speeds["lanes"] / best_torch
    ratios[f"{profile}: lanes / torch, batch 256"] = speeds["lanes"] / speeds["torch, batch 256"]
    found, expected = ways["lanes"](), ways["torch, batch 256"]()
    ratios[f"{profile}: largest difference to torch"] = difference(found, expected)


def example_windows(bundle: ModelBundle, num_windows: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Pulses at many rates, with noise."""
    random, spec = np.random.default_rng(0), bundle.spec
    time_s = np.arange(spec.window_samples) / spec.sampling_rate_hz
    periods_s = random.uniform(0.4, 1.5, num_windows)[:, None]
    pulses_NT = np.exp(-0.5 * ((time_s % periods_s - periods_s / 2) / 0.02) ** 2)
    signals_NT = (pulses_NT + 0.02 * random.standard_normal(pulses_NT.shape)).astype(np.float32)
    return signals_NT, np.full(num_windows, spec.window_samples, np.int32), ["ECG2"] * num_windows


def rate(way: Callable[[], object], work: float) -> float:
    """Work per second of CPU time."""
    started = time.process_time()
    way()
    return work / (time.process_time() - started)


def matrix_products() -> float:
    """GFLOP/s of the best square product, by numpy or torch."""
    best = 0.0
    for size in MATRIX_SIZES:
        left, right = np.random.default_rng(0).standard_normal((2, size, size)).astype(np.float32)
        product, (left_t, right_t) = np.empty_like(left), map(torch.from_numpy, (left, right))
        ways = partial(np.matmul, left, right, out=product), partial(torch.mm, left_t, right_t)
        repeats = max(1, int(3e9 / size**3 / 2))
        for way in ways:
            work = repeats * 2 * size**3 / GIGA
            best = max(best, rate(lambda way=way, repeats=repeats: [way() for _ in range(repeats)], work))
    return best


def difference(found: Any, expected: Any) -> float:
    """The largest of embeddings (absolute) and errors (relative)."""
    embedding = np.abs(found.embedding_NE - expected.embedding_NE).max()
    return float(max(embedding, np.abs(found.errors_3N / expected.errors_3N - 1).max()))


def windows_per_s(profile: str, num_windows: int, num_processes: int) -> float:
    """Windows per second of several processes together, each with all the windows, from a common start."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(num_processes), context.Queue()
    processes = [
        context.Process(target=encode_in_process, args=(profile, num_windows, barrier, queue))
        for _ in range(num_processes)
    ]
    for process in processes:
        process.start()
    seconds = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    return num_processes * num_windows / max(seconds)


def encode_in_process(profile: str, num_windows: int, barrier: Barrier, queue: Any) -> None:
    """A worker: loads, warms up, waits for the others, and tells its seconds."""
    limit_threads(1)
    bundle = load_model(profile, allow_untrained=True)
    encoder, windows = WindowEncoder(bundle), example_windows(bundle, num_windows)
    signals_NT, num_samples_N, leads = windows
    encoder.encode(signals_NT[:256], num_samples_N[:256], leads[:256])
    barrier.wait()
    started = time.perf_counter()
    encoder.encode(*windows)
    queue.put(time.perf_counter() - started)


def onnx_network(bundle: ModelBundle, x_NT: np.ndarray) -> Callable[[], object]:
    """The recurrent network as four LSTM operators and a product; 64 windows a batch, time first."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    tensors = {name: tensor.numpy() for name, tensor in bundle.network.state_dict().items()}
    nodes, constants, length = [], [], bundle.spec.window_samples

    def lstm(name: str, source: str, target: str, last: str = "") -> None:
        def weights(kind: str) -> np.ndarray:
            i, f, g, o = np.split(tensors[f"{name}.{kind}_l0"], 4)
            return np.concatenate([i, o, f, g])[None]

        biases = np.concatenate([weights("bias_ih"), weights("bias_hh")], 1)
        arrays = {"W": weights("weight_ih"), "R": weights("weight_hh"), "B": biases}
        constants.extend(numpy_helper.from_array(array, f"{name}.{key}") for key, array in arrays.items())
        inputs = [source, *(f"{name}.{key}" for key in arrays)]
        size = arrays["R"].shape[2]
        nodes.append(helper.make_node("LSTM", inputs, [f"{target}.4d", last], hidden_size=size))
        nodes.append(helper.make_node("Squeeze", [f"{target}.4d", "one"], [target]))

    lstm("encoder.rnn1", "x", "e1")
    lstm("encoder.rnn2", "e1", "e2", "z")
    nodes.append(helper.make_node("Expand", ["z", "shape"], ["repeated"]))
    lstm("decoder.rnn1", "repeated", "d1")
    lstm("decoder.rnn2", "d1", "d2")
    nodes.append(helper.make_node("MatMul", ["d2", "output"], ["product"]))
    nodes.append(helper.make_node("Add", ["product", "bias"], ["y"]))
    others = {
        "one": np.array([1]),
        "shape": np.array([length, 1, 1]),
        "output": tensors["decoder.output_layer.weight"].T.copy(),
        "bias": tensors["decoder.output_layer.bias"],
    }
    constants += [numpy_helper.from_array(array, name) for name, array in others.items()]
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("z", "y")}
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [length, None, 1])
    graph = helper.make_graph(nodes, "recurrent", [source], list(values.values()), constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    batches = [
        np.ascontiguousarray(x_NT[start : start + 64].T[:, :, None]) for start in range(0, len(x_NT), 64)
    ]
    return lambda: [session.run(["z", "y"], {"x": batch}) for batch in batches]


if __name__ == "__main__":
    main(tyro.cli(Options))
