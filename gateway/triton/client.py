"""
One Triton and its two ports: control over gRPC (`control.py`), inference over HTTP with connections
that are kept alive (`connections.py`). On the same host the pixels lie in shared memory
(`sharing.py`).

Source: Triton, "HTTP/REST and GRPC Protocol" (V2).
"""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import numpy as np
import numpy.typing as npt
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.triton.connections import Address, ConnectionBroken, Connections, HttpResponse
from gateway.triton.control import ControlClient
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.errors import (
    TritonError,
    TritonFailed,
    TritonUnreachable,
    forwarded_error,
    inference_error,
    says_region_unknown,
)
from gateway.triton.shared_memory import Region
from gateway.triton.sharing import MemorySharing
from gateway.triton.tensor import InputTensor
from gateway.triton.v2_protocol import (
    AnswerInvalid,
    Buffer,
    decode_answer,
    decode_error,
    describe_input,
    encode_forward,
    encode_request,
)

_MAX_CONNECTIONS = 256
_TRACE_CONTEXT = TraceContextTextMapPropagator()


class TritonClient(ControlClient):
    """Clients of one endpoint. Opened lazily; bound to the event loop that first uses it."""

    def __init__(self, endpoint: TritonEndpoint) -> None:
        super().__init__(endpoint)
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

        def write(shared: bool) -> Sequence[Buffer]:
            return encode_request(
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

        answer = await self._exchange_tensor(tensor, write, inference_error)
        try:
            return decode_answer(answer.headers, answer.body, output_name)
        except AnswerInvalid as error:
            raise TritonFailed(str(error)) from error

    async def _exchange_tensor(
        self,
        tensor: InputTensor,
        write: Callable[[bool], Sequence[Buffer]],
        error_of: Callable[[int, str], TritonError],
    ) -> HttpResponse:
        """
        Send a request with an input of ours.

        Args:
            tensor: The input.
            write: Writes the request; it is told whether to name the tensor's slot.
            error_of: Makes an error of what is answered.
        """
        shared = tensor.region is not None and tensor.region is self.region
        while True:
            try:
                answer = await self._http.exchange(write(shared), tensor.slot if shared else None)
            except ConnectionBroken as error:
                raise TritonUnreachable(str(error)) from error
            if answer.status == HTTPStatus.OK:
                return answer
            error_text = decode_error(answer.body)
            if not (shared and says_region_unknown(error_text)):
                raise error_of(answer.status, error_text)
            # Another process than the one that was told: this request is sent whole, and the
            # monitor shares memory with the new one.
            assert tensor.region is not None
            self.sharing.drop(tensor.region)
            shared = False

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

    async def forward_tensor(
        self,
        name: str,
        version: int,
        inference: Mapping[str, Any],
        *,
        input_name: str,
        input_dtype: str,
        tensor: InputTensor,
    ) -> HttpResponse:
        """
        Run an inference that is written in V2 already, on an input of ours in place of its own, and
        return the answer as it comes.

        Args:
            name, version, inference: As in `forward`.
            input_name, input_dtype, tensor: As in `infer`.

        Raises:
            TritonError: One of its classes; see there.
        """

        def write(shared: bool) -> Sequence[Buffer]:
            given, values = describe_input(input_name, input_dtype, tensor, shared=shared)
            parameters = {**inference.get("parameters", {}), **self._parameters(tensor)}
            return encode_forward(
                name,
                version,
                host=self.endpoint.http_url,
                inference={**inference, "inputs": [given], "parameters": parameters},
                values=values,
                headers=self._headers(),
            )

        return await self._exchange_tensor(tensor, write, forwarded_error)

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
