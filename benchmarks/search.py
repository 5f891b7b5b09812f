"""Search in a million windows: recall and latency with the index that measured itself, against a scan of all.

    python -m benchmarks.search [--rows 1000000] [--queries 200] [--output result.json]

The vectors are embeddings of simulated windows by the packaged model, and points between them and their
nearest, with noise: clustered and of few dimensions, as embeddings are. The queries were made with them and
are not in the table. The hard case is isotropic Gaussian noise, which has no structure that an index could
use; no model's embeddings look so.

Two things are timed, warm, each against the same with a scan instead of the index, interleaved: finding the
ten nearest rows, and :func:`rmsai_ray.tables.search.similar`, which also fetches thirteen columns of them.
The peer is LanceDB's index with its own defaults. Recall is counted against numpy over all rows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import tyro
from lancedb.index import IvfPq

from benchmarks._measure import report
from rmsai_ray.archives.reader import ReadOptions, read_archive
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.encoding.encoder import WindowEncoder, limit_threads
from rmsai_ray.models.checkpoint import load_model
from rmsai_ray.models.profiles import DEFAULT_PROFILE
from rmsai_ray.signals.leads import LEADS
from rmsai_ray.signals.windows import cut_windows
from rmsai_ray.tables import schemas
from rmsai_ray.tables.filters import WindowFilter
from rmsai_ray.tables.index_segments import index_state
from rmsai_ray.tables.lake import Lake
from rmsai_ray.tables.search import COLUMNS, similar
from rmsai_ray.tables.vector_index import ensure_index
from rmsai_ray.tables.vectors import MAX_UNINDEXED_ROWS, VectorTable

Array = npt.NDArray[np.float32]

MODEL, DIM, K = "bench-2400x64-000000000000", 64, 10
EVENTS_PER_PATIENT, NEIGHBOURS, JITTER = 6, 8, 0.3
PATIENTS = 1000
"""Made-up ones of the table: each has 0.1 % of the rows, in a few places."""
CONDITIONS = ("Normal", "Atrial Fibrillation", "Tachycardia", "Bradycardia", "Unknown")
FILTERS = {
    "one patient, 0.1 % of rows": {"patient": "PT7"},
    "one lead, 14 % of rows": {"lead": "aVF"},
    "all but one patient": {"not_patient": "PT7"},
}
ROWS_PER_UNIT = 50_000
TIMED_QUERIES = 60
"""Of all queries: a scan takes long."""
SAME_DISTANCE = 1e-6
"""Of float32: nearer than that is the same."""


@dataclass
class Options:
    """How much to search in."""

    rows: int = 1_000_000
    patients: int = 120
    """Simulated patients whose windows are encoded, 42 each."""
    queries: int = 200
    hard_rows: int = 200_000
    """Rows of the Gaussian case; 0 leaves it out."""
    output: Path | None = None


def main(options: Options) -> None:
    """Measures, prints, writes."""
    limit_threads(1)
    started = time.perf_counter()
    embedding_NE = encode(options.patients)
    values: dict[str, Any] = {
        "rows": options.rows,
        "encoded windows": len(embedding_NE),
        "encoding, s": time.perf_counter() - started,
    }
    case = between_neighbours(embedding_NE, options.rows + options.queries)
    ratios = measure(case, options.queries, values, "", peer=True)
    if options.hard_rows:
        noise = gaussian(options.hard_rows + options.queries)
        ratios |= measure(noise, options.queries, values, "Gaussian: ", peer=False)
    report(f"search in {options.rows:,} x {DIM}", values, ratios, options.output)


def encode(num_patients: int) -> Array:
    """Embeddings (N, E) of simulated windows, all leads, by the packaged model."""
    encoder = WindowEncoder(load_model(DEFAULT_PROFILE))
    return np.concatenate([_encode_patient(encoder, patient) for patient in range(num_patients)])


def _encode_patient(encoder: WindowEncoder, patient: int) -> Array:
    name, content = simulate_archive(patient, EVENTS_PER_PATIENT, seed=1)
    archive = read_archive(content, name, options=ReadOptions(vitals=False))
    spec = encoder.bundle.spec
    named = [(lead, signal) for event in archive.events for lead, signal in event.leads.items()]
    cuts = [cut_windows(signal.samples, spec.window_samples, spec.stride_samples) for _, signal in named]
    leads = [lead for (lead, _), cut in zip(named, cuts, strict=True) for _ in cut.starts_N]
    signals_NT = np.concatenate([cut.samples_NT for cut in cuts])
    return encoder.encode(signals_NT, np.concatenate([cut.num_samples_N for cut in cuts]), leads).embedding_NE


@dataclass(frozen=True)
class Case:
    """Vectors of a table, and of queries behind them."""

    vectors_NE: Array  # noqa: N815
    source_N: npt.NDArray[np.int64]  # noqa: N815
    """What each was made from; gives patient and lead, so that theirs lie close together."""


def between_neighbours(embedding_NE: Array, num: int) -> Case:
    """``num`` points between embeddings and their nearest ones, with noise of a part of that distance."""
    rng = np.random.default_rng(1)
    unit_NE = embedding_NE / np.linalg.norm(embedding_NE, axis=1, keepdims=True)
    nearest_NK = np.argpartition(-(unit_NE @ unit_NE.T), NEIGHBOURS, axis=1)[:, : NEIGHBOURS + 1]
    source_N = rng.integers(len(embedding_NE), size=num)
    other_N = nearest_NK[source_N, rng.integers(NEIGHBOURS + 1, size=num)]
    gap_NE = embedding_NE[other_N] - embedding_NE[source_N]
    noise_NE = rng.standard_normal((num, DIM), np.float32) * (
        JITTER * np.linalg.norm(gap_NE, axis=1, keepdims=True) / DIM**0.5
    )
    vectors_NE = embedding_NE[source_N] + rng.random((num, 1), np.float32) * gap_NE + noise_NE
    return Case(vectors_NE.astype(np.float32), source_N)


def gaussian(num: int) -> Case:
    """``num`` points without any structure."""
    return Case(np.random.default_rng(2).standard_normal((num, DIM), np.float32), np.arange(num))


def measure(
    case: Case, num_queries: int, values: dict[str, Any], prefix: str, *, peer: bool
) -> dict[str, float]:
    """Adds one case's values, under a prefix; returns its ratios."""
    table_NE, queries = case.vectors_NE[:-num_queries], case.vectors_NE[-num_queries:]
    with tempfile.TemporaryDirectory(prefix="rmsai-bench-") as folder:
        table = VectorTable(folder, MODEL, DIM)
        values[f"{prefix}write, s"] = timed(lambda: write(table, table_NE, case.source_N))
        table.open().optimize.compact_files()
        values[f"{prefix}build and measure the index, s"] = timed(lambda: ensure_index(table, min_rows=1))
        state = index_state(table.open())
        values[f"{prefix}partitions looked at"] = f"{state.probes} of {isqrt(len(table_NE))}"
        values[f"{prefix}recall@10 shown when built"] = state.recall
        lake, truth = Lake(folder, MODEL), Truth(case, num_queries)
        values[f"{prefix}first search, ms"] = timed(lambda: similar(lake, queries[0])) * 1e3
        ratios = compare(lake, truth, values, prefix)
        for name, conditions in FILTERS.items():
            filtered(name, lake, truth, values, prefix, **conditions)
        ratios[f"{prefix}recall@100"] = truth.recall(lambda query: similar(lake, query, k=100), 30, k=100)
        if peer:
            values["recall@10 of float16 vectors, scanned"] = truth.half_recall(50)
            with_new_rows(table, lake, case, queries, values)
            against_default(lake, truth, values)
    return ratios


def compare(lake: Lake, truth: Truth, values: dict[str, Any], prefix: str) -> dict[str, float]:
    """The ten nearest, by index and by scan."""
    dataset = lake.vector_dataset()
    probes = index_state(dataset).probes

    def ids(query: Array, how: dict[str, Any]) -> Any:
        nearest = {"column": "embedding", "q": query, "k": K, "metric": "cosine", **how}
        return dataset.to_table(columns=["_distance"], with_row_id=True, nearest=nearest)

    found = interleaved_ms(
        truth.queries[:TIMED_QUERIES],
        {
            "rows by index": lambda query: ids(query, {"nprobes": probes}),
            "rows by scan": lambda query: ids(query, {"use_index": False}),
            "answer by index": lambda query: similar(lake, query),
            "answer by scan": lambda query: similar(lake, query, exact=True),
        },
    )
    values |= {f"{prefix}{name}, ms": quantiles(ms) for name, ms in found.items()}
    medians = {name: float(np.median(ms)) for name, ms in found.items()}
    pays = dataset.count_rows() * medians["answer by index"] / medians["rows by scan"]
    values[f"{prefix}rows from which a scan takes longer than all the rest"] = round(pays)
    return {
        f"{prefix}recall@10": truth.recall(lambda query: similar(lake, query), len(truth.queries)),
        f"{prefix}ten nearest rows: index against scan": medians["rows by scan"] / medians["rows by index"],
        f"{prefix}whole answer: index against scan": medians["answer by scan"] / medians["answer by index"],
    }


def filtered(
    name: str, lake: Lake, truth: Truth, values: dict[str, Any], prefix: str, **conditions: Any
) -> None:
    """Recall and latency of a search among some of the rows."""
    where = WindowFilter(**conditions)
    found = interleaved_ms(truth.queries[:20], {name: lambda query: similar(lake, query, where=where)})
    recall = truth.recall(lambda query: similar(lake, query, where=where), 20, **conditions)
    values[f"{prefix}{name}"] = f"recall@10 {recall:.3f}, {quantiles(found[name])} ms"


def with_new_rows(table: VectorTable, lake: Lake, case: Case, queries: Array, values: dict[str, Any]) -> None:
    """Latency with as many rows outside the index as are left there; then with all of them in it."""
    publish(table, "new", case.vectors_NE[:MAX_UNINDEXED_ROWS], case.source_N[:MAX_UNINDEXED_ROWS])
    search = {"ms": lambda query: similar(lake, query)}
    outside = index_state(table.open()).num_unindexed
    values[f"with {outside} rows outside the index, ms"] = quantiles(interleaved_ms(queries, search)["ms"])
    publish(table, "last", case.vectors_NE[:100], case.source_N[:100])
    values["absorbing them, s"] = timed(table.absorb_new_rows)
    values["absorbed, ms"] = quantiles(interleaved_ms(queries, search)["ms"])


def against_default(lake: Lake, truth: Truth, values: dict[str, Any]) -> None:
    """LanceDB's own index and search, as its defaults have them."""
    dataset = lake.vector_dataset()
    for index in dataset.describe_indices():
        dataset.drop_index(index.name)
    table = lake.vectors()
    config = IvfPq(distance_type="cosine")
    values["LanceDB's default index: build, s"] = timed(
        lambda: table.create_index("embedding", config=config)
    )

    def search(query: Array) -> Any:
        nearest = table.search(query, vector_column_name="embedding").distance_type("cosine").limit(K)
        found = nearest.select([*COLUMNS, "_distance"]).to_pandas()
        vectors_NE = truth.of_ids(found["window_id"])  # its distances are those of codes
        similarity_N = vectors_NE @ query / np.linalg.norm(vectors_NE, axis=1) / np.linalg.norm(query)
        return pd.DataFrame({"similarity": similarity_N})

    values["LanceDB's default index: answer, ms"] = quantiles(
        interleaved_ms(truth.queries[:50], {"ms": search})["ms"]
    )
    values["LanceDB's default index: recall@10"] = truth.recall(search, 100)


class Truth:
    """What an exhaustive search by numpy finds."""

    def __init__(self, case: Case, num_queries: int) -> None:
        self._table_NE, self.queries = case.vectors_NE[:-num_queries], case.vectors_NE[-num_queries:]
        self._source_N = case.source_N[:-num_queries]
        self._scale_N = np.linalg.norm(self._table_NE, axis=1)

    def recall(self, search: Callable[[Array], Any], num: int, k: int = K, **conditions: Any) -> float:
        """Of some queries: the share of what was found that is as near as the ``k`` nearest."""
        kept_N = self._kept(**conditions)
        shares = []
        for query in self.queries[:num]:
            similarity_N = self._similarity(query)[kept_N]
            worst = np.partition(similarity_N, -k)[-k]
            shares.append((search(query)["similarity"] >= worst - SAME_DISTANCE).sum() / k)
        return float(np.mean(shares))

    def half_recall(self, num: int) -> float:
        """Recall@10 of an exhaustive search where the table holds float16 instead of float32."""
        half_NE = self._table_NE.astype(np.float16).astype(np.float32)
        half_scale_N = np.linalg.norm(half_NE, axis=1)

        def search(query: Array) -> dict[str, Any]:
            found = np.argpartition(-(half_NE @ query / half_scale_N), K)[:K]
            return {"similarity": self._similarity(query)[found]}

        return self.recall(search, num)

    def of_ids(self, window_ids: Iterable[str]) -> Array:
        """The vectors of windows."""
        return self._table_NE[[int(window_id.split("/")[1].split("_")[1]) for window_id in window_ids]]

    def _similarity(self, query: Array) -> Array:
        similarity_N: Array = self._table_NE @ query / self._scale_N / np.linalg.norm(query)
        return similarity_N

    def _kept(
        self, patient: str | None = None, not_patient: str | None = None, lead: str | None = None
    ) -> npt.NDArray[np.bool_]:
        patient_N, kept_N = self._source_N % PATIENTS, np.ones(len(self._source_N), np.bool_)
        if patient is not None:
            kept_N &= patient_N == int(patient[2:])
        if not_patient is not None:
            kept_N &= patient_N != int(not_patient[2:])
        if lead is not None:
            kept_N &= self._source_N % len(LEADS) == LEADS.index(lead)
        return kept_N


def interleaved_ms(
    queries: Array, searches: dict[str, Callable[[Array], Any]]
) -> dict[str, npt.NDArray[np.float64]]:
    """Milliseconds of each search for each query, the searches in turn; each is tried once before."""
    for search in searches.values():
        search(queries[0])
    found = {
        name: [timed(partial(search, query)) * 1e3 for query in queries] for name, search in searches.items()
    }
    return {name: np.array(ms) for name, ms in found.items()}


def quantiles(ms: npt.NDArray[np.float64]) -> str:
    """The median, and what one of twenty exceeds."""
    return f"p50 {np.median(ms):.2f}, p95 {np.percentile(ms, 95):.2f}"


def timed(work: Callable[[], Any]) -> float:
    """Seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def write(table: VectorTable, vectors_NE: Array, source_N: npt.NDArray[np.int64]) -> None:
    """Publishes windows with these embeddings, in units."""
    table.ensure_exists()
    for start in range(0, len(vectors_NE), ROWS_PER_UNIT):
        chosen = slice(start, min(start + ROWS_PER_UNIT, len(vectors_NE)))
        publish(table, f"unit-{start}", vectors_NE[chosen], source_N[chosen], start)


def publish(
    table: VectorTable, unit: str, vectors_NE: Array, source_N: npt.NDArray[np.int64], start: int = 0
) -> None:
    """One unit; columns that no search fetches hold the same everywhere."""
    schema, num = schemas.windows(DIM), len(vectors_NE)
    one = {field.name: _filler(field) for field in schema} | {"unit_id": unit, "model_id": MODEL}
    rows = pa.Table.from_pylist([one], schema).take(np.zeros(num, np.int64))
    rng = np.random.default_rng(start)
    event_ids = [f"event_{start + i}" for i in range(num)]
    patients = [f"PT{source % PATIENTS}" for source in source_N]
    archives = [f"{unit}{source % PATIENTS:08x}" for source in source_N]
    columns: dict[str, Any] = {
        "window_id": pa.array(
            f"{patient}_2026-10/{event}/ECG1/0@{archive}"[:60]
            for patient, event, archive in zip(patients, event_ids, archives, strict=True)
        ),
        "patient_id": pa.array(patients),
        "event_id": pa.array(event_ids),
        "archive_id": pa.array(archives),
        "event_time": pa.array(rng.integers(1 << 50, size=num)).cast(schemas.TIME),
        "lead": pa.array([LEADS[source % len(LEADS)] for source in source_N]),
        "start_sample": pa.array(rng.integers(2400, size=num, dtype=np.int32)),
        "condition": pa.array(rng.choice(CONDITIONS, num)),
        "heart_rate": pa.array(rng.uniform(40, 180, num)),
        "reconstruction_error": pa.array(rng.random(num, np.float32)),
        "anomaly_score": pa.array(rng.random(num, np.float32)),
        "anomaly_status": pa.array(rng.choice(["normal", "anomaly"], num)),
        "anomaly_type": pa.array(rng.choice(CONDITIONS, num)),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors_NE.ravel()), DIM),
    }
    for name, column in columns.items():
        place = schema.get_field_index(name)
        rows = rows.set_column(place, schema.field(place), column)
    table.publish({unit: table.write_fragments(rows)})


def _filler(field: pa.Field) -> Any:
    if field.nullable:
        return None
    if pa.types.is_fixed_size_list(field.type):
        return [0.0] * DIM
    if pa.types.is_list(field.type):
        return []
    return "" if pa.types.is_string(field.type) else False if pa.types.is_boolean(field.type) else 0


if __name__ == "__main__":
    main(tyro.cli(Options))
