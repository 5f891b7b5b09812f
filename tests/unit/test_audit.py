"""The audit fails on findings, and on nothing else; asked is a real HTTP service, by the real pip-audit."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cluster.audit import KNOWN, audit, explained
from cluster.local_s3 import free_ports

ADVISORY = {
    "schema_version": "1.4.0",
    "id": "GHSA-planted",
    "aliases": ["CVE-2026-0001"],
    "summary": "planted",
    "affected": [
        {
            "package": {"name": "beta", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.1"}]}],
        }
    ],
}


class Advisories(BaseHTTPRequestHandler):
    """Knows of one vulnerability."""

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/slow":
            time.sleep(10)
        content = json.dumps({"vulns": [ADVISORY]} if query["package"]["name"] == "beta" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Advisories)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    file = tmp_path / "requirements.lock"
    file.write_text("# pinned\nalpha==1.0\nbeta==2.0\n")
    return file


def asked(url: str) -> list[tuple[str, ...]]:
    return [("OSV", "--vulnerability-service=osv", f"--osv-url={url}")]


def test_a_finding_fails_the_audit(lock: Path, service: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(lock, services=asked(service)) == 1
    said = capsys.readouterr().out
    assert "beta 2.0: CVE-2026-0001, fixed in 2.1; NEW" in said
    assert "2 packages audited" in said


def test_an_explained_finding_does_not(
    lock: Path, service: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = tmp_path / "known.toml"
    entry = '[[known]]\npackage = "{}"\nid = "{}"\nreason = "not called"\n'
    known.write_text(entry.format("beta", "GHSA-planted") + entry.format("alpha", "GHSA-old"))
    assert audit(lock, known, asked(service)) == 0
    said = capsys.readouterr().out
    assert "not called" in said
    assert "alpha GHSA-old is not found any more" in said


def test_without_an_answer_it_is_skipped_and_says_so(
    lock: Path, service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [nobody] = free_ports(1)
    started = time.monotonic()
    assert audit(lock, services=asked(f"http://127.0.0.1:{nobody}")) == 0
    assert audit(lock, services=asked(f"{service}/slow"), try_limit_s=2) == 0
    assert time.monotonic() - started < 60
    said = capsys.readouterr().out
    assert said.count("Audit skipped: no advisory service answered") == 2
    assert "refused" in said
    assert "more than 2 s" in said


def test_a_mirror_that_knows_no_package_is_no_clean_audit() -> None:
    from cluster.audit import _answer

    skipped = [{"name": name, "skip_reason": "not found"} for name in ("alpha", "beta")]
    assert "no advisories" in _answer(skipped).why


def test_the_list_of_explanations_can_be_read() -> None:
    assert all(explained(KNOWN).values())
