"""
The two messages of `grpc.health.v1`. They are made here because the package that ships them wants a
protobuf of its own generation, and others of ours want another.

Source: gRPC, `grpc/health/v1/health.proto`.
"""

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

UNKNOWN, SERVING, NOT_SERVING, SERVICE_UNKNOWN = range(4)
_STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
SERVICE = "grpc.health.v1.Health"


def _messages() -> tuple[Any, Any]:
    file = FileDescriptorProto(
        name="grpc/health/v1/health.proto", package="grpc.health.v1", syntax="proto3"
    )
    one = {"number": 1, "label": FieldDescriptorProto.LABEL_OPTIONAL}
    request = file.message_type.add(name="HealthCheckRequest")
    request.field.add(name="service", type=FieldDescriptorProto.TYPE_STRING, **one)
    response = file.message_type.add(name="HealthCheckResponse")
    values = response.enum_type.add(name="ServingStatus").value
    for number, name in enumerate(_STATUSES):
        values.add(name=name, number=number)
    response.field.add(
        name="status",
        type=FieldDescriptorProto.TYPE_ENUM,
        type_name=".grpc.health.v1.HealthCheckResponse.ServingStatus",
        **one,
    )
    # A pool of its own: the process may hold the package's messages, too.
    pool = DescriptorPool()
    pool.Add(file)
    found = (
        pool.FindMessageTypeByName(f"{file.package}.{each.name}") for each in (request, response)
    )
    made_request, made_response = map(GetMessageClass, found)
    return made_request, made_response


HealthCheckRequest, HealthCheckResponse = _messages()
