"""What encodings and compressions cost and save, for Parquet parts and for Lance fragments.

    python -m benchmarks.storage [--unit-events 320] [--repeat 5] [--output result.json]

CPU time per row of writing and of reading, and bytes per row, of one unit's windows and events as they leave
the encoder; each choice differs from the one in use in one thing. The ratios are the choice in use against
pyarrow's and Lance's own defaults.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from lance.fragment import write_fragments

from benchmarks._measure import interleaved, medians, report
from benchmarks.ingest import copy_of, score
from rmsai_ray.tables import schemas
from rmsai_ray.tables.parts import choose_encodings

EMBEDDING = "embedding.list.element"
IN_USE, DEFAULT = "in use", "default"


@dataclass
class Options:
    """What to measure."""

    unit_events: int = 320
    repeat: int = 5
    output: Path | None = None


def main(options: Options) -> None:
    """Measures, prints, writes."""
    pa.set_cpu_count(1)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="rmsai-bench-") as name:
        unit = copy_of(score(Path(name), options.unit_events)[1], 0)
        windows, events = unit.windows.combine_chunks(), unit.events.combine_chunks()
        for label, table in (("windows", windows), ("events", events)):
            measures = {choice: parquet(table, settings) for choice, settings in choices(table).items()}
            rows |= measured(f"Parquet {label}", table.num_rows, measures, options.repeat)
        fragments = {
            choice: fragment(windows.cast(schema), Path(name) / choice)
            for choice, schema in lance_schemas(windows).items()
        }
        rows |= measured("Lance", windows.num_rows, fragments, options.repeat)
    ratios = {
        f"{store}: bytes {IN_USE} / {DEFAULT}": rows[f"{store}, {IN_USE}: bytes per row"]
        / rows[f"{store}, {DEFAULT}: bytes per row"]
        for store in ("Parquet windows", "Parquet events", "Lance")
    }
    report(
        f"Storage of {windows.num_rows:,} windows and {events.num_rows:,} events",
        rows,
        ratios,
        options.output,
    )


@dataclass(frozen=True)
class Choice:
    """How to write a table, and to read it back."""

    write: Callable[[], Any]
    read: Callable[[Any], Any]
    num_bytes: Callable[[Any], int]


def measured(
    store: str, num_rows: int, choices_by_name: Mapping[str, Choice], repeat: int
) -> dict[str, float]:
    """Microseconds and bytes per row of every choice, interleaved."""
    written = {name: choice.write() for name, choice in choices_by_name.items()}
    writing = {name: cpu(choice.write) for name, choice in choices_by_name.items()}
    reading = {
        name: cpu(lambda choice=choice, name=name: choice.read(written[name]))
        for name, choice in choices_by_name.items()
    }
    write_s, read_s = medians(interleaved(repeat, writing)), medians(interleaved(repeat, reading))
    rows = {}
    for name, choice in choices_by_name.items():
        rows[f"{store}, {name}: bytes per row"] = choice.num_bytes(written[name]) / num_rows
        rows[f"{store}, {name}: µs to write a row"] = 1e6 * write_s[name] / num_rows
        rows[f"{store}, {name}: µs to read a row"] = 1e6 * read_s[name] / num_rows
    return rows


def cpu(act: Callable[[], Any]) -> Callable[[], float]:
    """The CPU seconds of a call."""

    def measure() -> float:
        started = time.process_time()
        act()
        return time.process_time() - started

    return measure


def choices(table: pa.Table) -> dict[str, dict[str, Any]]:
    """Settings of the Parquet writer by name."""
    dictionaries, encodings = choose_encodings(table.schema)
    used: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": dictionaries,
        "column_encoding": encodings,
    }

    def without(encoding: str) -> dict[str, Any]:
        kept = {path: name for path, name in encodings.items() if name != encoding}
        return {**used, "column_encoding": kept}

    return {
        IN_USE: used,
        DEFAULT: {},
        "zstd 3": {**used, "compression_level": 3},
        "zstd 9": {**used, "compression_level": 9},
        "lz4": {**used, "compression": "lz4", "compression_level": None},
        "not compressed": {**used, "compression": "none", "compression_level": None},
        "floats not split by byte": without("BYTE_STREAM_SPLIT"),
        "times not as differences": without("DELTA_BINARY_PACKED"),
        "ids not as differences": without("DELTA_BYTE_ARRAY"),
        "no dictionaries": {**used, "use_dictionary": False},
        "row groups of 1,024": {**used, "row_group_size": 1024},
        "no statistics": {**used, "write_statistics": False},
    }


def parquet(table: pa.Table, settings: dict[str, Any]) -> Choice:
    """One Parquet file in memory."""

    def write() -> pa.Buffer:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, **settings)
        return sink.getvalue()

    return Choice(
        write, lambda file: pq.read_table(pa.BufferReader(file), use_threads=False), lambda file: file.size
    )


def lance_schemas(windows: pa.Table) -> dict[str, pa.Schema]:
    """Schemas by name; Lance reads from them how to compress."""

    def compressed(how: dict[str, str], chosen: Callable[[pa.Field], bool]) -> pa.Schema:
        fields = [field.with_metadata(how) if chosen(field) else field for field in windows.schema]
        return pa.schema(fields, windows.schema.metadata)

    zstd = {"lance-encoding:compression": "zstd", "lance-encoding:compression-level": "1"}
    return {
        IN_USE: schemas.published(windows.schema),
        DEFAULT: windows.schema,
        "zstd, all but embeddings": compressed(zstd, lambda field: field.name != "embedding"),
        "zstd, all": compressed(zstd, lambda field: True),
        "texts by lz4": compressed(
            {"lance-encoding:compression": "lz4"}, lambda field: pa.types.is_string(field.type)
        ),
        "not compressed": compressed({"lance-encoding:compression": "none"}, lambda field: True),
    }


def fragment(windows: pa.Table, folder: Path) -> Choice:
    """One fragment for an empty dataset; a dataset of one fragment to read."""
    empty = lance.write_dataset(windows.schema.empty_table(), folder / "empty.lance", schema=windows.schema)
    full = lance.write_dataset(windows, folder / "full.lance", schema=windows.schema)
    return Choice(
        lambda: write_fragments(windows, empty.uri, schema=windows.schema),
        lambda fragments: lance.dataset(full.uri).to_table(),
        lambda fragments: sum(file.file_size_bytes for each in fragments for file in each.files),
    )


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
