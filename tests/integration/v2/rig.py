"""A gateway, and the Triton behind it."""

import time
from dataclasses import dataclass
from typing import Any

import httpx

from testbed.gateway_process import GatewayProcess


@dataclass
class Both:
    """A gateway, and the Triton behind it."""

    gateway: GatewayProcess
    triton: httpx.Client
    grpc: str
    triton_grpc: str

    def stubs(self) -> set[int]:
        """The processes that run models, once those that were unloaded are gone (a second)."""
        before: set[int] = set()
        while before != (found := {stub.pid for stub in self.gateway.stubs()}):
            before = found
            time.sleep(1.5)
        return found

    @property
    def url(self) -> str:
        return self.gateway.url.removeprefix("http://")

    def post(self, path: str, **sent: Any) -> tuple[httpx.Response, httpx.Response]:
        """Send one request to the gateway and to Triton."""
        return self.gateway.client.post(path, **sent), self.triton.post(path, **sent)
