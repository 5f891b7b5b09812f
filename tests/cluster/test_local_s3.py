"""The S3 server of the tests: first writer wins, strangers stay out, and nothing of it is left."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from cluster.local_s3 import LocalS3
from rmsai_ray.storage import Store

ROOT = Path(__file__).resolve().parents[2]


def test_of_many_writers_of_one_object_one_wins(s3_uri: str) -> None:
    store = Store(s3_uri)
    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(lambda i: store.create("unit.json", str(i).encode()), range(40)))
    assert sum(wins) == 1
    assert store.get("unit.json") == str(wins.index(True)).encode()


def test_without_credentials_nothing_is_told(s3_server: LocalS3) -> None:
    with pytest.raises(HTTPError, match="403"):
        urlopen(f"{s3_server.endpoint}/tests?list-type=2", timeout=10)


def test_a_command_runs_beside_a_server_that_ends_with_it() -> None:
    code = (
        "import os, sys; from rmsai_ray.storage import Store;"
        "Store('s3://demo/x').put('a', b'1'); print(os.environ['AWS_ENDPOINT_URL']); sys.exit(7)"
    )
    command = [sys.executable, "-m", "cluster.local_s3", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 7, done.stderr
    with pytest.raises(URLError, match="refused"):
        urlopen(done.stdout.strip(), timeout=10)
