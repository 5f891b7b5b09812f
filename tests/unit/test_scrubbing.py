"""Secrets are planted wherever texts are kept or shown, and none is found there."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from rmsai_ray import cli, job, storage
from rmsai_ray.errors import ConfigError, LakeError, StorageError
from rmsai_ray.logs import WorkerLog
from rmsai_ray.runs import JsonLog, RunRecord
from rmsai_ray.scrubbing import HIDDEN, has_credentials, scrub, scrub_values
from rmsai_ray.storage import S3Options, Store, normalise_uri

PLANTED = {
    "AWS_ACCESS_KEY_ID": "planted-access-key-1",
    "AWS_SECRET_ACCESS_KEY": "planted/secret+key==2",
    "AWS_SESSION_TOKEN": "planted-session-token-3",
    "FSSPEC_S3_KEY": "planted-fsspec-key-4",
    "FSSPEC_S3_SECRET": "planted-fsspec-secret-5",
    "RAY_AUTH_TOKEN": "planted-ray-token-6",
    "RMSAI_PSEUDONYM_KEY": "planted-pseudonym-key-7",
    "RMSAI_WEBHOOK_TOKEN": "planted-webhook-token-8",
    "POSTGRES_PASSWORD": "planted-password-9",
}
IN_TEXTS = [
    "s3://planted-user:planted-pass@bucket/lake",
    "https://planted-user@host/x",
    "https://b.s3.amazonaws.com/k?X-Amz-Credential=planted-c&X-Amz-Signature=planted-s&X-Amz-Security-Token=planted",
    "https://b/k?AWSAccessKeyId=planted-id&Signature=planted-sig&Expires=1",
    "https://account/blob?sv=1&sig=planted-sas",
    "Authorization: Bearer planted.jwt-token_value",
    "aws_secret_access_key = planted-value",
    '{"aws_session_token": "planted-value"}',
    "--api-key=planted-value",
    "password: 'planted-value'",
]
HARMLESS = [
    "s3://bucket/2026-10/PT1@copy.h5?versionId=3",
    "it asks for no token. Start every node with RAY_AUTH_MODE=token (cluster/README.md says how).",
    "tokens and secrets are not values; neither is a signature",
    "12.5 windows/s; 3 of 7 archives",
    "keyed: patient, period",
]


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def _no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "RETRY", {"max_retries": 0, "retry_timeout": timedelta(seconds=1)})


@pytest.mark.parametrize("text", [*IN_TEXTS, *PLANTED.values(), "…/?x=planted%2Fsecret%2Bkey%3D%3D2"])
def test_a_secret_is_hidden_and_the_rest_stays(text: str) -> None:
    hidden = scrub(f"cannot read {text} now")
    assert "planted" not in hidden
    assert HIDDEN in hidden
    assert (hidden[:12], hidden[-4:]) == ("cannot read ", " now")


@pytest.mark.parametrize("text", HARMLESS)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert scrub(text) == text
    assert not has_credentials(text)


def test_values_of_secret_names_are_hidden_in_structures() -> None:
    made = scrub_values({"api_key": "x", "list": ["a", IN_TEXTS[0]], "deep": {"password": "y", "n": 3}})
    assert made == {
        "api_key": HIDDEN,
        "list": ["a", f"s3://{HIDDEN}@bucket/lake"],
        "deep": {"password": HIDDEN, "n": 3},
    }


@pytest.mark.parametrize("uri", IN_TEXTS[:5])
def test_a_uri_with_credentials_is_refused_without_showing_them(uri: str) -> None:
    with pytest.raises(ConfigError, match="carries credentials") as refusal:
        normalise_uri(uri)
    assert "planted" not in str(refusal.value)
    assert "planted" not in repr(refusal.value)


def test_an_endpoint_with_credentials_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://planted-user:planted-pass@127.0.0.1:1")
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL") as refusal:
        Store("s3://bucket/lake")
    assert "planted" not in str(refusal.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "planted" not in repr(S3Options.from_environment()).replace(PLANTED["AWS_ACCESS_KEY_ID"], "")


@pytest.mark.usefixtures("_no_retries")
def test_a_failing_endpoint_tells_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    store = Store("s3://bucket/lake")
    failing = [
        lambda: store.get("k"),
        lambda: store.put("k", b"1"),
        lambda: store.create("k", b"1"),
        lambda: list(store.list()),
        lambda: store.delete(["k"]),
    ]
    for call in failing:
        with pytest.raises(StorageError) as failure:
            call()
        assert "planted" not in f"{failure.value!r} {failure.value.__cause__}"
    assert cli.main(["stats", "--lake", "s3://bucket/lake"]) == 1
    said = capsys.readouterr()
    assert "cannot list" in said.err
    assert "planted" not in said.out + said.err


def test_nothing_of_a_run_holds_a_secret(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    everything = [*IN_TEXTS, *PLANTED.values()]
    record = RunRecord(
        run_id="r",
        job="backfill",
        argv=["backfill.py", *everything],
        config={"lake": IN_TEXTS[0], "list": everything, "webhook_token": "planted"},
        facts={"resources": {"note": everything}},
    )
    record.begin(store)
    log, logs = logging.getLogger("rmsai_ray.test"), JsonLog(store, "r")
    log.addHandler(logs)
    try:
        for text in everything:
            log.warning("it said %s", text, extra={"fields": {"uri": text, "token": "planted"}})
        try:
            raise LakeError(" ".join(everything))
        except LakeError as error:
            log.exception("failed")
            failure = repr(error)
    finally:
        log.removeHandler(logs)
    logs.flush()
    worker = WorkerLog(store, "r", record.log_prefix, "read")
    worker.write([{"message": "archive", "error": text} for text in everything])
    record.finish(store, "failed", failure)

    written = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(written) == 3
    assert not [text for text in written.values() if "planted" in text]
    logged = [text for path, text in written.items() if path.suffix == ".jsonl"]
    lines = [json.loads(line) for text in logged for line in text.splitlines()]
    assert len(lines) == 2 * len(everything) + 1


@dataclass(frozen=True, kw_only=True)
class LakeConfig:
    """Names a lake."""

    lake: str
    """Where."""


def run(argv: list[str], error: Exception | None = None) -> int:
    def flow(config: LakeConfig) -> None:
        if error:
            raise error
        normalise_uri(config.lake)

    return job.run(LakeConfig, flow, presets={"demo": LakeConfig(lake="x")}, argv=argv)


@pytest.mark.parametrize("uri", IN_TEXTS[:5])
def test_a_command_with_credentials_in_it_is_refused(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--lake", uri], [f"--lake={uri}"]):
        assert run(argv) == job.EXIT_BAD_CONFIG
        assert "planted" not in "".join(capsys.readouterr())


def test_secrets_that_came_with_a_submission_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    came_along = {"env_vars": {"AWS_SECRET_ACCESS_KEY": "planted-by-job", "RAY_JOB_STOP_WAIT_TIME_S": "20"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": came_along}))
    assert run([]) == job.EXIT_BAD_CONFIG
    said = "".join(capsys.readouterr())
    assert "AWS_SECRET_ACCESS_KEY" in said
    assert "planted" not in said
    del came_along["env_vars"]["AWS_SECRET_ACCESS_KEY"]
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": came_along}))
    assert run([]) == job.EXIT_DONE


@pytest.mark.parametrize("error", [LakeError, StorageError, RuntimeError, KeyError])
def test_a_terminal_shows_no_secret(
    error: type[Exception], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as a job finds it
    assert run([], error(" ".join([*IN_TEXTS, *PLANTED.values()]))) == job.EXIT_FAILED
    said = "".join(capsys.readouterr())
    assert HIDDEN in said
    assert "planted" not in said


def test_a_long_text_is_scrubbed_in_no_time() -> None:
    started = time.process_time()
    scrub("token " + "a" * 200_000 + " secret-" * 2_000)
    assert time.process_time() - started < 2
