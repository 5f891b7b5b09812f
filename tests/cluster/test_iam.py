"""The S3 policies: the calls and the work of each role at a real server, as their README says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import s3fs

from cluster.iam.policies import policies_by_role
from cluster.local_s3 import LocalS3, local_s3
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.backfill.maintain import MaintainConfig, maintain
from rmsai_ray.cli import main as rmsai
from rmsai_ray.errors import StorageError
from rmsai_ray.storage import Store
from rmsai_ray.tables.lake import list_models, open_lake

ROOT = Path(__file__).resolve().parents[2]
ARCHIVES, LAKE = "s3://icu-archives/monitors", "s3://icu-lake/main"
PLACES = {
    "archives": "icu-archives/monitors",
    "lake": "icu-lake/main",
    "beside": "icu-lake/beside",
    "elsewhere": "elsewhere",
}
ROW = re.compile(r"^\| ([a-z' ]+) \| (\S+) \| (yes|no) \| (yes|no) \| (yes|no) \| (yes|no) \|$", re.MULTILINE)
PLANTED = {"RMSAI_WEBHOOK_TOKEN": "planted-token-1", "SOME_PASSWORD": "planted-password-2"}
COLUMNS = ("reader", "writer", "maintainer", "analyst")

WORK = """
import sys
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.flow import backfill
from rmsai_ray.job import ray_session
with ray_session():
    for _ in sys.stdin:
        backfill(BackfillConfig(archives=sys.argv[1], lake=sys.argv[2], unit_bytes=1, detectors="none"))
        print("backfilled", flush=True)
"""

Client = Callable[..., Any]


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with local_s3(policies_by_role(archives=ARCHIVES, lake=LAKE)) as running:
        for place in PLACES.values():
            running.create_bucket(place.partition("/")[0])
        yield running


@pytest.fixture(autouse=True)
def _emptied(server: LocalS3) -> Iterator[None]:
    """Each test finds both buckets empty."""
    yield
    with acting_as(server):
        for place in ("s3://icu-archives", "s3://icu-lake", "s3://elsewhere"):
            bucket = Store(place)
            bucket.delete([info.key for info in bucket.list()])


def test_every_call_of_the_table_is_answered_as_it_says(server: LocalS3) -> None:
    rows = ROW.findall((ROOT / "cluster/iam/README.md").read_text())
    assert len(rows) >= 50, "the table of the README has another form than this test reads"
    owner = client(server)
    for call, where, *_ in rows:
        if "/" in where and call not in ("create", "write in parts"):
            put(owner, where)
    wrong = []
    for call, where, *expected in rows:
        for role, answer in zip(COLUMNS, expected, strict=True):
            allowed = is_allowed(client(server.as_role(role)), call, where)
            if call.startswith("delete") and allowed and "/" in where:
                put(owner, where)
            if call == "create" and allowed:
                owner("delete_object", **at(where))
            if allowed != (answer == "yes"):
                wrong.append(f"{role} {call} {where}: {'allowed' if allowed else 'refused'}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.timeout(600)
def test_roles_can_do_their_work_and_show_no_secret(
    server: LocalS3, capsys: pytest.CaptureFixture[str]
) -> None:
    owner, archives = client(server), PLACES["archives"]
    for patient in range(3):
        put(owner, f"archives/PT{patient}.h5", simulate_archive(patient, 1, seed=3)[1])
    role = server.as_role("backfill")
    secrets = {role.secret_key, os.environ["RAY_AUTH_TOKEN"], *PLANTED.values()}
    with worker(role) as work:
        work.backfill()
        with acting_as(server):
            [model_id] = list_models(LAKE)
            lake = Store(LAKE)
            orphans = [
                f"windows/model={model_id}/period=2025-09/orphan.parquet",
                f"events/model={model_id}/period=2025-09/orphan.parquet",
                f"rejects/model={model_id}/orphan.parquet",
            ]
            for key in orphans:
                lake.put(key, b"of a killed run")
        put(owner, "archives/PT0.h5", simulate_archive(0, 2, seed=4)[1])
        owner("copy_object", **at("archives/copy-of-PT1.h5"), CopySource=f"{archives}/PT1.h5")
        work.backfill()
        assert not leaks(
            secrets, {"said": "".join(work.said).encode(), **command_lines(work.pid, server.pid)}
        )
        assert not leaks(secrets, {str(path): path.read_bytes() for path in work.log_files()})
    with acting_as(server):
        written = {info.key: lake.get(info.key) for info in lake.list()}
    assert not set(orphans) & written.keys()
    assert any(key.endswith("/run.json") for key in written)
    assert not leaks(secrets, written)

    with acting_as(server.as_role("maintainer")):
        before = open_lake(LAKE).rows("SELECT count(*) AS n FROM windows")
        maintain(MaintainConfig(lake=LAKE, keep_versions_days=0.0, archive_older_than_months=0))
        assert open_lake(LAKE).rows("SELECT count(*) AS n FROM windows") == [{"n": 0}]
        maintain(MaintainConfig(lake=LAKE, keep_versions_days=0.0, restore_since="2000-01"))
    with acting_as(server.as_role("analyst")):
        assert before == open_lake(LAKE).rows("SELECT count(*) AS n FROM windows") != [{"n": 0}]
        [window] = open_lake(LAKE).rows("SELECT window_id FROM windows LIMIT 1")
        questions = ["stats", "anomalies", "verdicts", "storage", f"search {window['window_id']}"]
        for question in questions:
            assert rmsai([*question.split(), "--lake", LAKE]) == 0, capsys.readouterr()
        with pytest.raises(StorageError, match="cannot list s3://icu-archives"):
            list(Store(ARCHIVES).list())
    with acting_as(server.as_role("reader")), pytest.raises(StorageError, match="cannot list s3://icu-lake"):
        open_lake(LAKE)


def test_archives_and_lake_need_a_bucket_each() -> None:
    with pytest.raises(ValueError, match="one bucket"):
        policies_by_role(archives="s3://icu/archives", lake="s3://icu/lake")


def client(server: LocalS3) -> Client:
    """S3's calls by name, with the credentials of one role; a refusal is a PermissionError."""
    filesystem = s3fs.S3FileSystem(
        key=server.access_key,
        secret=server.secret_key,
        endpoint_url=server.endpoint,
        client_kwargs={"region_name": "us-east-1"},
    )
    call: Client = filesystem.call_s3
    return call


def at(where: str) -> dict[str, str]:
    """``lake/windows/…`` → bucket and key."""
    place, _, key = where.partition("/")
    bucket, _, path = f"{PLACES[place]}/{key}".partition("/")
    return {"Bucket": bucket, "Key": path}


def put(call: Client, where: str, content: bytes = b"1") -> None:
    call("put_object", **at(where), Body=content)


def is_allowed(call: Client, name: str, where: str) -> bool:
    try:
        return CALLS[name](call, where)
    except PermissionError:
        return False


def list_objects(call: Client, where: str) -> bool:
    there = at(where)
    call("list_objects_v2", Bucket=there["Bucket"], Prefix=there["Key"])
    return True


def list_buckets(call: Client, _where: str) -> bool:
    """AWS refuses; SeaweedFS names those whose objects one may list anyway."""
    return "elsewhere" in {bucket["Name"] for bucket in call("list_buckets")["Buckets"]}


def write_in_parts(call: Client, where: str) -> bool:
    upload = call("create_multipart_upload", **at(where))["UploadId"]
    part = call("upload_part", **at(where), UploadId=upload, PartNumber=1, Body=b"1")
    done = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    call("complete_multipart_upload", **at(where), UploadId=upload, MultipartUpload=done)
    second = call("create_multipart_upload", **at(where))["UploadId"]
    call("abort_multipart_upload", **at(where), UploadId=second)
    return True


def copy_an_archive(call: Client, where: str) -> bool:
    call("copy_object", **at(where), CopySource=f"{PLACES['archives']}/2025-09/PT1.h5")
    return True


def delete_many(call: Client, where: str) -> bool:
    there = at(where)
    answer = call("delete_objects", Bucket=there["Bucket"], Delete={"Objects": [{"Key": there["Key"]}]})
    return "Errors" not in answer


def simply(method: str, **arguments: Any) -> Callable[[Client, str], bool]:
    """A call of one object that answers nothing of interest."""

    def make(call: Client, where: str) -> bool:
        call(method, **at(where), **arguments)
        return True

    return make


def of_bucket(method: str, **arguments: Any) -> Callable[[Client, str], bool]:
    """A call of a whole bucket; of a new one where none is named."""

    def make(call: Client, where: str) -> bool:
        bucket = "one-more" if where == "-" else PLACES[where].partition("/")[0]
        call(method, Bucket=bucket, **arguments)
        return True

    return make


CALLS = {
    "list": list_objects,
    "list buckets": list_buckets,
    "read": simply("get_object"),
    "write": simply("put_object", Body=b"1"),
    "create": simply("put_object", Body=b"1", IfNoneMatch="*"),
    "write in parts": write_in_parts,
    "copy an archive": copy_an_archive,
    "delete": simply("delete_object"),
    "delete many": delete_many,
    "create a bucket": of_bucket("create_bucket"),
    "delete the bucket": of_bucket("delete_bucket"),
    "set the bucket's policy": of_bucket("put_bucket_policy", Policy="{}"),
}


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A process with a Ray of its own that backfills, with nothing but a role's credentials."""

    process: subprocess.Popen[str]
    ray_folder: Path
    said: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    def backfill(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            self.said.append(line)
            if line == "backfilled\n":
                return
        pytest.fail(f"the backfill failed: {''.join(self.said)[-3000:]}")

    def log_files(self) -> list[Path]:
        """What Ray wrote: logs of the driver, of workers and of its own processes."""
        found = [path for path in self.ray_folder.rglob("*") if path.is_file() and not path.is_symlink()]
        assert any(path.name.startswith("worker-") for path in found)
        return found


@contextmanager
def worker(role: LocalS3) -> Iterator[Worker]:
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", WORK, ARCHIVES, LAKE],
            cwd=ROOT,
            env=os.environ | role.env() | PLANTED | {"RAY_TMPDIR": folder},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        with process:
            yield Worker(process=process, ray_folder=Path(folder))


def command_lines(*pids: int) -> dict[str, bytes]:
    """What ``ps`` shows of processes and their descendants."""
    family = [each for pid in pids for each in (psutil.Process(pid), *psutil.Process(pid).children(True))]
    found = {}
    for each in family:
        with suppress(psutil.NoSuchProcess):
            found[f"process {each.pid}"] = " ".join(each.cmdline()).encode()
    return found


def leaks(secrets: Iterable[str], texts: Mapping[str, bytes]) -> list[str]:
    """Names of the texts that hold a secret."""
    return [name for name, text in texts.items() if any(secret.encode() in text for secret in secrets)]


@contextmanager
def acting_as(role: LocalS3) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        for name, value in role.env().items():
            environment.setenv(name, value)
        yield
