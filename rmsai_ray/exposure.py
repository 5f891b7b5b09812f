"""Whether a Ray takes orders from strangers: no token asked for, at an address that others can reach."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator

import grpc
import psutil

from rmsai_ray.errors import ConfigError

ALLOW = "RMSAI_ALLOW_OPEN_RAY"
TIMEOUT_S = 3.0
QUESTION = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""What every client asks first. Ray answers it without a token only where it asks for none."""


def refuse_open_ray(address: str) -> None:
    """Asks Ray's control service (``host:port``) as a stranger would, where others reach it.

    Ray runs whatever code it is sent, with the rights of its nodes. ``ray start`` listens on all interfaces
    of a machine, also with ``--node-ip-address=127.0.0.1``; so what it says of its address is not believed.

    Raises:
        ConfigError: it answered, and ``RMSAI_ALLOW_OPEN_RAY`` is not 1.
    """
    if os.environ.get(ALLOW) == "1":
        return
    for candidate in _addresses_for_others(address):
        if answers_strangers(candidate):
            raise ConfigError(
                "ray",
                candidate,
                "runs any code that whoever reaches it sends: it asks for no token",
                "Start every node with RAY_AUTH_MODE=token (cluster/README.md says how), or say with "
                f"{ALLOW}=1 that nobody but you reaches this network.",
            )


def answers_strangers(address: str) -> bool:
    """Whether a call without a token is answered at ``host:port``; False also where nothing answers."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(QUESTION)(b"", timeout=TIMEOUT_S)
        except grpc.RpcError:
            return False
    return True


def _addresses_for_others(address: str) -> Iterator[str]:
    """The address itself; for one on loopback, the same port at the other addresses of this machine."""
    host, _, port = address.rpartition(":")
    if not _is_loopback(host.strip("[]")):
        yield address
        return
    for found in psutil.net_if_addrs().values():
        for each in found:
            if each.family == socket.AF_INET and not _is_loopback(each.address):
                yield f"{each.address}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
