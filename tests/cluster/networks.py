"""A second network on this machine: a namespace at the end of a cable, and a slow way to a server."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Namespace:
    """What runs inside sees its own loopback, and one address outside: ``our_ip``."""

    name: str
    our_ip: str
    their_ip: str

    @property
    def inside(self) -> tuple[str, ...]:
        """In front of a command that is to run there."""
        return ("ip", "netns", "exec", self.name)


def why_no_namespace() -> str:
    """Empty where one can be made."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need the command ip (Debian: apt-get install iproute2)"
    name = f"try-{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"this machine makes no network namespaces: {made.stderr.strip()}"
    _ip("netns", "del", name)
    return ""


@contextmanager
def namespace() -> Iterator[Namespace]:
    """A namespace, joined to ours by a pair of virtual interfaces."""
    tag = secrets.token_hex(3)
    net = f"10.{64 + secrets.randbelow(64)}.{secrets.randbelow(256)}"
    made = Namespace(f"node-{tag}", f"{net}.1", f"{net}.2")
    _ip("netns", "add", made.name)
    try:
        _ip("link", "add", f"a{tag}", "type", "veth", "peer", "name", f"b{tag}", "netns", made.name)
        _ip("addr", "add", f"{made.our_ip}/30", "dev", f"a{tag}")
        _ip("link", "set", f"a{tag}", "up")
        _ip("-n", made.name, "addr", "add", f"{made.their_ip}/30", "dev", f"b{tag}")
        _ip("-n", made.name, "link", "set", f"b{tag}", "up")
        _ip("-n", made.name, "link", "set", "lo", "up")
        yield made
    finally:
        _ip("netns", "del", made.name)  # the cable goes with it


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass
class SlowDoor:
    """Passes bytes on to a server on loopback, and keeps who asks for an archive waiting."""

    port: int
    delay_s: float
    listener: socket.socket = field(repr=False)
    num_archives: int = 0
    """That were asked for."""

    def serve(self, server_port: int) -> None:
        """Until the listener is closed."""
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", server_port))
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while content := source.recv(1 << 16):
                if content.startswith(b"GET") and b".h5" in content.partition(b"\r\n")[0]:
                    self.num_archives += 1
                    time.sleep(self.delay_s)
                sink.sendall(content)
        except OSError:
            pass  # either side has left; so does the other
        for end in (source, sink):
            end.close()


@contextmanager
def slow_door(server_port: int, ip: str, delay_s: float) -> Iterator[SlowDoor]:
    """A door to ``127.0.0.1:server_port`` at an address of ours."""
    with socket.create_server((ip, 0)) as listener:
        door = SlowDoor(listener.getsockname()[1], delay_s, listener)
        threading.Thread(target=door.serve, args=(server_port,), daemon=True).start()
        yield door
