"""
One Triton and its two ports: control (load, unload, index) over gRPC, inference over HTTP with
connections that are kept alive (`connections.py`). On the same host the pixels lie in shared memory
(`sharing.py`).

Control never goes over HTTP: there a load blocks the event thread that runs it, and with it every
keep-alive connection that happens to share the thread.

Source: Triton, Model Repository Extension; tritonclient's aio client.
"""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc.aio as triton_grpc
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.triton.connections import Address, ConnectionBroken, Connections, HttpResponse
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.errors import (
    TritonFailed,
    TritonSilent,
    TritonUnreachable,
    control_errors,
    forwarded_error,
    inference_error,
)
from gateway.triton.shared_memory import Region
from gateway.triton.sharing import MemorySharing
from gateway.triton.statistics import IndexEntry, VersionStatistics, read_index, read_statistics
from gateway.triton.tensor import InputTensor
from gateway.triton.v2_protocol import (
    AnswerInvalid,
    Buffer,
    decode_answer,
    decode_error,
    encode_forward,
    encode_request,
)

_MAX_CONNECTIONS = 256
_REGION_UNKNOWN = "Unable to find shared memory region"
_TRACE_CONTEXT = TraceContextTextMapPropagator()
# Options that are given replace all of tritonclient's own, so its own are repeated here: messages
# of any size, no keepalive. New: a server that was away is tried every second at the latest; gRPC's
# default grows to two minutes.
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


class TritonClient:
    """Clients of one endpoint. Opened lazily; bound to the event loop that first uses it."""

    def __init__(self, endpoint: TritonEndpoint) -> None:
        self.endpoint = endpoint
        self._grpc = triton_grpc.InferenceServerClient(
            endpoint.grpc_url, channel_args=list(_CHANNEL.items())
        )
        self._http = Connections(Address.parse(endpoint.http_url), limit=_MAX_CONNECTIONS)
        self.sharing = MemorySharing(self._grpc, endpoint)

    async def close(self) -> None:
        """Close both pools. Triton's own stop waits for open HTTP connections, so do this first."""
        await self._http.close()
        await self.sharing.end()
        await self._grpc.close()

    @property
    def region(self) -> Region | None:
        """The memory that is shared with this Triton; None if none is."""
        return self.sharing.region

    async def share(self, size_bytes: int, *, timeout_s: float) -> None:
        """Share memory with this Triton; see `MemorySharing.share`."""
        await self.sharing.share(size_bytes, timeout_s=timeout_s)

    async def index(self, *, timeout_s: float) -> list[IndexEntry]:
        """
        Read the repository index.

        Raises:
            TritonUnreachable: No answer within `timeout_s`.
        """
        with control_errors():
            answer = await self._grpc.get_model_repository_index(
                headers=self.endpoint.admin_metadata, client_timeout=timeout_s
            )
        return read_index(answer)

    async def is_ready(self, name: str, version: int, *, timeout_s: float) -> bool:
        """
        Ask for one version, whether its files are still there or not.

        Raises:
            TritonError: It could not be asked.
        """
        with control_errors():
            ready = await self._grpc.is_model_ready(
                name, str(version), headers=self.endpoint.admin_metadata, client_timeout=timeout_s
            )
        return bool(ready)

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
                    name,
                    headers=self.endpoint.admin_metadata,
                    config=config_json,
                    client_timeout=timeout_s,
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
            await self._grpc.unload_model(
                name, headers=self.endpoint.admin_metadata, client_timeout=timeout_s
            )

    async def statistics(self, *, timeout_s: float) -> dict[tuple[str, int], VersionStatistics]:
        """
        Read what was done for every version.

        Raises:
            TritonUnreachable: No answer within `timeout_s`.
        """
        with control_errors():
            answer = await self._grpc.get_inference_statistics(
                headers=self.endpoint.admin_metadata, client_timeout=timeout_s
            )
        return read_statistics(answer)

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
                headers=self._headers(),
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
            self.sharing.drop(tensor.region)
            shared = False
        try:
            return decode_answer(answer.headers, answer.body, output_name)
        except AnswerInvalid as error:
            raise TritonFailed(str(error)) from error

    async def forward(
        self, name: str, version: int, inference: Mapping[str, Any], values: Sequence[Buffer]
    ) -> HttpResponse:
        """
        Run an inference that is written in V2 already, and return the answer as it comes.

        Args:
            name, version: The model and the version; Triton is never left to choose.
            inference: The JSON part of the request.
            values: The binary part: what the JSON part says that comes behind it.

        Raises:
            TritonError: One of its classes; see there.
        """
        asked = dict(inference)
        if self.endpoint.decodes:
            uncontended = {"uncontended": self._http.under_way == 0}
            asked["parameters"] = {**asked.get("parameters", {}), **uncontended}
        request = encode_forward(
            name,
            version,
            host=self.endpoint.http_url,
            inference=asked,
            values=values,
            headers=self._headers(),
        )
        return await self._exchange(request)

    async def get(self, path: str) -> HttpResponse:
        """
        Read what Triton says under a path of its HTTP service.

        Raises:
            TritonError: One of its classes; see there.
        """
        given = "".join(f"{name}: {value}\r\n" for name, value in self._headers().items())
        head = f"GET {path} HTTP/1.1\r\nHost: {self.endpoint.http_url}\r\n{given}\r\n"
        return await self._exchange([head.encode("latin-1")])

    async def _exchange(self, request: Sequence[Buffer]) -> HttpResponse:
        try:
            answer = await self._http.exchange(request)
        except ConnectionBroken as error:
            raise TritonUnreachable(str(error)) from error
        if answer.status != HTTPStatus.OK:
            raise forwarded_error(answer.status, decode_error(answer.body))
        return answer

    def _headers(self) -> Mapping[str, str]:
        """Open the calls that Triton restricts; name the current span, if the request is traced."""
        headers = dict(self.endpoint.admin_headers)
        if get_current_span().get_span_context().is_valid:
            _TRACE_CONTEXT.inject(headers)
        return headers

    def _parameters(self, tensor: InputTensor) -> Mapping[str, int | bool]:
        """Tell our backend what it knows to use; see `parameters.py` there."""
        if not self.endpoint.decodes:
            return {}
        return {"uncontended": self._http.under_way == 0, "encoded_bytes": tensor.encoded_bytes}


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
