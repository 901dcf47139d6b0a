"""Who may call what over gRPC: every method, really called, by every kind of caller."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from grpc import StatusCode
from tritonclient.grpc import service_pb2

from gateway.access.roles import Role
from gateway.grpc_api.health_messages import HealthCheckRequest, HealthCheckResponse
from gateway.grpc_api.methods import METHODS, UNSUPPORTED
from tests.contract.gate import GHOST, KINDS, MINE, ROLE_OF, Gate

SERVICE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
NAMES = sorted(method.name for method in SERVICE.methods)
REFUSED = {StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED}


@pytest.fixture(scope="module")
def channel(gate: Gate) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(gate.grpc) as opened:
        yield opened


def called(channel: grpc.Channel, name: str, model: str, key: str | None) -> tuple[Any, str]:
    """Call a method about a model; return the status and what it says."""
    method = SERVICE.methods_by_name[name]
    asked = GetMessageClass(method.input_type)()
    if METHODS[name].model:
        setattr(asked, METHODS[name].model, model)
    serializers = {
        "request_serializer": type(asked).SerializeToString,
        "response_deserializer": GetMessageClass(method.output_type).FromString,
    }
    path = f"/{SERVICE.full_name}/{name}"
    options: dict[str, Any] = {"timeout": 30.0}
    if key is not None:
        options["metadata"] = [("authorization", f"Bearer {key}")]
    try:
        if method.client_streaming:
            (answer,) = channel.stream_stream(path, **serializers)(iter([asked]), **options)
            return StatusCode.OK, answer.error_message
        channel.unary_unary(path, **serializers)(asked, **options)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return StatusCode.OK, ""


@pytest.mark.parametrize("name", NAMES)
def test_every_method_lets_in_whom_it_should(gate: Gate, channel: grpc.Channel, name: str) -> None:
    """No key, an expired, revoked or wrong one; too low a role; a model of others; all others."""
    gate.load()
    method = METHODS[name]
    streams = SERVICE.methods_by_name[name].client_streaming
    for kind in KINDS:
        status, said = called(channel, name, MINE, gate.keys[kind] if kind else None)
        role = ROLE_OF.get(kind or "")
        if method.who is None:
            assert status is StatusCode.OK, kind
        elif role is None:
            # A stream answers each request by a message.
            refused = "key" in said if streams else status is StatusCode.UNAUTHENTICATED
            assert refused, (kind, status, said)
        elif not role.includes(method.who):
            assert status is StatusCode.PERMISSION_DENIED, (kind, said)
        elif kind == "infer for another" and method.model:
            ghost, ghost_said = called(channel, name, GHOST, gate.keys[kind])
            assert (status, said) == (ghost, ghost_said.replace(GHOST, MINE)), kind
            assert MINE in said or status is StatusCode.OK
        else:
            assert status not in REFUSED, (kind, said)
            assert (status is StatusCode.UNIMPLEMENTED) == (method is UNSUPPORTED), (kind, said)
            # It came as far as to miss the inference's inputs.
            assert not streams or "input" in said, (kind, said)


def test_statistics_of_all_models_are_for_keys_of_all_models(
    gate: Gate, channel: grpc.Channel
) -> None:
    """A call that names no model is about all of them."""
    statuses = {
        kind: called(channel, "ModelStatistics", "", gate.keys[kind])[0] for kind in gate.keys
    }
    assert {kind for kind, status in statuses.items() if status is StatusCode.OK} == {
        "operator",
        "admin",
    }


def test_every_method_of_the_service_states_its_role() -> None:
    """Who takes a release of the protocol with a new method says who may call it."""
    assert set(METHODS) == set(NAMES)
    assert {method.who for method in METHODS.values()} <= {None, *Role}


def test_health_needs_no_key_and_tells_strangers_of_no_model(
    gate: Gate, channel: grpc.Channel
) -> None:
    """The gateway's own health is open; a model's is for callers who see it."""
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    check(HealthCheckRequest(), timeout=30.0)
    for kind in KINDS:
        key = [] if kind is None else [("x-api-key", gate.keys[kind])]
        asked = HealthCheckRequest(service=MINE)
        if kind in {"infer", "operator", "admin"}:
            check(asked, metadata=key, timeout=30.0)
        else:
            with pytest.raises(grpc.RpcError) as refused:
                check(asked, metadata=key, timeout=30.0)
            assert refused.value.code() is StatusCode.NOT_FOUND, kind
