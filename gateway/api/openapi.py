"""
The OpenAPI document: what the framework derives from the routes, completed by what holds for all of
them.

Every answer has its headers, every error the one shape and an example for each code. What any
request may be answered (a redirection, 400, 405 …) is described once and named by each operation.
"""

import inspect
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from gateway import errors
from gateway.api.errors import status_of_class

_OURS = "#/components/schemas/ErrorResponse"
_FRAMEWORKS = "#/components/schemas/HTTPValidationError"
_TEXTS = {
    400: "What came is no HTTP request.",
    401: "No key, or one that is not in force.",
    403: "The key does not allow it.",
    404: "There is no such thing.",
    405: "The path has other methods: `Allow` names them.",
    408: "The request did not come in time.",
    409: "The state of the server forbids it.",
    413: "The body or the image is too large.",
    415: "The body's content type is not understood.",
    421: "The gateway is not meant to be called by this host name.",
    422: "The request is at fault.",
    429: "Overloaded: retry after `Retry-After` seconds.",
    431: "The request's headers are too large.",
    500: "A fault of the gateway.",
    501: "Not possible with what is installed here.",
    502: "Triton or the model failed.",
    503: "Not available right now: retry after `Retry-After` seconds.",
    504: "No answer within the deadline.",
    507: "The disk is full; nothing was changed.",
}
_ANY_REQUEST = (400, 401, 403, 404, 405, 408, 421, 429, 431, 500, 503)
# Of what is refused before a route is found.
_CODES = {
    400: "http_invalid",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    422: "request_invalid",
    431: "headers_too_large",
    500: "internal_error",
}
_HEADERS = {
    "X-Request-ID": "The request's id: the caller's, or a new one.",
    "X-Model-Version": "The version that answered.",
    "Server-Timing": "How long each stage took, in milliseconds.",
    "Retry-After": "After how many seconds to try again.",
    "Allow": "The methods of the path.",
    "Location": "The path without the slash at its end, or with it.",
    "WWW-Authenticate": "How to bring a key.",
    "ETag": "The alias's generation, for `If-Match`.",
}
_OF_STATUS = {
    307: ("Location",),
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
_OF_OPERATION = {
    "run_model": ("X-Model-Version", "Server-Timing"),
    "v2_infer": ("X-Model-Version", "Server-Timing"),
    "v2_infer_version": ("X-Model-Version", "Server-Timing"),
    "move_alias": ("ETag",),
}
_REQUEST_ID = "5f0c7a5b1f4f4f0e9d6f3a8f6f2b9c1d"
_METHODS = {"get", "put", "post", "delete", "patch", "head", "options"}


def describe(app: FastAPI) -> None:
    """Have an app give out the complete document; it is made when it is first asked for."""
    derive = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            complete(derive())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def operation_id(route: APIRoute) -> str:
    """Name an operation: by its function, and by what its path adds where a function has two."""
    if route.path.startswith("/api/v1/models/{name}/rollouts/{rollout}"):
        return f"{route.name}_of_model"
    if route.path.startswith("/v2/models/{name}/versions/{version}"):
        return f"{route.name}_version"
    return route.name


def complete(document: dict[str, Any]) -> None:
    """Complete a document of the framework's, in place."""
    components = document["components"]
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    components["headers"] = {
        name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()
    }
    examples = _examples()
    components["responses"] = {
        _key(status): _error(status, examples[status]) for status in _TEXTS
    } | {_key(307): {"description": "The path differs by a slash.", "headers": _headers(307)}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method in _METHODS:
                _complete(path, operation)


def _complete(path: str, operation: dict[str, Any]) -> None:
    _name_path_parameters(path, operation)
    for parameter in operation["parameters"]:
        parameter["schema"] = _without_null(parameter["schema"])
    found = operation["responses"]
    expected = {str(status) for status in (307, *_ANY_REQUEST)}
    if "requestBody" in operation:
        expected |= {"413"}
    if "requestBody" in operation or operation.get("parameters"):
        expected |= {"422"}
    ours = {status for status, response in found.items() if _is_error(response)}
    for status, response in found.items():
        if status not in ours:
            more = _OF_OPERATION.get(operation["operationId"], ()) if status < "3" else ()
            response["headers"] = _headers(int(status), *more)
    found |= {status: _reference(status) for status in ours | (expected - found.keys())}
    operation["responses"] = dict(sorted(found.items()))


def _name_path_parameters(path: str, operation: dict[str, Any]) -> None:
    """Add the parameter that only one of a function's two paths has: the version of V2."""
    parameters = operation.setdefault("parameters", [])
    named = {each["name"] for each in parameters if each["in"] == "path"}
    if "{version}" in path and "version" not in named:
        parameters.append(
            {
                "name": "version",
                "in": "path",
                "required": True,
                "description": "A version of the model, or an alias.",
                "schema": {
                    "type": "string",
                    "pattern": "^([1-9][0-9]{0,17}|[A-Za-z_][A-Za-z0-9_.-]{0,62})$",
                    "examples": ["1"],
                },
            }
        )


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave out the type of a parameter that is not given: nothing in a URL or a header is null."""
    types = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(types) != 1:
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**types[0], **rest}


def _is_error(response: dict[str, Any]) -> bool:
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return schema.get("$ref") in {_OURS, _FRAMEWORKS}


def _key(status: int | str) -> str:
    return f"Answer{status}"


def _reference(status: str) -> dict[str, str]:
    return {"$ref": f"#/components/responses/{_key(status)}"}


def _headers(status: int, *more: str) -> dict[str, Any]:
    names = ("X-Request-ID", *_OF_STATUS.get(status, ()), *more)
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _error(status: int, examples: dict[str, str]) -> dict[str, Any]:
    return {
        "description": _TEXTS[status],
        "headers": _headers(status),
        "content": {
            "application/json": {
                "schema": {"$ref": _OURS},
                "examples": {
                    code: {
                        "value": {"detail": detail, "code": code, "request_id": _REQUEST_ID},
                    }
                    for code, detail in sorted(examples.items())
                },
            }
        },
    }


def _examples() -> dict[int, dict[str, str]]:
    """Find, for each status, the codes that come with it and what they mean."""
    found: dict[int, dict[str, str]] = {
        status: {_CODES[status]: _TEXTS[status]} if status in _CODES else {} for status in _TEXTS
    }
    for error in _classes(errors.GatewayError):
        code = error.__dict__.get("code")
        if code is not None:
            meaning = (inspect.getdoc(error) or "").split("\n\n", maxsplit=1)[0]
            found[status_of_class(error)][code] = " ".join(meaning.split())
    return found


def _classes(base: type[errors.GatewayError]) -> Iterator[type[errors.GatewayError]]:
    for error in base.__subclasses__():
        yield error
        yield from _classes(error)
