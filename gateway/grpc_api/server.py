"""
The gRPC server. Several workers listen on one port (SO_REUSEPORT), and the kernel shares
connections out among them.

Source: gRPC core's `grpc_types.h`, for the options of a server.
"""

import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import structlog
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.trace import Tracer
from tritonclient.grpc import service_pb2

from gateway.grpc_api.calls import Calls
from gateway.grpc_api.health import Health
from gateway.grpc_api.methods import INFER, METHODS, UNSUPPORTED, streamed
from gateway.services import Services
from gateway.settings import Settings
from gateway.tls import Certificates

log = structlog.get_logger(__name__)

DEFAULT_PORT = 8001
_SERVICE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
# Calls that neither run nor wait for a place: health, metadata.
_OTHER_CALLS = 64


class GrpcPortTaken(Exception):
    """The port that the settings name is in use."""


def reserve_port(settings: Settings) -> socket.socket | None:
    """
    Keep the port of gRPC for this gateway's processes, for as long as the socket is open. It does
    not listen: they do.

    Returns:
        None if gRPC is turned off.

    Raises:
        GrpcPortTaken: The settings name a port, and somebody listens there.
    """
    if settings.grpc_port == 0:
        return None
    if settings.grpc_port is not None:
        return _reserve(settings.host, settings.grpc_port)
    try:
        return _reserve(settings.host, DEFAULT_PORT)
    except GrpcPortTaken:
        return _reserve(settings.host, 0)


def _reserve(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as look:
            # A socket that others may share would be bound beside another gateway's.
            look.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            look.bind((host, port))
            port = look.getsockname()[1]
        reserved = socket.socket(family, socket.SOCK_STREAM)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((host, port))
    except OSError as error:
        raise GrpcPortTaken(
            f"Cannot listen on {host}:{port} for gRPC: {error.strerror}. Choose another port, for "
            "example GRPC_PORT=8101, or none: GRPC_PORT=0."
        ) from error
    reserved.set_inheritable(False)
    return reserved


@contextlib.asynccontextmanager
async def serving_grpc(
    services: Services,
    settings: Settings,
    tracer: Tracer | None,
    certificates: Certificates | None = None,
) -> AsyncIterator[None]:
    """
    Serve gRPC for the length of a block, if the settings say a port; at its end calls under way are
    finished within `shutdown_grace_s`.
    """
    if not settings.grpc_port:
        yield
        return
    most = settings.max_concurrent_runs + settings.max_waiting_runs + _OTHER_CALLS
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", settings.max_body_bytes),
            ("grpc.max_send_message_length", -1),
        ],
        maximum_concurrent_rpcs=most,
    )
    calls = Calls(services, tracer)
    inference = grpc.method_handlers_generic_handler(_SERVICE.full_name, _handlers(calls))
    server.add_generic_rpc_handlers([inference, Health(services).handlers()])
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.grpc_port}"
    if certificates is None:
        server.add_insecure_port(address)
    else:
        server.add_secure_port(address, _credentials(certificates))
    await server.start()
    log.info("grpc_serving", address=address)
    try:
        yield
    finally:
        await server.stop(settings.shutdown_grace_s)


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Show the certificates of the moment to each new connection."""

    def configured() -> Any:
        shown = certificates.shown
        pairs = [(shown.key, shown.certificate)]
        return grpc.ssl_server_certificate_configuration(pairs, shown.client_ca)

    return grpc.dynamic_ssl_server_credentials(
        configured(),
        configured,
        require_client_authentication=certificates.files.client_ca is not None,
    )


def _handlers(calls: Calls) -> dict[str, Any]:
    handlers = {}
    for method in _SERVICE.methods:
        kinds = {
            "request_deserializer": GetMessageClass(method.input_type).FromString,
            "response_serializer": GetMessageClass(method.output_type).SerializeToString,
        }
        if method.client_streaming:
            handler = calls.streaming("ModelInfer", INFER, streamed)
            handlers[method.name] = grpc.stream_stream_rpc_method_handler(handler, **kinds)
        else:
            answered = METHODS.get(method.name, UNSUPPORTED)
            handlers[method.name] = grpc.unary_unary_rpc_method_handler(
                calls.unary(method.name, answered), **kinds
            )
    return handlers
