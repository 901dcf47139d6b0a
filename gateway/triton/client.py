"""
One Triton, spoken to over its two ports: control (load, unload, index) over gRPC, inference over
HTTP with connections that are kept alive (`connections.py`). On the same host the pixels lie in
memory that both share.

Control never goes over HTTP: there a load blocks the event thread that runs it, and with it every
keep-alive connection that happens to share the thread.

Source: Triton, Model Repository Extension, System-Shared-Memory Extension; tritonclient's aio
client.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import numpy as np
import numpy.typing as npt
import structlog
import tritonclient.grpc.aio as triton_grpc
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from tritonclient.utils import InferenceServerException

from gateway.triton.connections import Address, ConnectionBroken, Connections
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.errors import (
    TritonError,
    TritonFailed,
    TritonSilent,
    TritonUnreachable,
    control_errors,
    inference_error,
)
from gateway.triton.shared_memory import Region, SharedMemoryUnavailable
from gateway.triton.tensor import InputTensor
from gateway.triton.v2_protocol import AnswerInvalid, decode_answer, decode_error, encode_request

log = structlog.get_logger(__name__)

_MAX_CONNECTIONS = 256
_UNREGISTER_TIMEOUT_S = 1.0
_REGION_UNKNOWN = "Unable to find shared memory region"
_TRACE_CONTEXT = TraceContextTextMapPropagator()
# Given options take the place of tritonclient's own, so that those are said again: messages of any
# size, and no keepalive. Added is that a server which was away is tried every second at the latest;
# gRPC's default grows to two minutes.
_CHANNEL = {
    "grpc.max_send_message_length": -1,
    "grpc.max_receive_message_length": -1,
    "grpc.keepalive_time_ms": 2**31 - 1,
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.keepalive_permit_without_calls": 0,
    "grpc.http2.max_pings_without_data": 2,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 1_000,
    "grpc.max_reconnect_backoff_ms": 1_000,
}


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of Triton's repository index. `state` is "" for a version that was never loaded."""

    name: str
    version: int
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class VersionStatistics:
    """
    What Triton did for a version since its process began.

    Attributes:
        inferences, executions: Images answered, and the batches that they were computed in.
        queue_s, compute_s: Time that requests waited in Triton's queue, and were computed.
        batch_sizes: Executions by size of the batch.
    """

    inferences: int
    executions: int
    queue_s: float
    compute_s: float
    batch_sizes: Mapping[int, int]

    def since(self, before: "VersionStatistics | None") -> "VersionStatistics":
        """Subtract an earlier state; one of another process is no state of this one."""
        if before is None or before.inferences > self.inferences:
            return self
        return VersionStatistics(
            inferences=self.inferences - before.inferences,
            executions=self.executions - before.executions,
            queue_s=max(0.0, self.queue_s - before.queue_s),
            compute_s=max(0.0, self.compute_s - before.compute_s),
            batch_sizes={
                size: added
                for size, count in self.batch_sizes.items()
                if (added := count - before.batch_sizes.get(size, 0)) > 0
            },
        )


class TritonClient:
    """Clients of one endpoint. Opened lazily; bound to the event loop that first uses it."""

    def __init__(self, endpoint: TritonEndpoint) -> None:
        self.endpoint = endpoint
        self._grpc = triton_grpc.InferenceServerClient(
            endpoint.grpc_url, channel_args=list(_CHANNEL.items())
        )
        self._http = Connections(Address.parse(endpoint.http_url), limit=_MAX_CONNECTIONS)
        self.region: Region | None = None
        self._sharing = asyncio.Lock()
        self._sharing_refused = False
        self._admin = (
            {"triton-grpc-protocol-admin-key": endpoint.admin_key} if endpoint.admin_key else {}
        )

    async def close(self) -> None:
        """Close both pools. Triton's own stop waits for open HTTP connections, so do this first."""
        await self._http.close()
        if (region := self.region) is not None:
            self._drop_region(region)
            await self._unregister(region)
        await self._grpc.close()

    async def share(self, size_bytes: int, *, timeout_s: float) -> None:
        """
        Share memory with this Triton, if it is not shared already. Where that cannot be (another
        host, another user, no room), it is logged once and tensors travel in the requests.

        Args:
            size_bytes: How much; whole pages.
            timeout_s: For each of Triton's answers.
        """
        async with self._sharing:
            if self._sharing_refused:
                return
            if self.region is not None:
                if await self._knows(self.region, timeout_s=timeout_s):
                    return
                self._drop_region(self.region)
            try:
                # The kernel clears the memory: some 20 ms in which others are answered.
                region = await asyncio.to_thread(Region, size_bytes)
            except SharedMemoryUnavailable as error:
                self._refuse_sharing(str(error))
                return
            try:
                await self._register(region, size_bytes, timeout_s)
                self.region = region
            except TritonUnreachable:
                return
            except (TritonError, OSError) as error:
                self._refuse_sharing(str(error))
            finally:
                # What is mapped stays; the file is not needed again.
                region.close()

    async def _register(self, region: Region, size_bytes: int, timeout_s: float) -> None:
        with control_errors(), region.named() as key:
            await self._grpc.register_system_shared_memory(
                region.name, key, size_bytes, headers=self._admin, client_timeout=timeout_s
            )

    async def _unregister(self, region: Region) -> None:
        """
        Have Triton give the memory back, which it may outlive us by months to do. Not while it may
        still read there for a request that was given up: it would read what is no longer mapped.
        """
        if region.slots.taken_bytes:
            return
        with contextlib.suppress(InferenceServerException):
            await self._grpc.unregister_system_shared_memory(
                region.name, headers=self._admin, client_timeout=_UNREGISTER_TIMEOUT_S
            )

    def _refuse_sharing(self, reason: str) -> None:
        self._sharing_refused = True
        log.warning("memory_not_shared", triton=self.endpoint.http_url, reason=reason)

    async def _knows(self, region: Region, *, timeout_s: float) -> bool:
        """Tell whether Triton has a region: after a restart it has none."""
        try:
            with control_errors():
                status = await self._grpc.get_system_shared_memory_status(
                    region.name, headers=self._admin, client_timeout=timeout_s
                )
        except TritonError as error:
            return isinstance(error, TritonUnreachable)
        return region.name in status.regions

    def _drop_region(self, region: Region) -> None:
        # Unless another has taken its place meanwhile: several requests may bring the same news.
        if self.region is region:
            self.region = None

    async def index(self, *, timeout_s: float) -> list[IndexEntry]:
        """
        Read the repository index. Entries that are no model versions (a staging folder) are left
        out.

        Raises:
            TritonUnreachable: No answer within `timeout_s`.
        """
        with control_errors():
            answer = await self._grpc.get_model_repository_index(
                headers=self._admin, client_timeout=timeout_s
            )
        return [
            IndexEntry(entry.name, int(entry.version), entry.state, entry.reason)
            for entry in answer.models
            if entry.version.isdecimal()
        ]

    async def load(self, name: str, config_json: str, *, timeout_s: float) -> None:
        """
        Load a model with this config, whatever its config.pbtxt says. Returns when every version
        that the config names is ready.

        Raises:
            TritonFailed: A version could not be loaded, or not in time (Triton goes on with it);
                what was ready before still is.
            TritonUnreachable: There is nobody to ask.
        """
        try:
            with control_errors():
                await self._grpc.load_model(
                    name, headers=self._admin, config=config_json, client_timeout=timeout_s
                )
        except TritonSilent as error:
            raise TritonFailed(
                f"Triton was not done within {timeout_s:g} s (LOAD_TIMEOUT_S)"
            ) from error

    async def unload(self, name: str, *, timeout_s: float) -> None:
        """
        Unload every version of a model. Returns before they are gone; requests in flight finish.

        Raises:
            TritonUnreachable: No answer within `timeout_s`.
        """
        with control_errors():
            await self._grpc.unload_model(name, headers=self._admin, client_timeout=timeout_s)

    async def statistics(self, *, timeout_s: float) -> dict[tuple[str, int], VersionStatistics]:
        """
        Read what was done for every version.

        Raises:
            TritonUnreachable: No answer within `timeout_s`.
        """
        with control_errors():
            answer = await self._grpc.get_inference_statistics(client_timeout=timeout_s)
        return {
            (entry.name, int(entry.version)): VersionStatistics(
                inferences=entry.inference_count,
                executions=entry.execution_count,
                queue_s=entry.inference_stats.queue.ns / 1e9,
                compute_s=entry.inference_stats.compute_infer.ns / 1e9,
                batch_sizes={
                    batch.batch_size: batch.compute_infer.count for batch in entry.batch_stats
                },
            )
            for entry in answer.model_stats
            if entry.version.isdecimal()
        }

    async def infer(
        self,
        name: str,
        version: int,
        *,
        input_name: str,
        input_dtype: str,
        tensor: InputTensor,
        output_name: str,
        request_id: str = "",
    ) -> npt.NDArray[np.generic]:
        """
        Run one tensor through a version.

        Args:
            name, version: The model and the version; Triton is never left to choose.
            input_name, input_dtype: Of the model's one input, in Triton's spelling.
            tensor: The input. In this client's region it is only named; else it is sent.
            output_name: The output that is wanted.
            request_id: Travels with the request into Triton's log and traces.

        Returns:
            The output as Triton sent it, batch axis included; read-only.

        Raises:
            TritonError: One of its classes; see there.
        """
        shared = tensor.region is not None and tensor.region is self.region
        while True:
            request = encode_request(
                name,
                version,
                host=self.endpoint.http_url,
                input_name=input_name,
                input_dtype=input_dtype,
                tensor=tensor,
                shared=shared,
                output_name=output_name,
                request_id=request_id,
                parameters=self._parameters(tensor),
                headers=_trace_headers(),
            )
            try:
                answer = await self._http.exchange(request, tensor.slot if shared else None)
            except ConnectionBroken as error:
                raise TritonUnreachable(str(error)) from error
            if answer.status == HTTPStatus.OK:
                break
            error_text = decode_error(answer.body)
            if not (shared and _REGION_UNKNOWN in error_text):
                raise inference_error(answer.status, error_text)
            # Another process than the one that was told: this request is sent whole, and the
            # monitor shares memory with the new one.
            assert tensor.region is not None
            self._drop_region(tensor.region)
            shared = False
        try:
            return decode_answer(answer.headers, answer.body, output_name)
        except AnswerInvalid as error:
            raise TritonFailed(str(error)) from error

    def _parameters(self, tensor: InputTensor) -> Mapping[str, int | bool]:
        """Tell our backend what it knows to use; see `parameters.py` there."""
        if not self.endpoint.decodes:
            return {}
        return {"lone": self._http.under_way == 0, "encoded_bytes": tensor.encoded_bytes}


def _trace_headers() -> dict[str, str]:
    """Name the current span to Triton, if the request is traced."""
    headers: dict[str, str] = {}
    if not get_current_span().get_span_context().is_valid:
        return headers
    _TRACE_CONTEXT.inject(headers)
    return headers


def load_override(config_json: str, versions: list[int], repair: int) -> str:
    """
    Complete a config for a load: just these versions, and a mark that changes when a lost backend
    process makes a reload of every version necessary (an unchanged config would be a no-op).
    """
    config = json.loads(config_json)
    config["version_policy"] = {"specific": {"versions": versions}}
    if repair:
        config.setdefault("parameters", {})["gateway_repair"] = {"string_value": str(repair)}
    return json.dumps(config)
