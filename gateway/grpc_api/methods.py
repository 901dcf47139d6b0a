"""
The calls of the protocol: which role each asks for, and what it does. What an inference does is in
`inference/tensors.py`.

Source: Open Inference Protocol, gRPC; Triton's `grpc_service.proto`, whose messages tritonclient
ships.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import ParseDict
from tritonclient.grpc import model_config_pb2, service_pb2

from gateway import __version__
from gateway.access.headers import rollout_key
from gateway.access.roles import Role
from gateway.errors import GatewayError, ModelNotFound, ProtocolUnsupported
from gateway.grpc_api.calls import Method, Rpc
from gateway.grpc_api.messages import read_request, write_answer
from gateway.inference.describe import EXTENSIONS, repository_index
from gateway.inference.pinned import named_version, read_load, read_pinned
from gateway.registry.versions import ModelVersion


async def _live(_call: Rpc, _request: Any) -> Any:
    return service_pb2.ServerLiveResponse(live=True)


async def _ready(call: Rpc, _request: Any) -> Any:
    checks = (await call.services.health.ready()).values()
    return service_pb2.ServerReadyResponse(ready=all(check.ok for check in checks))


async def _server(_call: Rpc, _request: Any) -> Any:
    return service_pb2.ServerMetadataResponse(
        name="onnx-gateway", version=__version__, extensions=EXTENSIONS
    )


def _choose(call: Rpc, name: str, version: str) -> ModelVersion:
    pinned = read_pinned(version)
    return call.services.tensors.choose(name, version=pinned.version, alias=pinned.alias)


async def _model_ready(call: Rpc, request: Any) -> Any:
    try:
        _choose(call, request.name, request.version)
    except GatewayError:
        return service_pb2.ModelReadyResponse(ready=False)
    return service_pb2.ModelReadyResponse(ready=True)


async def _metadata(call: Rpc, request: Any) -> Any:
    chosen = _choose(call, request.name, request.version)
    said = await call.services.tensors.describe(chosen, "")
    return ParseDict(said, service_pb2.ModelMetadataResponse(), ignore_unknown_fields=True)


async def _config(call: Rpc, request: Any) -> Any:
    chosen = _choose(call, request.name, request.version)
    said = await call.services.tensors.describe(chosen, "/config")
    config = ParseDict(said, model_config_pb2.ModelConfig(), ignore_unknown_fields=True)
    return service_pb2.ModelConfigResponse(config=config)


async def _statistics(call: Rpc, request: Any) -> Any:
    tensors = call.services.tensors
    if not request.name:
        said = await tensors.statistics()
    else:
        chosen = _choose(call, request.name, request.version)
        said = await tensors.statistics(request.name, chosen.version if request.version else None)
    message = service_pb2.ModelStatisticsResponse()
    return ParseDict({"model_stats": said}, message, ignore_unknown_fields=True)


async def _infer(call: Rpc, request: Any) -> Any:
    pinned, inference = read_pinned(request.model_version), read_request(request)
    answer = await call.services.tensors.infer(
        request.model_name,
        inference,
        version=pinned.version,
        alias=pinned.alias,
        request_id=call.request_id,
        key=rollout_key(call.headers),
        share=call.services.share_of(call.caller),
        seen=call.seen,
    )
    call.telling.append(("x-model-version", str(answer.version)))
    return write_answer(answer, inference)


def streamed(request: Any, answer: Any, error: GatewayError | None) -> Any:
    """Make the message of a stream that answers one request."""
    if error is None:
        return service_pb2.ModelStreamInferResponse(infer_response=answer)
    # Clients match an error to its request by the id.
    failed = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
    return service_pb2.ModelStreamInferResponse(error_message=error.detail, infer_response=failed)


async def _index(call: Rpc, request: Any) -> Any:
    lines = repository_index(call.services.registry.catalog, call.services.replicas)
    return service_pb2.RepositoryIndexResponse(
        models=[
            service_pb2.RepositoryIndexResponse.ModelIndex(
                name=line.name, version=str(line.version), state=line.state, reason=line.reason
            )
            for line in lines
            if call.caller.sees(line.name) and (line.state == "READY" or not request.ready)
        ]
    )


def _parameters(request: Any) -> dict[str, Any]:
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
        for name, value in request.parameters.items()
    }


async def _load(call: Rpc, request: Any) -> Any:
    version = read_load(_parameters(request))
    await call.services.load(request.model_name, version, actor=call.caller.name)
    await call.services.peers.propagate()
    return service_pb2.RepositoryModelLoadResponse()


async def _unload(call: Rpc, request: Any) -> Any:
    version = named_version(_parameters(request))
    await call.services.lifecycle.unload(request.model_name, version, actor=call.caller.name)
    await call.services.peers.propagate()
    return service_pb2.RepositoryModelUnloadResponse()


async def _unsupported(call: Rpc, _request: Any) -> Any:
    raise ProtocolUnsupported(f"{call.seen.endpoint} is not offered by the gateway.")


INFER = Method(_infer, Role.INFER, "model_name")
"""Also of each request of a stream."""

UNSUPPORTED = Method(_unsupported, Role.INFER)
"""What the protocol has and the gateway has not; only callers with a key are told so."""

METHODS: Mapping[str, Method] = {
    "ServerLive": Method(_live, None),
    "ServerReady": Method(_ready, None),
    "ServerMetadata": Method(_server, None),
    "ModelReady": Method(_model_ready, Role.INFER, "name"),
    "ModelMetadata": Method(_metadata, Role.INFER, "name"),
    "ModelConfig": Method(_config, Role.INFER, "name"),
    "ModelStatistics": Method(_statistics, Role.INFER, "name", every_model=True),
    "ModelInfer": INFER,
    "ModelStreamInfer": INFER,
    "RepositoryIndex": Method(_index, Role.INFER),
    "RepositoryModelLoad": Method(_load, Role.OPERATOR, "model_name", ModelNotFound),
    "RepositoryModelUnload": Method(_unload, Role.OPERATOR, "model_name"),
    **dict.fromkeys(
        (
            "SystemSharedMemoryStatus",
            "SystemSharedMemoryRegister",
            "SystemSharedMemoryUnregister",
            "CudaSharedMemoryStatus",
            "CudaSharedMemoryRegister",
            "CudaSharedMemoryUnregister",
            "TraceSetting",
            "LogSettings",
        ),
        UNSUPPORTED,
    ),
}
"""By name. A method that a later release of tritonclient brings is unsupported, too."""
