"""An HTTP proxy on loopback, in front of an S3 server, that fails requests as it is told."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

Fault = str | None
"""``503``; ``reset``: the connection ends before the request is passed on; ``short``: it ends in the middle
of the answer's body; ``lost``: the request is carried out, and the connection ends before the answer;
``hang``: nothing for ``hang_s``, then as ``reset``; None: none."""

HOP_HEADERS = ("transfer-encoding", "connection", "keep-alive")
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Request:
    """What a client asks for."""

    method: str
    path: str
    """Unquoted, from the bucket on."""
    query: str
    num_before: int
    """Requests of the same method and path that came before."""


@dataclass
class FlakyProxy:
    """What the proxy was told to do, and what it did."""

    backend: str
    choose: Callable[[Request], Fault]
    """Called in the thread of the request, which waits for it."""
    carried_out: Callable[[Request], None]
    """Called after the server has answered, and before the client hears of it."""
    endpoint: str = ""
    hang_s: float | None = None
    """None for as long as the proxy runs."""
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By method and path."""
    faults: Counter[str] = field(default_factory=Counter)
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def decide(self, method: str, target: str) -> tuple[Request, Fault]:
        """Counts a request and decides about it."""
        parts = urlsplit(target)
        path = unquote(parts.path)
        with self.lock:
            request = Request(method, path, parts.query, self.requests[method, path])
            self.requests[method, path] += 1
        fault = self.choose(request)
        with self.lock:
            self.faults[fault or "none"] += 1
        return request, fault


@contextmanager
def flaky_proxy(
    backend: str,
    choose: Callable[[Request], Fault],
    *,
    carried_out: Callable[[Request], None] = lambda request: None,
    hang_s: float | None = None,
) -> Iterator[FlakyProxy]:
    """Runs the proxy while the block lasts."""
    proxy = FlakyProxy(backend, choose, carried_out, hang_s=hang_s)
    server = _Server(("127.0.0.1", 0), _handler_of(proxy))
    proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.ended.set()
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no news."""


def _handler_of(proxy: FlakyProxy) -> type[BaseHTTPRequestHandler]:
    netloc = urlsplit(proxy.backend).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request, fault = proxy.decide(self.command, self.path)
            if fault == "503":
                self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
            elif fault == "hang":
                proxy.ended.wait(proxy.hang_s)
                self.close_connection = True
            elif fault == "reset":
                self.close_connection = True
            else:
                self._forward(request, body, fault)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request  # noqa: N815 - the base's names

        def _forward(self, request: Request, body: bytes, fault: Fault) -> None:
            backend = http.client.HTTPConnection(netloc, timeout=TIMEOUT_S)
            sent = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            backend.request(self.command, self.path, body or None, sent)  # the signature covers Host
            answer = backend.getresponse()
            content = answer.read()
            backend.close()
            proxy.carried_out(request)
            if fault == "lost":
                self.close_connection = True
                return
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in HOP_HEADERS}
            self._answer(answer.status, headers, content, cut=fault == "short")

        def _answer(self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() != "content-length" or self.command == "HEAD":
                    self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = self.close_connection or cut

        def log_message(self, *_arguments: object) -> None:
            return

    return Handler
