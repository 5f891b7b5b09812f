"""Which tables a backfill added rows to, for its record and its lineage."""

from __future__ import annotations

from rmsai_ray.backfill.report import Summary
from rmsai_ray.backfill.resolve import Run
from rmsai_ray.lineage import Written
from rmsai_ray.tables import schemas


def written_tables(run: Run, summary: Summary, *, is_new: bool) -> list[Written]:
    """The tables of Parquet and LanceDB with what this invocation added; none where it added nothing."""
    if not summary.num_units:
        return []
    num_windows = summary.counts["windows"]
    windows = schemas.windows(run.bundle.spec.embedding_dim)
    tables = (
        (run.lake.child_uri("windows"), windows, num_windows, None),
        (run.lake.child_uri("events"), schemas.EVENTS, summary.counts["events"], None),
        (run.lake.child_uri("rejects"), schemas.REJECTS, sum(summary.rejects.values()), None),
        (run.lake.child_uri("archives"), schemas.ARCHIVES, sum(summary.archives.values()), None),
        (run.vectors.uri, windows, num_windows, summary.num_bytes["lance"]),
    )
    return [
        Written(
            uri=uri,
            columns={field.name: str(field.type) for field in schema},
            num_rows=num_rows,
            num_bytes=num_bytes,
            is_new=is_new,
        )
        for uri, schema, num_rows, num_bytes in tables
    ]
