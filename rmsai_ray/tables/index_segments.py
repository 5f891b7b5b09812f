"""The vector index of a Lance table as it lies there: its segments, and the note that its name is.

What was measured of an index is written into its name. So index and note change in one commit, and there is
no crash between the two. Only IVF_FLAT is used: it keeps the vectors as they are, and looking at all of its
partitions is an exact search.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import lance

COLUMN, METRIC, INDEX_TYPE = "embedding", "cosine", "IVF_FLAT"

NOTE = re.compile(r"rmsai probes=(?P<probes>\d+) recall=(?P<recall>[\d.]+) rows=(?P<rows>\d+)")
NOTE_FORMAT = "rmsai probes={probes} recall={recall:.4f} rows={rows}"

MERGE_FACTOR = 2
"""A segment is merged with newer ones that hold at least half as many rows: there are never more segments
than the logarithm of the rows, and a row is merged as often."""


@dataclass(frozen=True, kw_only=True)
class IndexNote:
    """What was measured when an index was built or last looked at."""

    probes: int
    """Partitions to look at for the ten nearest."""
    recall: float
    """Measured recall@10 with so many; at least so high with 95 % confidence."""
    num_rows: int
    """Rows of the table at that time."""

    @property
    def name(self) -> str:
        """The name that an index with this note has."""
        return NOTE_FORMAT.format(probes=self.probes, recall=self.recall, rows=self.num_rows)


@dataclass(frozen=True, kw_only=True)
class IndexState:
    """How what is nearest is found where no filter is given."""

    num_rows: int
    num_unindexed: int
    """Rows that every search compares one by one; all of them where there is no index."""
    probes: int | None
    """Partitions of the index that a search for ten looks at; None without an index."""
    recall: float
    """Recall@10, measured; at least so high with 95 % confidence. 1 without an index."""
    measured_rows: int | None
    """Rows of the table when it was measured; None without an index."""


def index_state(dataset: Any) -> IndexState:
    """What is known of the index of a Lance dataset's embeddings."""
    num_rows, note = dataset.count_rows(), find_note(dataset)
    return IndexState(
        num_rows=num_rows,
        num_unindexed=count_unindexed(dataset) if note else num_rows,
        probes=note.probes if note else None,
        recall=note.recall if note else 1.0,
        measured_rows=note.num_rows if note else None,
    )


def read_note(names: Iterable[str]) -> IndexNote | None:
    """The note among the names of a table's vector indices; None where there is none, or another index, too,
    which Lance might use instead.
    """
    found = [NOTE.fullmatch(name) for name in names]
    if len(found) != 1 or found[0] is None:
        return None
    probes, recall, num_rows = found[0].groups()
    return IndexNote(probes=int(probes), recall=float(recall), num_rows=int(num_rows))


def find_note(dataset: Any) -> IndexNote | None:
    """The note of a Lance dataset's vector index."""
    return read_note(index.name for index in vector_indices(dataset))


def vector_indices(dataset: Any) -> list[Any]:
    """Descriptions of the indices over the embeddings."""
    return [index for index in dataset.describe_indices() if COLUMN in index.field_names]


def count_unindexed(dataset: Any) -> int:
    """Rows that no index over the embeddings covers."""
    return sum(fragment.count_rows() for fragment in _unindexed(dataset))


def build_segment(dataset: Any, fragments: Iterable[int], name: str, **partitions: Any) -> lance.Index:
    """Writes an index over some fragments that nobody uses until it is committed.

    Args:
        dataset: a Lance dataset.
        fragments: their ids.
        name: of the index that it is to be part of.
        partitions: ``num_partitions``, or ``ivf_centroids`` of an index that is there.
    """
    segment = dataset.create_index_uncommitted(
        COLUMN, INDEX_TYPE, name=uuid4().hex, metric=METRIC, fragment_ids=sorted(fragments), **partitions
    )
    return replace(segment, name=name)


def commit_segment(
    dataset: Any, segment: lance.Index, *, removed: Sequence[lance.Index] = (), detached: bool = False
) -> Any:
    """The dataset with a segment, and without others; ``detached``: in a version that nobody else sees."""
    operation = lance.LanceOperation.CreateIndex([segment], list(removed))
    return lance.LanceDataset.commit(dataset, operation, read_version=dataset.version, detached=detached)


def all_segments(dataset: Any) -> list[lance.Index]:
    """Every segment of every index over the embeddings, as a commit that removes them wants it."""
    return [
        lance.Index(
            uuid=segment.uuid,
            name=index.name,
            fields=index.fields,
            dataset_version=segment.dataset_version_at_last_update,
            fragment_ids=segment.fragment_ids,
            index_version=segment.index_version,
        )
        for index in vector_indices(dataset)
        for segment in index.segments
    ]


def absorb(dataset: Any, note: IndexNote) -> Any:
    """The dataset with all of its rows in the index: into the partitions that are there, nothing is trained.

    The new segment takes in those that are not much larger.
    """
    sizes = {fragment.fragment_id: fragment.count_rows() for fragment in dataset.get_fragments()}
    fragments = {fragment.fragment_id for fragment in _unindexed(dataset)}
    if not fragments:
        return dataset
    num_rows = sum(sizes[i] for i in fragments)
    merged = []
    for size, segment in _by_size(all_segments(dataset), sizes):
        if size > MERGE_FACTOR * num_rows:
            break
        merged.append(segment)
        fragments |= set(segment.fragment_ids) & set(sizes)
        num_rows += size
    centroids = dataset.get_ivf_model(note.name).centroids
    segment = build_segment(dataset, fragments, note.name, ivf_centroids=centroids)
    return commit_segment(dataset, segment, removed=merged)


def _unindexed(dataset: Any) -> list[Any]:
    covered = {i for segment in all_segments(dataset) for i in segment.fragment_ids}
    return [fragment for fragment in dataset.get_fragments() if fragment.fragment_id not in covered]


def _by_size(segments: Iterable[lance.Index], sizes: dict[int, int]) -> list[tuple[int, lance.Index]]:
    """Segments with the rows that they cover, the smallest first."""
    counted = [(sum(sizes.get(i, 0) for i in segment.fragment_ids), segment) for segment in segments]
    return sorted(counted, key=lambda pair: pair[0])
