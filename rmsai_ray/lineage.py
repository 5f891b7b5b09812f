"""OpenLineage events of runs, by the official client: what read what, and wrote which tables.

Where the client is configured by its own variables (``OPENLINEAGE_URL``, ``OPENLINEAGE_CONFIG``,
``OPENLINEAGE__TRANSPORT__…``) it sends events there; else each is an object in ``runs/<run id>/lineage/``.
``OPENLINEAGE_DISABLED=true`` means none. What cannot be sent is logged, and ends no run.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rmsai_ray import __version__
from rmsai_ray.scrubbing import scrub
from rmsai_ray.storage import Store, normalise_uri

if TYPE_CHECKING:
    from openlineage.client.client import Event, OpenLineageClient
    from openlineage.client.event_v2 import RunEvent

    from rmsai_ray.runs import RunRecord

PRODUCER = f"urn:rmsai-ray:{__version__}"
RUN_IDS = uuid.UUID("6f2d8d0e-5a39-5c55-9d0b-7b1a5d6a7c11")
"""Namespace of the runs' UUIDs."""
READ_OPTIONS = ("archives", "source", "lake")
"""Options of jobs that name what is read; ``lake`` unless the job only writes there."""
LAKE_WRITERS = ("backfill", "maintain", "adapt_thresholds", "nightly")
STOPPED = ("StopRequested", "KeyboardInterrupt")
STARTED, DONE, FAILED, ABORTED = "START", "COMPLETE", "FAIL", "ABORT"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Parent:
    """The run that a run is a step of."""

    run_uuid: str
    job: str
    namespace: str


@dataclass(frozen=True, kw_only=True)
class Written:
    """A table that a run wrote."""

    uri: str
    columns: Mapping[str, str]
    """Name → type."""
    num_rows: int
    """That this run added."""
    num_bytes: int | None = None
    is_new: bool = False


_parent: ContextVar[Parent | None] = ContextVar("parent", default=None)


@contextmanager
def steps_of(record: RunRecord) -> Iterator[None]:
    """Runs that begin within it are steps of this one."""
    parent = Parent(run_uuid=run_uuid(record.run_id, record.started), job=record.job, namespace=namespace())
    token = _parent.set(parent)
    try:
        yield
    finally:
        _parent.reset(token)


def tell(record: RunRecord, store: Store) -> None:
    """Sends the event of a record as it is now: that the run began, or how it ended."""
    if os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return
    try:
        event = event_of(record, store.uri)
        _client(store, record).emit(event)
    except Exception:
        # Transports are many, and fail in their own ways; none of them may cost a run.
        log.warning("the lineage of %s was not told", record.run_id, exc_info=True)


def event_of(record: RunRecord, store_uri: str) -> RunEvent:
    """A run's record as an event."""
    from openlineage.client import event_v2, facet_v2

    facet_v2.set_producer(PRODUCER)
    event_v2.set_producer(PRODUCER)
    state = _state(record)
    return event_v2.RunEvent(
        eventType=event_v2.RunState[state],
        eventTime=record.ended or record.started,
        run=event_v2.Run(run_uuid(record.run_id, record.started), _run_facets(record, state)),
        job=event_v2.Job(
            namespace(),
            record.job,
            {
                "jobType": facet_v2.job_type_job.JobTypeJobFacet(
                    processingType="BATCH", integration="RMSAI", jobType="JOB"
                )
            },
        ),
        inputs=[event_v2.InputDataset(*dataset_name(uri)) for uri in read_uris(record)],
        outputs=_outputs(record, store_uri, state),
    )


def run_uuid(run_id: str, started: str) -> str:
    """The UUID of one invocation of a run; equal for equal arguments."""
    return str(uuid.uuid5(RUN_IDS, f"{run_id}/{started}"))


def namespace() -> str:
    """Of our jobs: ``OPENLINEAGE_NAMESPACE``, or ``rmsai``."""
    return os.environ.get("OPENLINEAGE_NAMESPACE") or "rmsai"


def dataset_name(uri: str) -> tuple[str, str]:
    """(namespace, name) as OpenLineage names datasets: ``s3://bucket`` and key, or ``file`` and path."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        return "file", normalise_uri(uri)
    authority, _, path = rest.partition("/")
    return f"{scheme}://{authority}", path.strip("/") or "/"


def read_uris(record: RunRecord) -> list[str]:
    """What the options of a run say that it reads."""
    names = [name for name in READ_OPTIONS if not (name == "lake" and record.job == "backfill")]
    return [uri for name in names for uri in _places(record.config.get(name))]


def written_uris(record: RunRecord, store_uri: str) -> list[str]:
    """Where a run writes, as far as it names no tables: its output, its lake, or where its record is."""
    name = "lake" if record.job in LAKE_WRITERS else "output"
    return _places(record.config.get(name)) or [store_uri]


def _places(value: object) -> list[str]:
    """The URIs and folders of an option; what was withheld, or is a word and no place, is none."""
    values: Sequence[object] = value if isinstance(value, list | tuple) else [value]
    return [each for each in values if isinstance(each, str) and ("/" in each) and not each.startswith("(")]


def _state(record: RunRecord) -> str:
    if record.ended is None:
        return STARTED
    if record.status == "done":
        return DONE
    return ABORTED if (record.error or "").startswith(STOPPED) else FAILED


def _run_facets(record: RunRecord, state: str) -> dict[str, Any]:
    from openlineage.client import facet_v2

    facets: dict[str, Any] = {
        "processing_engine": facet_v2.processing_engine_run.ProcessingEngineRunFacet(
            version=__version__, name="rmsai-ray"
        )
    }
    if state in (FAILED, ABORTED):
        facets["errorMessage"] = facet_v2.error_message_run.ErrorMessageRunFacet(
            message=scrub(record.error or record.status), programmingLanguage="python"
        )
    if parent := _parent.get() or _parent_of_environment():
        facets["parent"] = facet_v2.parent_run.ParentRunFacet(
            run=facet_v2.parent_run.Run(parent.run_uuid),
            job=facet_v2.parent_run.Job(parent.namespace, parent.job),
        )
    return facets


def _parent_of_environment() -> Parent | None:
    """``OPENLINEAGE_PARENT_ID``, as schedulers set it: ``namespace/job/run uuid``."""
    parts = os.environ.get("OPENLINEAGE_PARENT_ID", "").split("/")
    if len(parts) < 3:
        return None
    return Parent(namespace="/".join(parts[:-2]), job=parts[-2], run_uuid=parts[-1])


def _outputs(record: RunRecord, store_uri: str, state: str) -> list[Any]:
    from openlineage.client import event_v2

    if state != STARTED and record.written:
        return [_table(written, state) for written in record.written]
    return [event_v2.OutputDataset(*dataset_name(uri)) for uri in written_uris(record, store_uri)]


def _table(written: Written, state: str) -> Any:
    from openlineage.client import event_v2, facet_v2

    schema, life = facet_v2.schema_dataset, facet_v2.lifecycle_state_change_dataset
    facets: dict[str, Any] = {
        "schema": schema.SchemaDatasetFacet(
            [schema.SchemaDatasetFacetFields(name, kind) for name, kind in written.columns.items()]
        )
    }
    if written.is_new:
        facets["lifecycleStateChange"] = life.LifecycleStateChangeDatasetFacet(
            life.LifecycleStateChange.CREATE
        )
    counts = facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=written.num_rows, size=written.num_bytes
    )
    return event_v2.OutputDataset(
        *dataset_name(written.uri), facets=facets, outputFacets={"outputStatistics": counts}
    )


def _client(store: Store, record: RunRecord) -> OpenLineageClient:
    from openlineage.client import OpenLineageClient
    from openlineage.client.serde import Serde
    from openlineage.client.transport import Config, Transport

    class StoreTransport(Transport):
        """Writes each event as an object of the run."""

        kind = "rmsai_store"
        config_class = Config

        def emit(self, event: Event) -> None:
            prefix = record.log_prefix.replace("/logs/", "/lineage/")
            store.put(f"{prefix}-{_state(record)}.json", Serde.to_json(event).encode())

    if _is_configured():
        return OpenLineageClient()
    return OpenLineageClient(transport=StoreTransport())


def _is_configured() -> bool:
    """Whether somebody told the client where to send events."""
    prefixes = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG", "OPENLINEAGE__TRANSPORT")
    return any(name.startswith(prefixes) for name in os.environ)
