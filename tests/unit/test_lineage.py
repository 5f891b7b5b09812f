"""Lineage events: as objects, to a real HTTP server, as steps of a parent; a backend that is not there."""

from __future__ import annotations

import json
import logging
import os
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rmsai_ray.lineage import Written, dataset_name, steps_of
from rmsai_ray.runs import RunRecord
from rmsai_ray.storage import Store
from tests.local_backfill import NAMES, LocalBackfill, contents

DATASET = {
    "type": "object",
    "required": ["namespace", "name"],
    "properties": {"namespace": {"type": "string"}, "name": {"type": "string"}},
}
FACETS = {
    "type": "object",
    "additionalProperties": {"type": "object", "required": ["_producer", "_schemaURL"]},
}
RUN_EVENT = {
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "run", "job"],
    "properties": {
        "eventTime": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)$"},
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "producer": {"type": "string", "format": "uri"},
        "schemaURL": {"type": "string", "pattern": "OpenLineage.json#/.defs/RunEvent$"},
        "run": {"type": "object", "required": ["runId"], "properties": {"facets": FACETS}},
        "job": {**DATASET, "properties": {"facets": FACETS}},
        "inputs": {"type": "array", "items": DATASET},
        "outputs": {
            "type": "array",
            "items": {**DATASET, "properties": {"facets": FACETS, "outputFacets": FACETS}},
        },
    },
}
"""What the specification (2-0-2) demands of a run event, as far as ours have it."""


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Nothing configured; the client leaves variables of its own behind."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("OPENLINEAGE")]:
        del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def lake(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "lake"))


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """An HTTP server on loopback; (path, event) of every request."""
    seen: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, json.loads(body)))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{server.server_port}")
    yield seen
    server.shutdown()
    server.server_close()


def record(job: str = "backfill", **config: Any) -> RunRecord:
    places = {"archives": "s3://icu/archives", "lake": "/data/lake", "model": "ecg@champion"}
    return RunRecord(run_id=f"{job}-1", job=job, argv=[], config={**places, **config})


def events(store: Store) -> list[dict[str, Any]]:
    keys = sorted(info.key for info in store.list("runs") if "/lineage/" in info.key)
    found = [json.loads(store.get(key)) for key in keys]
    for event in found:
        check(event)
    return sorted(found, key=lambda event: str(event["eventTime"]))


def check(event: dict[str, Any]) -> None:
    jsonschema.validate(event, RUN_EVENT)
    uuid.UUID(event["run"]["runId"])


def test_begin_and_end_are_events_of_one_run(lake: Store) -> None:
    run = record()
    run.begin(lake)
    run.written = [
        Written(uri="s3://icu/lake/windows", columns={"lead": "string"}, num_rows=7, num_bytes=9, is_new=True)
    ]
    run.finish(lake, "done")
    start, end = events(lake)
    assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == end["run"]["runId"]
    assert [(each["namespace"], each["name"]) for each in start["inputs"]] == [("s3://icu", "archives")]
    assert [(each["namespace"], each["name"]) for each in start["outputs"]] == [("file", "/data/lake")]
    (table,) = end["outputs"]
    assert (table["namespace"], table["name"]) == ("s3://icu", "lake/windows")
    assert table["facets"]["schema"]["fields"][0]["name"] == "lead"
    assert table["facets"]["lifecycleStateChange"]["lifecycleStateChange"] == "CREATE"
    statistics = table["outputFacets"]["outputStatistics"]
    assert (statistics["rowCount"], statistics["size"]) == (7, 9)
    again = record()
    again.begin(lake)
    assert len({event["run"]["runId"] for event in events(lake)}) == 2, "an invocation is a run of its own"


@pytest.mark.parametrize(
    ("error", "kind"),
    [("LakeError('held')", "FAIL"), ("StopRequested()", "ABORT"), ("KeyboardInterrupt()", "ABORT")],
)
def test_how_a_run_failed(lake: Store, error: str, kind: str) -> None:
    run = record()
    run.begin(lake)
    run.finish(lake, "failed", error)
    event = events(lake)[-1]
    assert event["eventType"] == kind
    assert event["run"]["facets"]["errorMessage"]["message"] == error


@pytest.mark.parametrize(
    ("job", "config", "inputs", "outputs"),
    [
        ("maintain", {"archives": None}, ["/data/lake"], ["/data/lake"]),
        ("pretrain", {"archives": ["/a", "/b"], "lake": None, "output": "/m/new"}, ["/a", "/b"], ["/m/new"]),
        ("fit-detectors", {"archives": None, "output": "/m/set"}, ["/data/lake"], ["/m/set"]),
        ("simulate", {"archives": None, "lake": None}, [], ["STORE"]),
        ("backfill", {"archives": "(withheld: --pseudonymise)"}, [], ["/data/lake"]),
    ],
)
def test_every_job_says_what_it_reads_and_writes(
    lake: Store, job: str, config: dict[str, Any], inputs: list[str], outputs: list[str]
) -> None:
    record(job, **config).begin(lake)
    (event,) = events(lake)
    assert [each["name"] for each in event["inputs"]] == inputs
    assert [each["name"] for each in event["outputs"]] == [
        name.replace("STORE", lake.uri) for name in outputs
    ]


def test_steps_name_their_parent(lake: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    night = record("nightly")
    night.begin(lake)
    with steps_of(night):
        record("backfill").begin(lake)
    record("maintain").begin(lake)
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", f"airflow/prod/dag/{uuid.UUID(int=5)}")
    record("drift").begin(lake)
    found = {event["job"]["name"]: event["run"] for event in events(lake)}
    parent = found["backfill"]["facets"]["parent"]
    assert parent["run"]["runId"] == found["nightly"]["runId"]
    assert parent["job"] == {"namespace": "rmsai", "name": "nightly", "facets": {}} | parent["job"]
    assert "parent" not in found["maintain"]["facets"]
    assert found["drift"]["facets"]["parent"]["job"]["name"] == "dag"
    assert found["drift"]["facets"]["parent"]["job"]["namespace"] == "airflow/prod"


def test_a_backend_is_told_by_http(lake: Store, backend: list[tuple[str, Any]]) -> None:
    run = record()
    run.begin(lake)
    run.finish(lake, "done")
    assert [(path, event["eventType"]) for path, event in backend] == [
        ("/api/v1/lineage", "START"),
        ("/api/v1/lineage", "COMPLETE"),
    ]
    for _, event in backend:
        check(event)
    assert events(lake) == []


@pytest.mark.parametrize(
    "variables",
    [
        {
            "OPENLINEAGE__TRANSPORT__TYPE": "file",
            "OPENLINEAGE__TRANSPORT__LOG_FILE_PATH": "/no/such/folder/x",
        },
        {"OPENLINEAGE__TRANSPORT__TYPE": "carrier_pigeon"},
    ],
)
def test_a_backend_that_fails_costs_no_run(
    lake: Store, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    run = record()
    with caplog.at_level(logging.WARNING):
        run.begin(lake)
        run.finish(lake, "done")
    assert caplog.text.count("the lineage of backfill-1 was not told") == 2
    assert json.loads(lake.get("runs/backfill-1/run.json"))["status"] == "done"


def test_none_where_it_is_disabled(lake: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    record().begin(lake)
    assert events(lake) == []


def test_a_backfill_tells_its_tables(tmp_path: Path) -> None:
    ward = LocalBackfill(tmp_path)
    ward.put(NAMES[0], contents()[0])
    summary = ward.run()
    ward.run()
    start, end, _, idle = events(ward.lake)
    assert start["eventType"] == "START"
    rows = {each["name"].rpartition("/")[2]: each for each in end["outputs"]}
    vectors = Path(ward.resolve().vectors.uri).name
    assert set(rows) == {"windows", "events", "rejects", "archives", vectors}
    for name in ("windows", vectors):
        assert rows[name]["outputFacets"]["outputStatistics"]["rowCount"] == summary.counts["windows"] > 0
        assert {"embedding", "anomaly_score"} <= {f["name"] for f in rows[name]["facets"]["schema"]["fields"]}
        assert "lifecycleStateChange" in rows[name]["facets"]
    assert [each["name"] for each in idle["outputs"]] == [ward.lake.uri]


def test_datasets_are_named_as_the_specification_says() -> None:
    assert dataset_name("s3://icu/a/b/") == ("s3://icu", "a/b")
    assert dataset_name("s3://icu") == ("s3://icu", "/")
    assert dataset_name("ward://") == ("ward://", "/")
    assert dataset_name("file:///data/x") == ("file", "/data/x")
