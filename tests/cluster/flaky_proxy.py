"""An HTTP proxy on loopback that fails GETs as it is told, in front of an S3 server."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Fault = str | None
"""``503``; ``reset``: the connection ends before the answer; ``short``: it ends in the middle of the body;
``hang``: no answer until the proxy ends; None: none."""


@dataclass
class FlakyProxy:
    """What the proxy was told to do, and what it did."""

    backend: str
    choose: Callable[[str, int], Fault]
    """(path, how many GETs of it came before) → the fault."""
    endpoint: str = ""
    gets: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_of(self, path: str) -> Fault:
        with self.lock:
            fault = self.choose(path, self.gets[path])
            self.gets[path] += 1
            if fault:
                self.faults[fault] += 1
        return fault


@contextmanager
def flaky_proxy(backend: str, choose: Callable[[str, int], Fault]) -> Iterator[FlakyProxy]:
    """Runs the proxy while the block lasts."""
    proxy = FlakyProxy(backend, choose)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(proxy))
    server.daemon_threads = True
    proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.ended.set()
        server.shutdown()
        server.server_close()


def _handler_of(proxy: FlakyProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            fault = proxy.fault_of(path)
            if fault == "503":
                self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
            elif fault == "hang":
                proxy.ended.wait()
                self.close_connection = True
            elif fault == "reset":
                self.close_connection = True
            else:
                self._forward(cut=fault == "short")

        def _forward(self, *, cut: bool) -> None:
            backend = http.client.HTTPConnection(urlsplit(proxy.backend).netloc, timeout=60)
            backend.request("GET", self.path, headers=dict(self.headers))  # the signature covers Host
            answer = backend.getresponse()
            content = answer.read()
            headers = {
                name: value
                for name, value in answer.getheaders()
                if name.lower() not in ("content-length", "transfer-encoding", "connection")
            }
            self._answer(answer.status, headers, content, cut=cut)
            backend.close()

        def _answer(self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = self.close_connection or cut

        def log_message(self, *_arguments: object) -> None:
            return

    return Handler
