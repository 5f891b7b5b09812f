"""The windows of archives on Ray: read and cut once by Ray Data, then dealt out from the object store.

Shapes: N windows, A archives, T samples of a window.
"""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
import ray.data

from rmsai_ray.archives.sources import open_source
from rmsai_ray.errors import ConfigError
from rmsai_ray.ids import digest
from rmsai_ray.models.bundle import ModelBundle, ModelSpec
from rmsai_ray.training.data import WindowLabels, WindowSet, read_windows
from rmsai_ray.training.loop import window_errors

BLOCK_BYTES = 16 << 20
"""Archives that one task reads."""
BLOCKS_PER_CPU = 4
DEALING_CPUS = 0.1
"""Dealing copies memory, beside workers that hold nearly all cores."""
MAX_RETRIES = 3
"""Of a task whose worker died; without a limit, an archive that crashes the reader is tried for ever."""
_WHOLE_BLOCKS: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}


@dataclass(frozen=True, kw_only=True)
class WindowPool:
    """Windows in the object store, their labels here; rows count windows in order of archive and window."""

    dataset: Any
    """A materialised dataset: ``archive``, ``window``, ``signal`` and what is in the labels."""
    labels: WindowLabels
    first_row_A: npt.NDArray[np.int64]
    """Of each listed archive; −1 where it has no window, or only copies of another's."""
    patients_by_source: dict[str, tuple[str, ...]]
    data_hash: str
    left_out: dict[str, int]
    """As in :class:`~rmsai_ray.training.data.TrainingData`."""

    def deal(self, parts: Mapping[str, npt.NDArray[np.bool_]], num_workers: int) -> list[Any]:
        """A lazy dataset for each worker: every ``num_workers``-th window of each part, a mask (N,)."""
        part_N = np.full(len(self.labels), "", dtype=f"<U{max(map(len, parts))}")
        position_N = np.full(len(self.labels), -1, np.int64)
        for name, mask_N in parts.items():
            part_N[mask_N], position_N[mask_N] = name, np.arange(mask_N.sum())
        return [
            self.dataset.map_batches(
                _pick,
                fn_kwargs={
                    "first_row_A": self.first_row_A,
                    "part_N": part_N,
                    "position_N": np.where(position_N % num_workers == worker, position_N, -1),
                },
                num_cpus=DEALING_CPUS,
                **_WHOLE_BLOCKS,
            )
            for worker in range(num_workers)
        ]

    def errors(self, bundle: ModelBundle, mask_N: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Normalised mean squared error of the windows that the mask selects, in their order."""
        measured = self.dataset.map_batches(
            _measure,
            fn_kwargs={"bundle": bundle, "first_row_A": self.first_row_A, "mask_N": mask_N},
            max_retries=MAX_RETRIES,
            **_WHOLE_BLOCKS,
        )
        errors_N = np.full(len(self.labels), np.nan, np.float32)
        for table in measured.iter_batches(batch_size=None, batch_format="pyarrow"):
            errors_N[table["row"].to_numpy()] = table["error"].to_numpy()
        return errors_N[mask_N]


def read_pool(
    archive_uris: Sequence[str],
    spec: ModelSpec,
    *,
    cohort: Set[str] | None,
    num_cpus: float,
    only: Set[str] | None = None,
) -> WindowPool:
    """Reads every archive below the URIs, or ``only`` these, once; those that cannot be used are counted and
    left out.

    Raises:
        ConfigError: no window at all.
    """
    listing = _list_archives(archive_uris, only)
    dataset = (
        ray.data.from_arrow(_blocks(listing, num_cpus))
        .map_batches(
            _read_block, fn_kwargs={"spec": spec, "cohort": cohort}, max_retries=MAX_RETRIES, **_WHOLE_BLOCKS
        )
        .materialize()
    )
    columns = [name for name in _schema(spec).names if name not in ("signal", "num_samples")]
    described = pa.concat_tables(
        dataset.select_columns(columns).iter_batches(batch_size=None, batch_format="pyarrow")
    ).sort_by([("archive", "ascending"), ("window", "ascending")])
    return _pool(dataset, described, listing, archive_uris)


def gather(
    batches: Iterable[pa.Table], sizes: Mapping[str, int], window_samples: int
) -> dict[str, WindowSet]:
    """A worker's windows of every part, in order of position; ``sizes`` says how many are to come."""
    tables = list(batches)
    parts = {}
    for name, size in sizes.items():
        signals_NT = np.empty((size, window_samples), np.float32)
        mine = [table.filter(pa.array(table["part"].to_numpy() == name)) for table in tables]
        rank_N = np.argsort(np.argsort(np.concatenate([table["position"].to_numpy() for table in mine])))
        if len(rank_N) != size:
            raise RuntimeError(f"{len(rank_N)} of {size} windows of {name} came")
        start = 0
        for table in mine:
            rows = rank_N[start : start + len(table)]
            signals_NT[rows] = _signals(table)
            start += len(table)
        whole = pa.concat_tables([table.drop_columns(["signal"]) for table in mine]).sort_by("position")
        parts[name] = _window_set(whole, signals_NT)
    return parts


def _list_archives(archive_uris: Sequence[str], only: Set[str] | None = None) -> pa.Table:
    rows = [
        {"source": uri, "uri": ref.uri, "size": ref.size}
        for uri in archive_uris
        for ref in sorted(open_source(uri).list_archives(), key=lambda ref: ref.key)
        if only is None or ref.uri in only
    ]
    if not rows:
        raise ConfigError("archives", list(archive_uris), "hold no archive (*.h5, *.hdf5)", "Name others.")
    return pa.Table.from_pylist(rows).append_column("archive", pa.array(range(len(rows)), pa.int32()))


def _blocks(listing: pa.Table, num_cpus: float) -> list[pa.Table]:
    wanted = max(sum(listing["size"].to_pylist()) // BLOCK_BYTES, int(BLOCKS_PER_CPU * num_cpus), 1)
    edges = np.linspace(0, len(listing), min(wanted, len(listing)) + 1).astype(int)
    return [listing.slice(start, end - start) for start, end in pairwise(edges.tolist())]


def _read_block(block: pa.Table, *, spec: ModelSpec, cohort: Set[str] | None) -> Iterator[pa.Table]:
    """One table per archive; its first row is a note without a window."""
    for row in block.to_pylist():
        left_out: Counter[str] = Counter()
        read = read_windows(open_source(row["source"]), row["uri"], spec, cohort=cohort, left_out=left_out)
        note = _table(spec, row["archive"], left_out=json.dumps(left_out))
        yield pa.concat_tables([note, _table(spec, row["archive"], *read)]) if read else note


def _schema(spec: ModelSpec) -> pa.Schema:
    return pa.schema(
        {
            "archive": pa.int32(),
            "window": pa.int32(),
            "archive_id": pa.string(),
            "left_out": pa.string(),
            "signal": pa.list_(pa.float32(), spec.window_samples),
            "num_samples": pa.int32(),
            "lead": pa.string(),
            "patient": pa.string(),
            "condition": pa.string(),
            "is_normal": pa.bool_(),
        }
    )


def _table(
    spec: ModelSpec,
    archive: int,
    archive_id: str = "",
    windows: WindowSet | None = None,
    *,
    left_out: str = "",
) -> pa.Table:
    if windows is None:
        nothing = {"signal": [0.0] * spec.window_samples, "num_samples": 0, "is_normal": False}
        texts = dict.fromkeys(("archive_id", "lead", "patient", "condition"), "")
        note = {"archive": archive, "window": -1, "left_out": left_out, **nothing, **texts}
        return pa.Table.from_pylist([note], schema=_schema(spec))
    num_windows = len(windows)
    columns = {
        "archive": np.full(num_windows, archive, np.int32),
        "window": np.arange(num_windows, dtype=np.int32),
        "archive_id": [archive_id] * num_windows,
        "left_out": [""] * num_windows,
        "signal": pa.FixedSizeListArray.from_arrays(windows.signals_NT.ravel(), spec.window_samples),
        "num_samples": windows.num_samples_N,
        "lead": windows.leads_N,
        "patient": windows.patients_N,
        "condition": windows.conditions_N,
        "is_normal": windows.is_normal_N,
    }
    return pa.table(columns, schema=_schema(spec))


def _pool(dataset: Any, described: pa.Table, listing: pa.Table, archive_uris: Sequence[str]) -> WindowPool:
    left_out: Counter[str] = Counter()
    for note in described.filter(pa.compute.field("window") < 0)["left_out"].to_pylist():
        left_out.update(json.loads(note))
    windows = described.filter(pa.compute.field("window") >= 0)
    archive_N, archive_ids = windows["archive"].to_numpy(), windows["archive_id"].to_pylist()
    first_of: dict[str, int] = {}
    for archive, content in zip(archive_N.tolist(), archive_ids, strict=True):
        first_of.setdefault(content, archive)
    kept = np.isin(archive_N, list(first_of.values()))
    if not kept.any():
        raise ConfigError("archives", list(archive_uris), f"hold no window: {dict(left_out)}", "Name others.")
    labels, archive_N = _labels(windows.filter(pa.array(kept))), archive_N[kept]
    first_row_A = np.full(len(listing), -1, np.int64)
    archives, rows = np.unique(archive_N, return_index=True)
    first_row_A[archives] = rows
    source_N = np.array(listing["source"].to_pylist())[archive_N]
    return WindowPool(
        dataset=dataset,
        labels=labels,
        first_row_A=first_row_A,
        patients_by_source={
            uri: tuple(sorted(set(labels.patients_N[source_N == uri].tolist()))) for uri in archive_uris
        },
        data_hash=digest(sorted(first_of)),
        left_out=dict(left_out),
    )


def _labels(table: pa.Table) -> WindowLabels:
    return WindowLabels(
        leads_N=np.array(table["lead"].to_pylist(), np.str_),
        patients_N=np.array(table["patient"].to_pylist(), np.str_),
        conditions_N=np.array(table["condition"].to_pylist(), np.str_),
        is_normal_N=table["is_normal"].to_numpy(),
    )


def _window_set(table: pa.Table, signals_NT: npt.NDArray[np.float32]) -> WindowSet:
    return WindowSet(
        **vars(_labels(table)), signals_NT=signals_NT, num_samples_N=table["num_samples"].to_numpy()
    )


def _pick(
    table: pa.Table,
    *,
    first_row_A: npt.NDArray[np.int64],
    part_N: npt.NDArray[np.str_],
    position_N: npt.NDArray[np.int64],
) -> pa.Table:
    """The windows that have a position, with the part that they belong to."""
    table, row_M = _known_rows(table, first_row_A)
    is_mine_M = position_N[row_M] >= 0
    row_M = row_M[is_mine_M]
    picked = table.filter(pa.array(is_mine_M)).drop_columns(["archive_id", "left_out"])
    return picked.append_column("part", pa.array(part_N[row_M].tolist(), pa.string())).append_column(
        "position", pa.array(position_N[row_M])
    )


def _measure(
    table: pa.Table,
    *,
    bundle: ModelBundle,
    first_row_A: npt.NDArray[np.int64],
    mask_N: npt.NDArray[np.bool_],
) -> pa.Table:
    table, row_M = _known_rows(table, first_row_A)
    is_wanted_M = mask_N[row_M]
    table = table.filter(pa.array(is_wanted_M))
    errors_M = window_errors(bundle.network, bundle.normaliser, _window_set(table, _signals(table)))
    return pa.table({"row": row_M[is_wanted_M], "error": errors_M})


def _known_rows(
    table: pa.Table, first_row_A: npt.NDArray[np.int64]
) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """Without notes and copies, with each window's row in the pool."""
    archive_M, window_M = table["archive"].to_numpy(), table["window"].to_numpy()
    is_known_M = (window_M >= 0) & (first_row_A[archive_M] >= 0)
    row_M: npt.NDArray[np.int64] = first_row_A[archive_M[is_known_M]] + window_M[is_known_M]
    return table.filter(pa.array(is_known_M)), row_M


def _signals(table: pa.Table) -> npt.NDArray[np.float32]:
    column = table["signal"].combine_chunks()
    width = table.schema.field("signal").type.list_size
    signals_NT: npt.NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return signals_NT
