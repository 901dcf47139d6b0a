"""
Remote replicas: what TRITON_URLS says, and which addresses a name stands for right now.

    http://host:8000                         one replica; gRPC on the port above
    http://host:8000?grpc_port=9001          … or on another
    dns+http://triton.internal:8000          one replica for each address of the name, looked
                                             up every few seconds (a headless Service)
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import structlog

from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.monitor import Monitor
from gateway.triton.replicas import Replica

log = structlog.get_logger(__name__)

_LOOK_UP_EVERY_S = 5.0


class TritonUrlInvalid(ValueError):
    """A part of TRITON_URLS that cannot be read."""


@dataclass(frozen=True, slots=True)
class TritonUrl:
    """One part of TRITON_URLS. `by_dns`: one replica for each address of the host."""

    host: str
    http_port: int
    grpc_port: int
    metrics_port: int
    by_dns: bool

    def endpoint(self, host: str, admin_key: str | None) -> TritonEndpoint:
        """Describe the replica on one host or address."""
        shown = f"[{host}]" if ":" in host else host
        return TritonEndpoint(
            http_url=f"{shown}:{self.http_port}",
            grpc_url=f"{shown}:{self.grpc_port}",
            metrics_url=f"{shown}:{self.metrics_port}",
            admin_key=admin_key,
        )


def parse_triton_url(text: str) -> TritonUrl:
    """
    Read one URL. Ports left out follow Triton's order: HTTP 8000, gRPC the next, metrics the next.

    Raises:
        TritonUrlInvalid: It is none.
    """
    try:
        parts = urlsplit(text)
        query = parse_qs(parts.query, strict_parsing=bool(parts.query))
        http_port = parts.port or 8000
        ports = {key: int(values[0]) for key, values in query.items()}
    except ValueError as error:
        raise TritonUrlInvalid(f"TRITON_URLS: {text!r} is no URL: {error}") from error
    if parts.scheme not in {"http", "dns+http"} or not parts.hostname:
        raise TritonUrlInvalid(
            f"TRITON_URLS: {text!r} must read http://host:port or dns+http://host:port"
        )
    if unknown := set(ports) - {"grpc_port", "metrics_port"}:
        raise TritonUrlInvalid(f"TRITON_URLS: {text!r} has an unknown option {min(unknown)}")
    return TritonUrl(
        host=parts.hostname,
        http_port=http_port,
        grpc_port=ports.get("grpc_port", http_port + 1),
        metrics_port=ports.get("metrics_port", http_port + 2),
        by_dns=parts.scheme == "dns+http",
    )


class Discovery:
    """Keeps a monitor's replicas in step with TRITON_URLS."""

    def __init__(self, urls: Iterable[TritonUrl], monitor: Monitor, admin_key: str | None) -> None:
        self._urls = tuple(urls)
        self._monitor = monitor
        self._admin_key = admin_key
        self._known: dict[str, Replica] = {}
        self._found: dict[TritonUrl, dict[str, TritonEndpoint]] = {}

    async def refresh(self) -> None:
        """Look every name up once. A name that is not found keeps the replicas that it had."""
        for url in self._urls:
            if hosts := await _addresses(url.host) if url.by_dns else {url.host}:
                endpoints = [url.endpoint(host, self._admin_key) for host in hosts]
                self._found[url] = {endpoint.http_url: endpoint for endpoint in endpoints}
        found = {name: e for endpoints in self._found.values() for name, e in endpoints.items()}
        for name in found.keys() - self._known.keys():
            self._known[name] = self._monitor.watch(name, found[name])
        for name in self._known.keys() - found.keys():
            log.info("replica_gone", replica=name)
            await self._monitor.forget(self._known.pop(name))

    async def follow(self) -> None:
        """Look up again and again, for ever."""
        while True:
            await asyncio.sleep(_LOOK_UP_EVERY_S)
            await self.refresh()


async def _addresses(host: str) -> set[str]:
    with contextlib.suppress(socket.gaierror):
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return {str(address[4][0]) for address in found}
    log.warning("name_not_found", host=host)
    return set()
