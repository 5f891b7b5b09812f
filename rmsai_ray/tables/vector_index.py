"""Builds the index of a model's embeddings and measures it: an index is used only as far as it was measured.

There is nothing to tune. The recall that is wanted is declared; how many partitions a search looks at is the
smallest number that reaches it on a sample of the table's own rows. Shapes: Q queries, E dimensions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from rmsai_ray.errors import ConfigError, LakeError
from rmsai_ray.storage import Store
from rmsai_ray.tables.index_segments import (
    COLUMN,
    METRIC,
    IndexNote,
    IndexState,
    absorb,
    all_segments,
    build_segment,
    commit_segment,
    find_note,
    index_state,
    vector_indices,
)
from rmsai_ray.tables.vectors import VectorTable

K = 10
NUM_QUERIES = 1000
"""With 1000 queries a recall of 0.99 is known to ±0.002, and 0.99 can be shown at all."""
Z_95 = 1.645
"""One-sided 95 % of a normal distribution."""
SAME_DISTANCE = 1e-6
"""Cosine distances of float32 that differ less are the same: copies of a window are as good as each other."""
PAYS_FROM_ROWS = 50_000
"""Below it comparing with every row takes less than fetching what is found."""
MAX_GROWTH = 2
"""A table that has grown more since its index was trained gets a new one, with more partitions."""

log = logging.getLogger(__name__)

Measure = Callable[[int], float]


@dataclass(frozen=True, kw_only=True)
class IndexReport(IndexState):
    """How a table is searched from now on."""

    built: bool
    """Whether the index is new."""


def ensure_index(
    vectors: VectorTable, *, target_recall: float = 0.99, min_rows: int = PAYS_FROM_ROWS
) -> IndexReport:
    """Sees to it that a table's index finds enough: measures the one in use, or builds one and measures that.

    For whoever holds the lake's lease. An index comes into use together with what was measured of it, or not
    at all; a crash leaves the old one, and files that a clean-up of old versions removes.

    Args:
        vectors: one model's table.
        target_recall: recall@10 that is to be shown, with 95 % confidence, between 0 and 1.
        min_rows: a smaller table is searched without an index, which is exact.

    Raises:
        LakeError: the new index does not reach the target, or cannot be measured; the old one stays in use.
    """
    if not 0 < target_recall < 1:
        raise ConfigError("target_recall", target_recall, "is not between 0 and 1", "Give e.g. 0.99.")
    dataset = vectors.open()
    num_rows, note = dataset.count_rows(), find_note(dataset)
    if num_rows < min_rows and not vector_indices(dataset):
        return _report(dataset, built=False)
    sample = _sample(dataset, num_rows)
    if note and num_rows <= MAX_GROWTH * note.num_rows:
        dataset = absorb(dataset, note)
        # Without the margin of a new one: what was proven once is not built again for another sample's luck.
        if sample.found(dataset, note.probes).mean() >= target_recall:
            return _report(dataset, built=False)
    return _report(_build(vectors.uri, dataset, sample, target_recall), built=True)


@dataclass(frozen=True)
class _Sample:
    """Rows of a table as queries, and how far away the last of their nearest really is."""

    query_QE: npt.NDArray[np.float32]  # noqa: N815
    row_Q: npt.NDArray[np.uint64]  # noqa: N815
    """Their own row ids: a window does not find itself."""
    distance_Q: npt.NDArray[np.float32]  # noqa: N815
    """Of the tenth nearest, by an exhaustive search."""

    def found(self, dataset: Any, probes: int) -> npt.NDArray[np.float64]:
        """The share (Q,) of the ten nearest that are found with so many partitions."""
        found_QK = _nearest(
            dataset, self.query_QE, self.row_Q, minimum_nprobes=probes, maximum_nprobes=probes
        )
        share_Q: npt.NDArray[np.float64] = (found_QK <= self.distance_Q[:, None] + SAME_DISTANCE).mean(axis=1)
        return share_Q


def lower_bound(share_Q: npt.NDArray[np.float64]) -> float:
    """The mean share that a sample shows with 95 % confidence (normal approximation).

    Counted with one query more that finds nothing, so that no sample, however small, proves perfection.
    """
    share_Q = np.append(share_Q, 0.0)
    return float(share_Q.mean() - Z_95 * share_Q.std(ddof=1) / len(share_Q) ** 0.5)


def _sample(dataset: Any, num_rows: int) -> _Sample:
    places = np.random.default_rng(0).choice(num_rows, min(NUM_QUERIES, num_rows), replace=False)
    rows = dataset.take(np.sort(places).tolist(), columns=[COLUMN, "_rowid"])
    query_QE = np.stack(rows[COLUMN].to_numpy()).astype(np.float32)
    usable_Q = np.isfinite(query_QE).all(axis=1) & query_QE.any(axis=1)
    if not usable_Q.any():
        raise LakeError(
            f"of {len(query_QE)} embeddings of {dataset.uri} none has a direction: check the model"
        )
    query_QE, row_Q = query_QE[usable_Q], rows["_rowid"].to_numpy()[usable_Q]
    return _Sample(query_QE, row_Q, _nearest(dataset, query_QE, row_Q, use_index=False)[:, -1])


def _nearest(
    dataset: Any, query_QE: npt.NDArray[np.float32], row_Q: npt.NDArray[np.uint64], **how: Any
) -> npt.NDArray[np.float32]:
    """Distances (Q, K) of what is nearest to each query but itself, ascending; infinite if less is found."""
    found = dataset.to_table(
        columns=["_distance"],
        nearest={"column": COLUMN, "q": query_QE, "k": K + 1, "metric": METRIC, **how},
        with_row_id=True,
    )
    query_F, row_F = found["query_index"].to_numpy(), found["_rowid"].to_numpy()
    distance_F = np.where(row_F == row_Q[query_F], np.inf, found["_distance"].to_numpy())
    distance_QK = np.full((len(query_QE), K + 1), np.inf, np.float32)
    start_Q = np.searchsorted(query_F, np.arange(len(query_QE)))
    distance_QK[query_F, np.arange(len(query_F)) - start_Q[query_F]] = distance_F
    return np.sort(distance_QK, axis=1)[:, :K]


def _build(uri: str, dataset: Any, sample: _Sample, target_recall: float) -> Any:
    """Trains an index, measures it where nobody sees it, and brings it into use in place of all others."""
    fragments = [fragment.fragment_id for fragment in dataset.get_fragments()]
    num_rows, others = dataset.count_rows(), all_segments(dataset)
    num_partitions = isqrt(num_rows)
    segment = build_segment(dataset, fragments, "trial", num_partitions=num_partitions)
    trial = commit_segment(dataset, segment, removed=others, detached=True)
    store = Store(uri)
    try:
        probes, recall = _fewest_probes(
            lambda probes: lower_bound(sample.found(trial, probes)), num_partitions, target_recall
        )
    finally:
        store.delete([f"_versions/d{trial.version}.manifest"])
    if recall < target_recall:
        store.delete([info.key for info in store.list(f"_indices/{segment.uuid}")])
        raise LakeError(
            f"a new vector index of {uri} reaches recall@{K} {recall:.4f} at most, and {target_recall} is "
            "wanted: it is not used, and searches go on as before"
        )
    note = IndexNote(probes=probes, recall=recall, num_rows=num_rows)
    log.info("index built", extra={"fields": {**asdict(note), "partitions": num_partitions}})
    return commit_segment(dataset, replace(segment, name=note.name), removed=others)


def _fewest_probes(measure: Measure, num_partitions: int, target_recall: float) -> tuple[int, float]:
    """The smallest number of partitions, to an eighth, that reaches the target, else all; and its recall."""
    probes, recall = 1, measure(1)
    while recall < target_recall and probes < num_partitions:
        probes = min(2 * probes, num_partitions)
        recall = measure(probes)
    too_few = probes // 2
    while probes - too_few > max(1, probes // 8):
        middle = (too_few + probes) // 2
        if (of_middle := measure(middle)) >= target_recall:
            probes, recall = middle, of_middle
        else:
            too_few = middle
    return probes, recall


def _report(dataset: Any, *, built: bool) -> IndexReport:
    return IndexReport(**asdict(index_state(dataset)), built=built)
