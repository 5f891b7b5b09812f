"""LanceDB, published from finished units: fragments written by workers, committed by the driver alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import lance
import pyarrow as pa
from lance.commit import CommitConflictError
from lance.fragment import FragmentMetadata, write_fragments

from rmsai_ray.errors import LakeError
from rmsai_ray.storage import lance_options
from rmsai_ray.tables import schemas
from rmsai_ray.tables.index_segments import absorb, count_unindexed, find_note

FOLDER = "lance"
VALUES_PER_DELETE = 500
PUBLISH_ATTEMPTS = 5
MAX_UNINDEXED_ROWS = 10_000
"""Comparing with so many takes as long as a look into the index."""


def table_name(model_id: str) -> str:
    """The LanceDB table of one model. Nothing of two models shares a table."""
    return "windows_" + model_id.replace("-", "_")


class VectorTable:
    """One model's windows in LanceDB, with the columns of the ``windows`` table."""

    def __init__(self, lake_uri: str, model_id: str, embedding_dim: int) -> None:
        self.uri = f"{lake_uri}/{FOLDER}/{table_name(model_id)}.lance"
        self._dim = embedding_dim
        self._schema = schemas.published(schemas.windows(embedding_dim))
        self._options = lance_options(lake_uri)

    def ensure_exists(self) -> None:
        """Creates the table, empty, where it is not there.

        Raises:
            LakeError: it is there with other columns.
        """
        try:
            self.open()
        except ValueError:
            lance.write_dataset(
                self._schema.empty_table(),
                self.uri,
                schema=self._schema,
                mode="create",
                storage_options=self._options,
            )

    def write_fragments(self, windows: pa.Table) -> list[dict[str, Any]]:
        """Writes rows that nobody sees until they are published; returns the fragments for the ledger."""
        if windows.num_rows == 0:
            return []
        rows = windows.cast(self._stored_schema)  # Parquet gives the items of its lists another name
        fragments = write_fragments(rows, self.uri, schema=rows.schema, storage_options=self._options)
        return [fragment.to_json() for fragment in fragments]

    def rewrite(self, batches: Iterable[pa.RecordBatch], values: pa.DataType) -> None:
        """Replaces all rows by those of the record, with embeddings of ``values``, in one commit; drops the
        index. Later rows get the same values."""
        self._stored_schema = schemas.published(schemas.windows(self._dim, values))
        rows = (batch.cast(self._stored_schema) for batch in batches)
        reader = pa.RecordBatchReader.from_batches(self._stored_schema, rows)
        lance.write_dataset(reader, self.uri, mode="overwrite", storage_options=self._options)

    @cached_property
    def _stored_schema(self) -> pa.Schema:
        """With embeddings as the table has them; only maintenance changes that, when nobody writes."""
        values = self.open().schema.field("embedding").type.value_type
        return schemas.published(schemas.windows(self._dim, values))

    def delete_rows(self, archives_by_unit: dict[str, set[str]]) -> None:
        """Deletes the rows of archives that were replaced. Doing it twice is doing it once."""
        predicates = [
            f"(unit_id = {_literal(unit)} AND archive_id IN ({', '.join(map(_literal, sorted(archives)))}))"
            for unit, archives in sorted(archives_by_unit.items())
        ]
        for start in range(0, len(predicates), VALUES_PER_DELETE):
            self.open().delete(" OR ".join(predicates[start : start + VALUES_PER_DELETE]))

    def publish(self, fragments_by_unit: dict[str, list[dict[str, Any]]]) -> int:
        """Commits the fragments of finished units, all in one transaction, leaving out what is there already.

        The transaction holds for the version alone that was looked at. Lance would put a plain append on top
        of any other, and so bring rows twice that were published meanwhile: by a run that took the lake, or
        by its own first try, whose answer got lost on the way.

        Returns the number of units that this call made visible.

        Raises:
            LakeError: another program changes the table again and again.
        """
        for _ in range(PUBLISH_ATTEMPTS):
            dataset = self.open()
            fresh = self._unpublished(dataset, fragments_by_unit)
            if not fresh:
                return 0
            there = [fragment.metadata for fragment in dataset.get_fragments()]
            added = [fragment for unit in sorted(fresh) for fragment in fresh[unit]]
            operation = lance.LanceOperation.Merge([*there, *added], dataset.lance_schema)
            transaction = lance.Transaction(dataset.version, operation)
            try:
                lance.LanceDataset.commit(self.uri, transaction, storage_options=self._options, max_retries=0)
            except CommitConflictError:
                continue
            return len(fresh)
        raise LakeError(f"{self.uri} was changed by another run, which took the lake")

    def _unpublished(
        self, dataset: Any, fragments_by_unit: dict[str, list[dict[str, Any]]]
    ) -> dict[str, list[FragmentMetadata]]:
        """The units of which no file is visible."""
        visible = {file.path for fragment in dataset.get_fragments() for file in fragment.data_files()}
        return {
            unit: [FragmentMetadata.from_json(json.dumps(fragment)) for fragment in fragments]
            for unit, fragments in fragments_by_unit.items()
            if fragments and not _paths(fragments) & visible
        }

    def count_rows(self) -> int:
        """Rows that readers see."""
        return int(self.open().count_rows())

    def absorb_new_rows(self) -> None:
        """Puts new rows into the index once there are many; for the driver, at the end of a run.

        Searches compare with every row outside the index, so what they miss is nothing and what they wait for
        is bounded. Where there is no index, none is made.
        """
        dataset = self.open()
        note = find_note(dataset)
        if note and count_unindexed(dataset) > MAX_UNINDEXED_ROWS:
            absorb(dataset, note)

    def open(self) -> Any:
        """The Lance dataset at its latest version.

        Raises:
            LakeError: it was written with another version of the schema.
        """
        dataset = lance.dataset(self.uri, storage_options=self._options)
        schemas.check_version(dataset.schema, self._schema, self.uri)
        return dataset


def _paths(fragments: Iterable[dict[str, Any]]) -> set[str]:
    return {file["path"] for fragment in fragments for file in fragment["files"]}


def _literal(value: str) -> str:
    """An SQL string literal."""
    return "'" + value.replace("'", "''") + "'"
