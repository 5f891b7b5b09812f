"""Parsing of full events: direct, by HDF5's library, and as anybody would with h5py; against inflating alone.

    python -m benchmarks.parsing [--archives 20] [--repeat 5] [--output result.json]

A full event: seven leads, eight vital signs with their histories, attributes and metadata; PPG and RESP are
left out by all. Events per second of CPU time of one thread, medians over interleaved repeats. The archives
are simulated, ten events each; their ids are given, as a backfill does, which needs them before it parses.
"""

from __future__ import annotations

import io
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import tyro

from benchmarks._measure import interleaved, medians, report
from rmsai_ray.archives.chunks import inflate
from rmsai_ray.archives.reader import DEFAULTS, read_archive, read_by_library
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.signals.leads import LEADS

EVENTS_PER_ARCHIVE = 10


@dataclass
class Options:
    """What to measure."""

    archives: int = 20
    repeat: int = 5
    output: Path | None = None


def main(options: Options) -> None:
    """Measures, prints, writes."""
    archives = [simulate_archive(i, EVENTS_PER_ARCHIVE, seed=0) for i in range(options.archives)]
    contents = [raw for _, raw in archives]
    assert all(read_archive(raw, name).detour is None for name, raw in archives)
    chunks = [lead_chunks(raw) for raw in contents]

    def direct() -> None:
        for name, raw in archives:
            read_archive(raw, name, archive_id="given")

    def library() -> None:
        for name, raw in archives:
            read_by_library(raw, name, options=DEFAULTS, archive_id="given")

    ways: dict[str, Callable[[], object]] = {
        "idiomatic h5py": lambda: [idiomatic(raw) for raw in contents],
        "by the library": library,
        "direct": direct,
        "inflating alone": lambda: [inflate(*chunk) for each in chunks for chunk in each],
        "inflating alone, zlib": lambda: [zlib.decompress(c, bufsize=n) for each in chunks for c, n in each],
    }
    num_events = options.archives * EVENTS_PER_ARCHIVE
    measures = {name: partial(rate, way, num_events) for name, way in ways.items()}
    rates = medians(interleaved(options.repeat, measures))
    report(
        "Parsing of full events, one thread",
        {f"{name} (events per CPU-second)": value for name, value in rates.items()},
        {
            "direct / idiomatic h5py": rates["direct"] / rates["idiomatic h5py"],
            "direct / by the library": rates["direct"] / rates["by the library"],
            "direct / inflating alone": rates["direct"] / rates["inflating alone"],
            "direct / inflating alone, zlib": rates["direct"] / rates["inflating alone, zlib"],
        },
        options.output,
    )


def rate(way: Callable[[], object], num_events: int) -> float:
    """Events per second of CPU time."""
    started = time.process_time()
    way()
    return num_events / (time.process_time() - started)


def idiomatic(raw: bytes) -> dict[str, object]:
    """An archive as plain values, as the manual of h5py does it."""
    with h5py.File(io.BytesIO(raw)) as file:
        metadata = {name: item[()] for name, item in file["metadata"].items()}
        events = {name: idiomatic_event(group) for name, group in file.items() if name != "metadata"}
    return {"metadata": metadata, "events": events}


def idiomatic_event(group: h5py.Group) -> dict[str, object]:
    """An event likewise."""
    vitals = {}
    for name, vital in group["vitals"].items():
        values = {field: item[()] for field, item in vital.items()}
        values["units"] = values["units"].decode()
        values["extras"] = json.loads(values["extras"])
        vitals[name] = values
    return {
        "attributes": dict(group.attrs),
        "uuid": group["uuid"][()].decode(),
        "timestamp": group["timestamp"][()],
        "leads": {name: group[f"ecg/{name}"][:] for name in LEADS},
        "extras": json.loads(group["ecg/extras"][()]),
        "vitals": vitals,
    }


def lead_chunks(raw: bytes) -> list[tuple[bytes, int]]:
    """The compressed chunks of all leads, and their sizes once inflated."""
    chunks = []
    with h5py.File(io.BytesIO(raw)) as file:
        for name, group in file.items():
            for lead in LEADS if name != "metadata" else ():
                dataset = group[f"ecg/{lead}"]
                num_bytes = dataset.chunks[0] * dataset.dtype.itemsize
                for start in range(0, len(dataset), dataset.chunks[0]):
                    chunks.append((dataset.id.read_direct_chunk((start,))[1], num_bytes))
    return chunks


if __name__ == "__main__":
    main(tyro.cli(Options))
