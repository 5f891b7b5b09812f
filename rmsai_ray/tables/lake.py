"""Opens one model's tables of a lake for reading: DuckDB views over the Parquet record, and LanceDB.

A view shows what the manifest says is committed. Parts of a running or killed backfill lie in the same
folders and stay invisible, so a question asked in the middle of a backfill gets the answer of before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import lance
import lancedb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from rmsai_ray.errors import ConfigError, LakeError, StorageError
from rmsai_ray.storage import Store, arrow_filesystem, lance_options, normalise_uri
from rmsai_ray.tables import schemas
from rmsai_ray.tables.alerts import alerts_table
from rmsai_ray.tables.layout import load_layout
from rmsai_ray.tables.vectors import FOLDER, table_name

PERIOD = pa.field("period", pa.string())
PARTITIONED = ("windows", "events")

SCHEMAS: dict[str, pa.Schema] = {
    "archives": schemas.ARCHIVES,
    "events": schemas.EVENTS,
    "rejects": schemas.REJECTS,
    "windows": schemas.windows(1),  # of any dimension; the rows tell theirs
}

VIEWS = """
CREATE VIEW archives AS FROM archives_parts;
CREATE VIEW committed AS SELECT archive_id, unit_id FROM archives WHERE status = 'committed';
CREATE VIEW events AS FROM events_parts SEMI JOIN committed USING (archive_id, unit_id);
CREATE VIEW windows AS FROM windows_parts SEMI JOIN committed USING (archive_id, unit_id);
CREATE VIEW rejects AS FROM rejects_parts SEMI JOIN archives USING (uri, unit_id);
"""


class Lake:
    """One model's view of a lake. Nothing here can reach the rows of another model.

    The DuckDB views ``windows``, ``events``, ``archives``, ``rejects`` and ``alerts`` have the columns of
    :mod:`rmsai_ray.tables.schemas`; ``windows`` and ``events`` also have ``period`` (``YYYY-MM``).
    Times are UTC.
    """

    def __init__(self, uri: str, model_id: str) -> None:
        self.uri, self.model_id = normalise_uri(uri), model_id
        self._store = Store(self.uri)
        alerts = alerts_table(self._store)
        self._connection = duckdb.connect()
        self._connection.execute("SET TimeZone = 'UTC'")
        # A name in a query is a view, never whatever Python variable happens to be called so.
        self._connection.execute("SET python_enable_replacements = false")
        for table in SCHEMAS:
            self._connection.register(f"{table}_parts", self.dataset(table))
        self._connection.execute(VIEWS)
        about_us = pc.fill_null(pc.equal(alerts["model_id"], model_id), True)
        self._connection.register("alerts", alerts.filter(about_us))
        self._lance: Any = None

    def table(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> pa.Table:
        """The answer to one statement; values go in as parameters (``?`` or ``$name``)."""
        answer = self._connection.sql(sql, params=parameters or None)
        return pa.table({}) if answer is None else answer.to_arrow_table()

    def frame(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> pd.DataFrame:
        """As :meth:`table`, as a pandas frame."""
        frame: pd.DataFrame = self.table(sql, parameters).to_pandas(maps_as_pydicts="strict")
        return frame

    def rows(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        """As :meth:`table`, as one dict a row; what is null is None."""
        rows: list[dict[str, Any]] = self.table(sql, parameters).to_pylist(maps_as_pydicts="strict")
        return rows

    def dataset(self, table: str) -> Any:
        """The Parquet parts of one table as a :class:`pyarrow.dataset.Dataset`, uncommitted ones included.

        Raises:
            LakeError: the parts were written with another version of the schema.
        """
        files, partitioned = self.parquet_files(table), table in PARTITIONED
        if not files:
            schema = SCHEMAS[table]
            return pads.dataset((schema.append(PERIOD) if partitioned else schema).empty_table())
        filesystem, root = arrow_filesystem(self.uri)
        folder = f"{root}/{table}/model={self.model_id}"
        dataset = pads.dataset(
            [info.path for info in files],
            filesystem=filesystem,
            format="parquet",
            partitioning=pads.partitioning(pa.schema([PERIOD]), flavor="hive") if partitioned else None,
            partition_base_dir=folder,
        )
        schemas.check_version(dataset.schema, SCHEMAS[table], folder)
        return dataset

    def vectors(self) -> Any:
        """The LanceDB table of this model, at its latest version.

        Raises:
            LakeError: nothing was published for this model.
        """
        self.vector_dataset()
        database = lancedb.connect(f"{self.uri}/{FOLDER}", storage_options=lance_options(self.uri))
        return database.open_table(table_name(self.model_id))

    def vector_dataset(self) -> Any:
        """The same as a Lance dataset. It stays open: what one search has read of the index, the next finds.

        Raises:
            LakeError: nothing was published for this model.
        """
        if self._lance is None:
            self._lance = self._open_lance()
        self._lance.checkout_latest()
        return self._lance

    def parquet_files(self, table: str) -> list[pafs.FileInfo]:
        """Path and size of the Parquet parts of one table; each row of the lake lies in one of them."""
        while True:
            layout = load_layout(self._store, self.model_id)
            files = _list_files(self.uri, f"{table}/model={self.model_id}")
            if load_layout(self._store, self.model_id) == layout:  # else a compaction ended meanwhile
                break
        found = [info for info in files if info.extension == "parquet"]
        return [info for info in found if layout.is_visible(info.base_name.removesuffix(".parquet"))]

    def vector_files(self) -> list[pafs.FileInfo]:
        """Path and size of every object of this model's LanceDB table."""
        return _list_files(self.uri, f"{FOLDER}/{table_name(self.model_id)}.lance")

    def _open_lance(self) -> Any:
        name = table_name(self.model_id)
        filesystem, root = arrow_filesystem(self.uri)
        if filesystem.get_file_info(f"{root}/{FOLDER}/{name}.lance").type != pafs.FileType.Directory:
            raise LakeError(
                f"{self.uri}/{FOLDER} has no table {name}: finish the backfill of {self.model_id}"
            )
        return lance.dataset(f"{self.uri}/{FOLDER}/{name}.lance", storage_options=lance_options(self.uri))


def open_lake(uri: str, model: str | None = None) -> Lake:
    """The tables of ``model``, or of the lake's only one.

    Raises:
        ConfigError: no lake there, no such model, or several and none chosen.
    """
    known = list_models(uri)
    if not known:
        raise ConfigError(
            "lake", uri, "holds no archives manifest", "Run jobs/backfill.py first, or name another lake."
        )
    if model is None and len(known) > 1:
        raise ConfigError(
            "model", None, f"the lake holds {len(known)} models", f"Choose one of {', '.join(known)}."
        )
    if model is not None and model not in known:
        raise ConfigError("model", model, "is not in this lake", f"Choose one of {', '.join(known)}.")
    return Lake(uri, model or known[0])


def list_models(uri: str) -> list[str]:
    """Ids of the models that the lake has a manifest of, sorted."""
    manifests = [file for file in _list_files(uri, "archives") if file.base_name == "manifest.parquet"]
    folders = [file.path.split("/")[-2] for file in manifests]
    return sorted(folder.removeprefix("model=") for folder in folders if folder.startswith("model="))


def _list_files(uri: str, folder: str) -> list[pafs.FileInfo]:
    """Every file below a folder of the lake, by path; none where there is no such folder."""
    filesystem, root = arrow_filesystem(uri)
    below = pafs.FileSelector(f"{root}/{folder}", recursive=True, allow_not_found=True)
    try:
        found = filesystem.get_file_info(below)
    except OSError as error:
        raise StorageError(f"cannot list {uri}/{folder}: {error}") from error
    return sorted((file for file in found if file.type == pafs.FileType.File), key=lambda file: file.path)
