"""Reads lakes and compares them row by row with public libraries alone; changes when their layout does.

    python -m benchmarks.lake_check LAKE REFERENCE    is a lake at rest that of the same archives?
    python -m benchmarks.lake_check LAKE              does a lake show something unfinished, or twice, now?

Nothing of the package is imported, so that a fault of the writing side cannot hide here. A lake that no
backfill works on must hold exactly the rows of its manifest: what lies there beyond them is reported. In a
lake that a run works on, or died in, readers must see what its manifest says, and nothing twice. Prints JSON;
exits with 1 where something is found.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

import lancedb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

KEYS = {
    "windows": ("window_id", "model_id"),
    "events": ("event_uid", "model_id"),
    "rejects": ("uri", "level", "place", "reason"),
    "archives": ("uri", "model_id"),
}
MAY_DIFFER = ("unit_id", "committed_time", "code_version")
"""Between two lakes of the same archives: how they were packed into units, when, and by which revision."""
MAX_EXAMPLES = 5
LOOKS = 5


@dataclass(frozen=True, kw_only=True)
class Tables:
    """One model's rows of a lake, every Parquet part whether committed or not."""

    windows: pa.Table
    events: pa.Table
    rejects: pa.Table
    archives: pa.Table
    vectors: pa.Table
    """LanceDB's rows."""
    strays: tuple[str, ...]
    """Parts of units that the manifest does not name."""


NOTHING = Tables(**dict.fromkeys((*KEYS, "vectors"), pa.table({})), strays=())


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Numbers of rows or objects, over all tables, both stores and all models."""

    lost: int = 0
    """In the reference only."""
    added: int = 0
    """Not in the reference."""
    duplicated: int = 0
    """Beyond the first of one key."""
    differing: int = 0
    """With other values than in the reference, or than in the other store."""
    stray: int = 0
    """Parts of no unit of the manifest, ledger entries that no fold has removed, a lease that was not given
    back; and visible rows of a unit that never finished."""
    examples: tuple[str, ...] = ()

    def __add__(self, other: Findings) -> Findings:
        mine, others = self.counts(), other.counts()
        total = {name: mine[name] + others[name] for name in mine}
        return Findings(**total, examples=(*self.examples, *other.examples)[:MAX_EXAMPLES])

    def __bool__(self) -> bool:
        return any(self.counts().values())

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.counts().items())
        return "\n  ".join([counts, *self.examples])

    def counts(self) -> dict[str, int]:
        """The numbers by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "examples"}


def compare(lake_uri: str, reference_uri: str) -> Findings:
    """What a lake at rest lacks, has twice or has otherwise, measured on a lake of the same archives."""
    return compare_with(lake_uri, read_lake(reference_uri))


def compare_with(lake_uri: str, references: dict[str, Tables], ignored: Iterable[str] = ()) -> Findings:
    """As :func:`compare`, with a reference that was read before, by model, and without some more columns."""
    may_differ = (*MAY_DIFFER, *ignored)
    found = _strays(unsettled_objects(lake_uri))
    lakes = read_lake(lake_uri)
    for model in sorted({*lakes, *references}):
        lake = lakes.get(model) or read_tables(lake_uri, model)
        reference = references.get(model, NOTHING)
        for name, key in KEYS.items():
            found += compare_rows(getattr(lake, name), getattr(reference, name), key, may_differ)
        found += compare_rows(lake.vectors, reference.vectors, KEYS["windows"], may_differ)
        found += compare_rows(lake.vectors, lake.windows, KEYS["windows"])
        found += _strays(lake.strays)
    return found


def check_visible(lake_uri: str) -> Findings:
    """What readers see at this moment and must not, whether or not a run works on the lake, or died in it.

    In Parquet: rows of archives that are committed, in parts that the layout shows, as the documented views
    have it; of each such archive all windows and events that the manifest counts, each once, or none, while
    it is being replaced. In LanceDB: each window once, and none of a unit without a ledger entry.

    Raises:
        FileNotFoundError: objects vanish between listing and reading, however often one looks.
        pa.ArrowInvalid: the same of objects that are written anew while they are read, or one is broken.
    """
    for _ in range(LOOKS - 1):
        with suppress(FileNotFoundError, pa.ArrowInvalid):  # a run that goes on has just replaced something
            return _check_visible(lake_uri)
    return _check_visible(lake_uri)


def _check_visible(lake_uri: str) -> Findings:
    found = Findings()
    for model in model_ids(lake_uri):
        vectors, in_ledger = read_vectors(lake_uri, model), _ledger_units(lake_uri, model)
        manifest = _read_parquet(lake_uri, f"archives/model={model}")  # a unit goes this way, in this order
        layout = read_layout(lake_uri, model)
        for table, counted in (("windows", "num_windows"), ("events", "num_events")):
            rows = _read_visible(lake_uri, table, model, layout)
            found += _check_counts(rows, manifest, counted, KEYS[table][0])
        known = {*manifest["unit_id"].to_pylist(), *in_ledger}
        if vectors.num_rows:
            found += _twice(vectors["window_id"].to_pylist())
            unknown = [unit for unit in vectors["unit_id"].to_pylist() if unit not in known]
            found += Findings(
                stray=len(unknown), examples=tuple(f"visible in LanceDB: {unit}" for unit in unknown[:1])
            )
    return found


def _check_counts(rows: pa.Table, manifest: pa.Table, counted: str, key: str) -> Findings:
    """Compares the visible rows of one table with what the manifest counts."""
    committed = manifest.filter(pc.equal(manifest["status"], "committed"))
    expected = {(row["archive_id"], row["unit_id"]): row[counted] for row in committed.to_pylist()}
    have = rows.select([key, "archive_id", "unit_id"]).to_pylist() if rows.num_rows else []
    shown = [row for row in have if (row["archive_id"], row["unit_id"]) in expected]
    counts = Counter((row["archive_id"], row["unit_id"]) for row in shown)
    partial = {name: count for name, count in counts.items() if count < expected[name]}
    lost = sum(expected[name] - count for name, count in partial.items())
    examples = tuple(f"{count} of {expected[name]} rows of {name}" for name, count in partial.items())
    return Findings(lost=lost, examples=examples[:1]) + _twice([row[key] for row in shown])


def _twice(names: Iterable[str]) -> Findings:
    twice = [name for name, count in Counter(names).items() for _ in range(count - 1)]
    return Findings(duplicated=len(twice), examples=tuple(f"visible twice: {name}" for name in twice[:1]))


def compare_rows(
    rows: pa.Table, reference: pa.Table, key: Iterable[str], ignored: Iterable[str] = ()
) -> Findings:
    """What ``rows`` lack, have twice or have otherwise, row by row and column by column."""
    have, expected = _by_key(rows, key, ignored), _by_key(reference, key, ignored)
    lost = [name for name in expected if name not in have]
    added = [name for name in have if name not in expected]
    twice = [name for name, values in have.items() for _ in values[1:]]
    common = [name for name in have if name in expected]
    differing = {name: columns for name in common if (columns := _differences(have[name], expected[name][0]))}
    examples = (
        *(f"lost: {name}" for name in lost[:1]),
        *(f"added: {name}" for name in added[:1]),
        *(f"twice: {name}" for name in twice[:1]),
        *(f"differs in {', '.join(columns)}: {name}" for name, columns in list(differing.items())[:1]),
    )
    return Findings(
        lost=len(lost),
        added=len(added),
        duplicated=len(twice),
        differing=len(differing),
        examples=examples,
    )


def _differences(rows: list[dict[str, Any]], expected: dict[str, Any]) -> list[str]:
    """Columns in which any of the rows is not as expected."""
    names = {**expected, **rows[0]}
    return [name for name in names if any(row.get(name) != expected.get(name) for row in rows)]


def _strays(paths: Iterable[str]) -> Findings:
    found = tuple(paths)
    return Findings(stray=len(found), examples=tuple(f"stray: {path}" for path in found[:1]))


def _by_key(
    rows: pa.Table, key: Iterable[str], ignored: Iterable[str]
) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        name = tuple(row[column] for column in key)
        found.setdefault(name, []).append({c: value for c, value in row.items() if c not in ignored})
    return found


def read_lake(lake_uri: str) -> dict[str, Tables]:
    """Every row of a lake, by model."""
    return {model: read_tables(lake_uri, model) for model in model_ids(lake_uri)}


def read_tables(lake_uri: str, model_id: str) -> Tables:
    """Every row that lies in a lake for one model."""
    manifest = _read_parquet(lake_uri, f"archives/model={model_id}")
    layout = read_layout(lake_uri, model_id)
    units = {layout.get(unit, unit) for unit in manifest["unit_id"].to_pylist()} if len(manifest) else set()
    parts = [path for table in ("windows", "events", "rejects") for path in _parts(lake_uri, table, model_id)]
    return Tables(
        **{table: _read_parquet(lake_uri, f"{table}/model={model_id}") for table in KEYS},
        vectors=read_vectors(lake_uri, model_id),
        strays=tuple(path for path in parts if _part_name(path) not in units),
    )


def read_vectors(lake_uri: str, model_id: str) -> pa.Table:
    """Every row of one model's LanceDB table; none where there is no such table."""
    database = lancedb.connect(f"{lake_uri}/lance")
    name = "windows_" + model_id.replace("-", "_")
    if name not in database.list_tables().tables:
        return pa.table({})
    return database.open_table(name).to_arrow()


def read_layout(lake_uri: str, model_id: str) -> dict[str, str]:
    """Unit → name of its parts, of those units that were compacted."""
    content = _find(lake_uri, f"archives/model={model_id}/layout.json")
    return {unit: name for name, units in json.loads(content or b"{}").items() for unit in units}


def _read_visible(lake_uri: str, table: str, model_id: str, layout: dict[str, str]) -> pa.Table:
    """The rows of the parts that readers look into."""
    filesystem, _ = open_filesystem(lake_uri)
    names = set(layout.values())
    tables = [
        pq.read_table(path, filesystem=filesystem, partitioning=None)
        for path in _parts(lake_uri, table, model_id)
        if (name := _part_name(path)) not in layout and (name in names or not name.startswith("compact-"))
    ]
    return pa.concat_tables(tables) if tables else pa.table({})


def _ledger_units(lake_uri: str, model_id: str) -> list[str]:
    paths = list_objects(lake_uri, f"ledger/model={model_id}")
    return [_part_name(path) for path in paths if path.endswith(".json")]


def model_ids(lake_uri: str) -> list[str]:
    """Models that a lake has a manifest of."""
    paths = list_objects(lake_uri, "archives")
    return sorted(
        path.split("model=")[1].split("/")[0] for path in paths if path.endswith("manifest.parquet")
    )


def unsettled_objects(lake_uri: str) -> list[str]:
    """Ledger entries, and leases but the last one, given back: a lake at rest has none of them."""
    *leases, last = ["", *list_objects(lake_uri, "runs/lease")]
    if last:
        root = open_filesystem(lake_uri)[1]
        if not json.loads(_find(lake_uri, last.removeprefix(f"{root}/")) or b"{}").get("is_released"):
            leases.append(last)
    return [*list_objects(lake_uri, "ledger"), *filter(None, leases)]


def list_objects(uri: str, folder: str = "") -> list[str]:
    """Paths of all objects below a folder of a lake, sorted."""
    filesystem, root = open_filesystem(uri)
    below = pafs.FileSelector(f"{root}/{folder}".rstrip("/"), recursive=True, allow_not_found=True)
    found = filesystem.get_file_info(below)
    return sorted(info.path for info in found if info.type == pafs.FileType.File)


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """(filesystem, path in it) of a folder or of ``s3://``, with endpoint and keys from the environment."""
    if not uri.startswith("s3://"):
        return pafs.LocalFileSystem(), uri
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    return pafs.S3FileSystem(endpoint_override=endpoint), uri.removeprefix("s3://")


def _find(lake_uri: str, key: str) -> bytes | None:
    filesystem, root = open_filesystem(lake_uri)
    try:
        with filesystem.open_input_file(f"{root}/{key}") as file:
            return bytes(file.read())
    except FileNotFoundError:
        return None


def _part_name(path: str) -> str:
    return path.rpartition("/")[2].split(".")[0]


def _parts(lake_uri: str, table: str, model_id: str) -> list[str]:
    return [path for path in list_objects(lake_uri, f"{table}/model={model_id}") if path.endswith(".parquet")]


def _read_parquet(lake_uri: str, folder: str) -> pa.Table:
    filesystem, _ = open_filesystem(lake_uri)
    paths = [path for path in list_objects(lake_uri, folder) if path.endswith(".parquet")]
    tables = [pq.read_table(path, filesystem=filesystem, partitioning=None) for path in paths]
    return pa.concat_tables(tables) if tables else pa.table({})


def main(arguments: list[str]) -> int:
    """Checks one lake, or compares two; the exit code."""
    if len(arguments) not in (1, 2):
        print(__doc__, file=sys.stderr)
        return 2
    found = compare(*arguments) if len(arguments) == 2 else check_visible(arguments[0])
    statuses: Counter[str] = Counter()
    for tables in read_lake(arguments[0]).values():
        statuses.update(tables.archives["status"].to_pylist())
    listed = {"listed": sum(statuses.values()), **dict(sorted(statuses.items()))}
    print(json.dumps({**listed, **found.counts(), "examples": found.examples}, indent=2))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
