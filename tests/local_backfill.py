"""Backfills without Ray: the same plan, stages and order, one unit after the other, and a death on demand.

Archives are small but real, and lie in memory, so that histories repeat themselves to the last etag. The
network is tiny and untrained, the lake is a local one with real Parquet and Lance. ``reference`` says what
one archive must become, without any of the code that commits.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, wraps
from pathlib import Path
from typing import Any

import h5py
import lance
import numpy as np
import pyarrow as pa
import pytest
import torch
from rich.console import Console

from rmsai_ray.archives.reader import read_archive
from rmsai_ray.archives.sources import ArchiveRef
from rmsai_ray.backfill import flow, plan, read
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.plan import Unit
from rmsai_ray.backfill.read import unit_to_json
from rmsai_ray.backfill.report import Summary
from rmsai_ray.backfill.resolve import Run
from rmsai_ray.backfill.rows import UnitRows
from rmsai_ray.backfill.score import Scoring, score_unit
from rmsai_ray.backfill.stages import ProcessUnits, Tasks
from rmsai_ray.compute import Cluster, StageResources
from rmsai_ray.detection.thresholds import resolve_profile
from rmsai_ray.encoding.encoder import WindowEncoder
from rmsai_ray.errors import ArchiveError
from rmsai_ray.ids import run_id
from rmsai_ray.models.bundle import ModelBundle, ModelSpec
from rmsai_ray.models.checkpoint import build_network
from rmsai_ray.runs import code_version
from rmsai_ray.signals.leads import LEADS
from rmsai_ray.signals.normalise import Normaliser
from rmsai_ray.storage import Store
from rmsai_ray.tables import parts
from rmsai_ray.tables.blocks import UnitTables
from rmsai_ray.tables.compaction import compact_parts, compact_vectors
from rmsai_ray.tables.layout import load_layout
from rmsai_ray.tables.lease import latest_claim
from rmsai_ray.tables.ledger import ledger_folder
from rmsai_ray.tables.manifest import load_manifest
from rmsai_ray.tables.units import settle
from rmsai_ray.tables.vectors import VectorTable
from tests.upstream_files import archive_bytes, edited
from tests.upstream_files import replace as replace_dataset

LEAD = ("ECG1",)
NAMES = ("PT1_2025-09.h5", "PT2_2025-09.h5", "PT2_2025-10.h5", "sub/PT1_2025-09.h5")
EPOCH = datetime(2025, 10, 1, tzinfo=UTC)
NUM_CONTENTS = 5
TWO_ARCHIVES = 500_000
"""Bytes of a unit that holds two archives of one event."""
BROKEN = 4
"""The content that is no archive; content 3 has an event whose only window is rejected."""
NOT_OF_CONTENT = ("unit_id", "run_id")


@cache
def contents() -> tuple[bytes, ...]:
    """Archives of one event each, the fourth of two, the last one broken; all of about one size."""
    made = [archive_bytes(num_events=1 + seed // 3, seed=seed, patient_id="PT1") for seed in range(4)]
    *good, last = [edited(raw, _forget_vitals) for raw in made]
    return (*good, edited(last, _forget_samples), b"not hdf5")


def _forget_vitals(file: h5py.File) -> None:
    """They take most of the time of reading."""
    for name in file:
        file[name].pop("vitals", None)


def _forget_samples(file: h5py.File) -> None:
    samples = file["event_1002/ecg/ECG1"][()]
    samples[: len(samples) * 3 // 5] = np.nan
    replace_dataset(file["event_1002/ecg"], "ECG1", samples)


@cache
def tiny_bundle() -> ModelBundle:
    """An untrained network of the default family, as small as it gets."""
    architecture = {
        "sampling_rate_hz": 200.0, "frame_samples": 40, "stem_dim": 2, "hidden_dim": 2, "head_dim": 2,
    }  # fmt: skip
    spec = ModelSpec(
        family="framed",
        profile="tiny-2400x4",
        window_samples=2400,
        stride_samples=2400,
        sampling_rate_hz=200.0,
        embedding_dim=4,
        leads=LEADS,
        architecture=architecture,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network("framed", window_samples=2400, embedding_dim=4, architecture=architecture)
    return ModelBundle(network=network, spec=spec, normaliser=Normaliser("window"), trained=False)


class Died(BaseException):
    """What ``kill -9`` is to a process: nothing that it still wanted to write is written."""


@contextmanager
def dying_at(num_writes: int | None, kind: str = "") -> Iterator[list[str]]:
    """Within it, write number ``num_writes`` and all that follow do not happen; yields those that did.

    With ``kind`` only writes are counted whose description starts so, e.g. ``put archives/`` or ``publish``.
    """
    done: list[str] = []
    is_dead = False

    def die_or_note(write: str) -> None:
        nonlocal is_dead
        if num_writes is not None and write.startswith(kind):
            is_dead = is_dead or sum(other.startswith(kind) for other in done) >= num_writes
        if is_dead:
            raise Died(write)
        done.append(write)

    with before_each_write(die_or_note):
        yield done


@contextmanager
def before_each_write(act: Callable[[str], None]) -> Iterator[None]:
    """Within it, ``act`` is called before anything is written, with a description such as ``put runs/…``."""

    def watched(name: str, write: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(write)
        def do(self: object, *args: Any, **options: Any) -> Any:
            act(f"{name} {args[0] if args and isinstance(args[0], str) else ''}")
            return write(self, *args, **options)

        return do

    delete = Store.delete
    delete_one = watched("delete", lambda self, key: delete(self, [key]))
    with pytest.MonkeyPatch.context() as patch:
        for owner, names in (
            (Store, ("put", "create", "replace")),
            (VectorTable, ("ensure_exists", "write_fragments", "delete_rows", "publish")),
        ):
            for name in names:
                patch.setattr(owner, name, watched(name, getattr(owner, name)))
        patch.setattr(Store, "delete", lambda self, keys: [delete_one(self, key) for key in keys])
        yield


@dataclass(frozen=True)
class LakeState:
    """Everything that readers and the next run see."""

    windows: pa.Table
    events: pa.Table
    rejects: pa.Table
    vectors: pa.Table
    manifest: pa.Table
    waiting: list[str]
    """Ledger entries."""


@dataclass
class LocalBackfill:
    """Archives in memory, as an archive source, and the lake that they go to."""

    root: Path
    bundle: ModelBundle = field(default_factory=tiny_bundle)
    stored: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    """Content and number of the write, by name."""
    num_uploads: int = 0

    def __post_init__(self) -> None:
        self.root.mkdir(exist_ok=True)

    @property
    def lake(self) -> Store:
        """The lake."""
        return Store(str(self.root / "lake"))

    def uri(self, name: str) -> str:
        """The URI under which a run finds an archive."""
        return f"ward://{name}"

    def put(self, name: str, content: bytes) -> None:
        """Writes an archive, over the one that had the name."""
        self.num_uploads += 1
        self.stored[name] = content, self.num_uploads

    def touch(self, name: str) -> None:
        """The same content, written again."""
        self.put(name, self.stored[name][0])

    def list_archives(self) -> Iterator[ArchiveRef]:
        """As an archive source."""
        for name, (content, number) in self.stored.items():
            modified = EPOCH + timedelta(seconds=number)
            yield ArchiveRef(
                uri=self.uri(name), key=name, size=len(content), etag=f"v{number}", modified=modified
            )

    def read(self, uri: str) -> bytes:
        """As an archive source."""
        return self.stored[uri.removeprefix("ward://")][0]

    def resolve(self, profile: str = "seed", **options: Any) -> Run:
        """A run over the archives, as the flow resolves it."""
        config = BackfillConfig(
            archives="ward://",
            lake=self.lake.uri,
            leads=LEAD,
            threshold_profile=profile,
            **{"max_reject_fraction": 1.0, "unit_bytes": 1, **options},
        )
        detector = config.detector or "reconstruction_error"
        thresholds = resolve_profile(profile, None)
        options = config.result_options(self.bundle.model_id, thresholds.version, detector, None)
        return Run(
            config=config,
            run_id=run_id("backfill", options),
            lake=self.lake,
            bundle=self.bundle,
            scoring=Scoring(profile=thresholds, detector=detector, verdict_rule=config.verdict_rule),
        )

    def run(self, **options: Any) -> Summary:
        """The flow of the job, without Ray."""
        with pytest.MonkeyPatch.context() as patch:
            for module in (plan, read):
                patch.setattr(module, "open_source", lambda uri: self)
            patch.setattr(flow, "ray_session", _no_session)
            patch.setattr(flow, "run_units", _run_units)
            return flow.backfill_once(self.resolve(**options), Console(file=io.StringIO()))

    def compact(self) -> None:
        """The part of maintenance that moves rows."""
        run = self.resolve()
        if not Path(run.vectors.uri).exists():
            return
        units = settle(run.lake, run.vectors, self.bundle.model_id).unit_ids
        parts.remove_unfinished(run.lake, self.bundle.model_id, units)
        compact_parts(run.lake, self.bundle.model_id, units)
        compact_vectors(run.vectors)

    def run_and_die(self, num_writes: int, kind: str = "", **options: Any) -> bool:
        """Runs until that many writes of a kind are done; False where it ended before."""
        try:
            with dying_at(num_writes, kind):
                self.run(**options)
        except Died:
            self.bury()
            return True
        return False

    def bury(self) -> None:
        """The process that holds the lake, which is this one, counts as dead."""
        claim = latest_claim(self.lake)
        if claim is not None:
            dead = replace(claim.holder, process_started="")
            self.lake.put(claim.info.key, json.dumps(asdict(dead)).encode())

    def state(self) -> LakeState:
        """The lake, read without the code under test but for the manifest's."""
        model_id, vectors = self.bundle.model_id, self.resolve().vectors
        tables = {name: self._parts(name) for name in parts.TABLES}
        published = lance.dataset(vectors.uri).to_table() if Path(vectors.uri).exists() else pa.table({})
        return LakeState(
            windows=_sorted(tables["windows"]),
            events=_sorted(tables["events"]),
            rejects=_sorted(tables["rejects"]),
            vectors=_sorted(published),
            manifest=load_manifest(self.lake, model_id).rows,
            waiting=[info.key for info in self.lake.list(ledger_folder(model_id))],
        )

    def _parts(self, table: str) -> pa.Table:
        layout = load_layout(self.lake, self.bundle.model_id)
        keys = [info.key for info in self.lake.list(parts.model_folder(table, self.bundle.model_id))]
        keys = [key for key in keys if layout.is_visible(parts.name_of(key))]
        found = [parts.read_part(self.lake, key) for key in keys]
        return pa.concat_tables(part for part in found if part is not None) if found else pa.table({})


@contextmanager
def _no_session() -> Iterator[Cluster]:
    yield Cluster(num_cpus=1, num_gpus=0)


def _run_units(units: list[Unit], tasks: Tasks, stages: StageResources) -> Iterator[dict[str, Any]]:
    """As the flow's, with its actor called one unit after the other."""
    process = ProcessUnits(tasks)
    for unit in units:
        block = process(pa.table({"unit": [unit_to_json(unit)]}))
        yield from (json.loads(report) for report in block["report"].to_pylist())


def reference(bundle: ModelBundle, uri: str, content: bytes, profile: str) -> dict[str, pa.Table]:
    """The rows of one archive but for the names of unit and run: a function of content and options."""
    rows = UnitRows("", bundle.model_id, "", bundle.spec, code_version())
    try:
        rows.add_archive(read_archive(content, uri), uri, LEAD, tail=True)
    except ArchiveError as error:
        rows.reject(uri, None, "archive", "", error.reason, error.detail)
    windows, events, rejects = rows.tables()
    unit = UnitTables(
        unit_id="", archives=[], windows=windows, events=events, rejects=rejects, seconds={}, num_bytes={}
    )
    scoring = Scoring(
        profile=resolve_profile(profile, None), detector="reconstruction_error", verdict_rule="severity"
    )
    unit = score_unit(unit, WindowEncoder(bundle), scoring)
    return {name: content_of(_sorted(getattr(unit, name))) for name in parts.TABLES}


def content_of(table: pa.Table) -> pa.Table:
    """The columns that are a function of archive and options."""
    return table.drop_columns([name for name in NOT_OF_CONTENT if name in table.column_names])


def _sorted(table: pa.Table) -> pa.Table:
    keys = [name for name in ("window_id", "event_uid", "uri", "place") if name in table.column_names]
    return table.sort_by([(key, "ascending") for key in keys]).combine_chunks() if keys else table
