"""Does the server answer? Asked over HTTP, with a connection for each question."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from gateway.triton.endpoint import TritonEndpoint


class LivenessProbe:
    """Asks `/v2/health/live`."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def is_live(self, endpoint: TritonEndpoint) -> bool:
        """Whether the server at `endpoint` says so in time."""
        try:
            answer = await self._client.get(f"http://{endpoint.http_url}/v2/health/live")
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK


@asynccontextmanager
async def open_probe(timeout_s: float) -> AsyncIterator[LivenessProbe]:
    """Open a probe; it keeps no connection, because an open one would hold up the server's exit."""
    async with httpx.AsyncClient(
        timeout=timeout_s,
        trust_env=False,
        verify=False,  # noqa: S501 - plain HTTP on loopback; spares the loading of certificates
        limits=httpx.Limits(max_keepalive_connections=0),
    ) as client:
        yield LivenessProbe(client)
