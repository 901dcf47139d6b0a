"""
Triton's control calls: index, load, unload, statistics, over gRPC.

Never over HTTP: there a load blocks the event thread that runs it, and with it every keep-alive
connection that happens to share the thread.

Source: Triton, Model Repository Extension; tritonclient's aio client.
"""

import json

import tritonclient.grpc.aio as triton_grpc

from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.errors import TritonFailed, TritonSilent, control_errors
from gateway.triton.statistics import IndexEntry, VersionStatistics, read_index, read_statistics

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


class ControlClient:
    """The control calls of one endpoint. Opened lazily."""

    def __init__(self, endpoint: TritonEndpoint) -> None:
        self.endpoint = endpoint
        self._grpc = triton_grpc.InferenceServerClient(
            endpoint.grpc_url, channel_args=list(_CHANNEL.items())
        )

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
