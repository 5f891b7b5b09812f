"""Schemas of the lake's tables, with their version: the contract with everybody who reads the lake.

All times are ``timestamp[us, UTC]``. Each schema's version is written as Parquet metadata (``rmsai_schema``).
"""

from __future__ import annotations

import pyarrow as pa

from rmsai_ray.errors import LakeError

SCHEMA_VERSION = "2"
VERSION_KEY = b"rmsai_schema"

TIME = pa.timestamp("us", tz="UTC")
FLOAT32 = pa.float32()


def _schema(table: str, fields: list[pa.Field]) -> pa.Schema:
    return pa.schema(fields, metadata={VERSION_KEY: f"{table}/{SCHEMA_VERSION}"})


def check_version(found: pa.Schema, expected: pa.Schema, where: str) -> None:
    """Whether rows were written with this version of a table's schema.

    Raises:
        LakeError: they were not. Rows of two versions never share a lake and a model.
    """
    theirs = (found.metadata or {}).get(VERSION_KEY, b"none").decode()
    ours = expected.metadata[VERSION_KEY].decode()
    if theirs != ours:
        raise LakeError(
            f"{where} has schema {theirs!r}, and this version needs {ours!r}: backfill into another lake, or "
            "read and extend this one with the version that wrote it"
        )


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


ARCHIVES = _schema(
    "archives",
    [
        _required("uri", pa.string()),
        _required("model_id", pa.string()),
        pa.field("archive_id", pa.string()),  # content hash; null where the object was never read
        _required("size", pa.int64()),
        _required("etag", pa.string()),
        _required("modified_time", TIME),
        _required("status", pa.string()),  # committed | skipped (same content elsewhere) | quarantined
        _required("attempts", pa.int32()),  # reads of the object, the successful one included
        pa.field("patient_id", pa.string()),
        pa.field("period", pa.string()),  # YYYY-MM, or "unknown"
        pa.field("variant", pa.string()),
        _required("degraded", pa.bool_()),
        _required("num_events", pa.int32()),
        _required("num_windows", pa.int32()),
        _required("num_rejects", pa.int32()),
        pa.field("error", pa.string()),  # "<reason>: <detail>" where quarantined
        _required("unit_id", pa.string()),
        _required("run_id", pa.string()),
        _required("committed_time", TIME),
    ],
)
"""The manifest: one row per (uri, model_id)."""

VITAL_NAMES = ("HR", "Pulse", "SpO2", "Systolic", "Diastolic", "RespRate", "Temp", "XL_Posture")

VITAL = pa.struct(
    [
        pa.field("name", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("units", pa.string()),
        pa.field("time", TIME),
        pa.field("lower_threshold", pa.float64()),
        pa.field("upper_threshold", pa.float64()),
        pa.field("history", pa.list_(pa.struct([pa.field("time", TIME), pa.field("value", pa.float64())]))),
        pa.field("extras", pa.string()),  # JSON of what else the monitor wrote
    ]
)

EVENTS = _schema(
    "events",
    [
        _required("event_uid", pa.string()),  # <archive_id>/<event_id>
        _required("model_id", pa.string()),
        _required("archive_id", pa.string()),
        _required("patient_id", pa.string()),
        _required("event_id", pa.string()),
        _required("event_uuid", pa.string()),
        pa.field("event_time", TIME),
        _required("condition", pa.string()),  # as reported by the monitor
        pa.field("heart_rate", pa.float64()),  # bpm
        _required("leads", pa.list_(pa.string())),  # present in the file
        _required("vitals", pa.list_(VITAL)),
        pa.field("pacer_type", pa.int32()),  # bits 0-7 of the pacer word
        pa.field("pacer_rate", pa.int32()),
        pa.field("pacer_amplitude", pa.int32()),
        pa.field("pacer_flags", pa.int32()),
        pa.field("pacer_offset", pa.int32()),  # samples
        pa.field("ecg_extras", pa.string()),  # JSON: fiducials, annotations …
        _required("problems", pa.list_(pa.string())),  # problem codes of this event and its archive
        pa.field("quality_score", pa.float32()),  # mean over its windows
        _required("num_windows", pa.int32()),
        _required("num_anomalous", pa.int32()),  # windows with is_anomaly
        _required("num_anomalous_condition", pa.int32()),
        _required("verdict", pa.string()),  # Normal or the anomaly type that won
        _required("verdict_support", pa.int32()),  # windows that carry the verdict
        _required("verdict_rule", pa.string()),
        _required("run_id", pa.string()),
        _required("unit_id", pa.string()),
    ],
)

REJECTS = _schema(
    "rejects",
    [
        _required("uri", pa.string()),
        _required("model_id", pa.string()),
        pa.field("archive_id", pa.string()),
        _required("level", pa.string()),  # archive | event | lead | window
        _required("place", pa.string()),  # path inside the archive; "" for a whole archive
        _required("reason", pa.string()),  # stable code
        _required("detail", pa.string()),
        _required("run_id", pa.string()),
        _required("unit_id", pa.string()),
    ],
)


ALERTS = _schema(
    "alerts",
    [
        _required("alert_id", pa.string()),  # of kind, subject, model and the night that opened it
        _required("kind", pa.string()),  # drift, anomaly_rate, quarantine_rate, missing_data …
        _required(
            "subject", pa.string()
        ),  # what it is about, e.g. a condition or a prefix; "" the whole lake
        pa.field("model_id", pa.string()),  # null where it is about no model
        _required("opened_night", pa.string()),  # YYYY-MM-DD
        _required("last_night", pa.string()),  # the last one that found the condition
        _required("severity", pa.string()),  # warning | critical; the worst so far
        _required("state", pa.string()),  # open | acknowledged | resolved
        _required("first_seen", TIME),
        _required("last_seen", TIME),
        pa.field("resolved_time", TIME),
        _required("count", pa.int32()),  # nights that found it
        _required("num_clear", pa.int32()),  # nights in a row that did not
        pa.field("clear_night", pa.string()),  # the last of those
        pa.field("value", pa.float64()),  # what was found last
        pa.field("bound", pa.float64()),  # and what it may be
        _required("detail", pa.string()),
        _required("run_id", pa.string()),  # the last that changed the row
        _required("notices", pa.int32()),  # changes worth telling: opened, became worse, resolved
        _required("sent_webhook", pa.int32()),  # of which the webhook has taken so many
        _required("sent_file", pa.int32()),  # and the file
    ],
)
"""Alerts of a lake: one row for a condition from the night that finds it until it is gone."""


SCORE = pa.struct(
    [
        pa.field("detector", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),  # higher = more anomalous
    ]
)


def windows(embedding_dim: int, values: pa.DataType = FLOAT32) -> pa.Schema:
    """Schema of the ``windows`` table of a model with ``embedding_dim``-dimensional embeddings.

    The record has ``values`` of 32 bits; LanceDB may have them of 16.
    """
    return _schema(
        "windows",
        [
            _required("window_id", pa.string()),
            _required("model_id", pa.string()),
            _required("chunk_id", pa.string()),
            _required("seed_chunk_id", pa.string()),
            _required("vector_id", pa.string()),
            _required("archive_id", pa.string()),
            _required("patient_id", pa.string()),
            _required("event_id", pa.string()),
            _required("event_uuid", pa.string()),
            pa.field("event_time", TIME),
            _required("lead", pa.string()),
            _required("lead_number", pa.int8()),
            _required("start_sample", pa.int32()),  # at the model's sampling rate
            _required("num_samples", pa.int32()),  # real samples; the rest of the window is masked padding
            _required("is_tail", pa.bool_()),
            _required("unit", pa.string()),  # mV | raw (gain unknown)
            _required("condition", pa.string()),
            pa.field("heart_rate", pa.float64()),
            _required("embedding", pa.list_(values, embedding_dim)),
            _required("norm_offset", pa.float32()),  # normalised = (signal − offset) / scale
            _required("norm_scale", pa.float32()),
            _required("beats", pa.list_(pa.int16())),  # samples of the window; the decoder wants them, too
            _required("reconstruction_error", pa.float32()),  # mean squared error, normalised units
            _required("worst_error", pa.float32()),  # of the worst part of the window, normalised units
            _required("mae", pa.float32()),  # mean absolute error, normalised units
            _required("mse_raw", pa.float32()),  # mean squared error in the signal's unit, squared
            _required("num_beats", pa.int32()),  # R peaks found in this window of this lead
            pa.field("ecg_rate", pa.float32()),  # bpm, of those beats; null below 2
            pa.field("rr_irregularity", pa.float32()),  # mean |RR difference| / mean RR; null below 3 beats
            pa.field("rr_sd", pa.float32()),  # standard deviation of RR in s; null below 3 beats
            _required("signal_rms", pa.float32()),  # of the window without its mean, in the signal's unit
            pa.field("detector_set", pa.string()),  # fitted detectors; null where none were used
            _required("scores", pa.list_(SCORE)),  # by every detector of the set, and their ensemble
            _required("detector", pa.string()),  # whose score is the anomaly score
            _required("anomaly_score", pa.float32()),  # higher = more anomalous
            _required("threshold", pa.float32()),
            _required("threshold_condition", pa.float32()),
            _required("threshold_profile", pa.string()),
            _required("threshold_version", pa.string()),
            _required("is_anomaly", pa.bool_()),  # label-free: anomaly_score > threshold
            _required("is_anomaly_condition", pa.bool_()),  # by the reported condition's threshold
            _required("anomaly_status", pa.string()),  # normal | anomaly, by the profile's rule
            pa.field("anomaly_type", pa.string()),  # worst of rhythm and rate class by severity
            _required("rhythm_class", pa.string()),
            _required("rate_class", pa.string()),
            _required("quality_score", pa.float32()),  # 0-100
            _required("quality_flags", pa.list_(pa.string())),  # nan, flat, clipped, noise
            _required("run_id", pa.string()),
            _required("unit_id", pa.string()),
            _required("code_version", pa.string()),
        ],
    )


def published(schema: pa.Schema) -> pa.Schema:
    """The same columns as LanceDB stores them: texts by zstd, with which fragments are smaller and cheaper to
    write than with tables of symbols."""
    compressed = {"lance-encoding:compression": "zstd", "lance-encoding:compression-level": "1"}
    fields = [
        field.with_metadata(compressed) if pa.types.is_string(field.type) else field for field in schema
    ]
    return pa.schema(fields, schema.metadata)
