"""
Sharing memory with one Triton: register a region, find out whether Triton still has it, give it up.

Source: Triton, System-Shared-Memory Extension.
"""

import asyncio
import contextlib
from typing import Any

import structlog
from tritonclient.utils import InferenceServerException

from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.errors import TritonError, TritonUnreachable, control_errors
from gateway.triton.shared_memory import Region, SharedMemoryUnavailable

log = structlog.get_logger(__name__)

_UNREGISTER_TIMEOUT_S = 1.0


class MemorySharing:
    """
    The one region that this process shares with one Triton.

    Attributes:
        region: The region; None while there is none.
    """

    def __init__(self, grpc: Any, endpoint: TritonEndpoint) -> None:
        """
        Args:
            grpc: tritonclient's aio gRPC client of the endpoint.
            endpoint: The Triton.
        """
        self.region: Region | None = None
        self._grpc = grpc
        self._endpoint = endpoint
        self._sharing = asyncio.Lock()
        self._refused = False

    async def share(self, size_bytes: int, *, timeout_s: float) -> None:
        """
        Share memory, if it is not shared already. Where that is impossible (another host, another
        user, no room) it is logged once, and tensors travel in the requests.

        Args:
            size_bytes: How much; whole pages.
            timeout_s: For each of Triton's answers.
        """
        async with self._sharing:
            if self._refused:
                return
            if self.region is not None:
                if await self._known(self.region, timeout_s=timeout_s):
                    return
                self.drop(self.region)
            try:
                # The kernel clears the memory: some 20 ms in which others are answered.
                region = await asyncio.to_thread(Region, size_bytes)
            except SharedMemoryUnavailable as error:
                self._refuse(str(error))
                return
            try:
                await self._register(region, size_bytes, timeout_s)
                self.region = region
            except TritonUnreachable:
                return
            except (TritonError, OSError) as error:
                self._refuse(str(error))
            finally:
                # What is mapped stays; the file is not needed again.
                region.close()

    def drop(self, region: Region) -> None:
        """Stop using a region that Triton does not know."""
        # Several requests may bring the same news: another region may have taken its place.
        if self.region is region:
            self.region = None

    async def end(self) -> None:
        """
        Have Triton release the memory: it may outlive this process by months. Not while Triton may
        still read it for a request that was given up: it would read what is no longer mapped.
        """
        region, self.region = self.region, None
        if region is None or region.slots.taken_bytes:
            return
        with contextlib.suppress(InferenceServerException):
            await self._grpc.unregister_system_shared_memory(
                region.name,
                headers=self._endpoint.admin_metadata,
                client_timeout=_UNREGISTER_TIMEOUT_S,
            )

    async def _register(self, region: Region, size_bytes: int, timeout_s: float) -> None:
        with control_errors(), region.named() as key:
            await self._grpc.register_system_shared_memory(
                region.name,
                key,
                size_bytes,
                headers=self._endpoint.admin_metadata,
                client_timeout=timeout_s,
            )

    async def _known(self, region: Region, *, timeout_s: float) -> bool:
        """Tell whether Triton has a region: after a restart it has none."""
        try:
            with control_errors():
                status = await self._grpc.get_system_shared_memory_status(
                    region.name, headers=self._endpoint.admin_metadata, client_timeout=timeout_s
                )
        except TritonError as error:
            return isinstance(error, TritonUnreachable)
        return region.name in status.regions

    def _refuse(self, reason: str) -> None:
        self._refused = True
        log.warning("memory_not_shared", triton=self._endpoint.http_url, reason=reason)
