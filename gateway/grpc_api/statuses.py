"""
The one table from errors to gRPC statuses, and from those to the HTTP statuses that are counted.

The nearest class above an error that stands in the table gives its status.

Source: google.rpc.Code, for the HTTP status that stands beside each.
"""

from collections.abc import Mapping

from grpc import StatusCode

from gateway import errors

STATUS_OF: Mapping[type[errors.GatewayError], StatusCode] = {
    errors.RequestError: StatusCode.INVALID_ARGUMENT,
    errors.NotFound: StatusCode.NOT_FOUND,
    errors.Conflict: StatusCode.FAILED_PRECONDITION,
    # Triton says so of a model that is there and not loaded.
    errors.ModelNotLoaded: StatusCode.NOT_FOUND,
    errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
    errors.Forbidden: StatusCode.PERMISSION_DENIED,
    errors.Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: StatusCode.UNAVAILABLE,
    errors.UpstreamFailed: StatusCode.INTERNAL,
    errors.DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    errors.StorageFull: StatusCode.RESOURCE_EXHAUSTED,
    errors.FormatUnavailable: StatusCode.UNIMPLEMENTED,
    errors.ProtocolUnsupported: StatusCode.UNIMPLEMENTED,
    errors.GatewayError: StatusCode.INTERNAL,
}

HTTP_STATUS_OF: Mapping[StatusCode, int] = {
    StatusCode.OK: 200,
    StatusCode.CANCELLED: 499,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.DEADLINE_EXCEEDED: 504,
    StatusCode.NOT_FOUND: 404,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.INTERNAL: 500,
    StatusCode.UNAVAILABLE: 503,
}


def status_of(error: errors.GatewayError) -> StatusCode:
    """Find an error's status: that of the nearest class in the table."""
    return next(STATUS_OF[cls] for cls in type(error).__mro__ if cls in STATUS_OF)
