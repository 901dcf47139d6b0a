"""What routes have in common: parameters, the errors that they list."""

from typing import Annotated, Any

from fastapi import Header, Path, Query

from gateway.api.rest.schemas import ErrorResponse

Name = Annotated[str, Query(description="Name of a model.", examples=["digits"])]
PathName = Annotated[str, Path(description="Name of a model.", examples=["digits"])]
VERSION_SCHEMA: dict[str, Any] = {"pattern": "^[1-9][0-9]{0,17}$"}
Version = Annotated[
    str | None,
    Query(
        description="A version of the model, 1 or more. Default: the champion.",
        examples=["2"],
        json_schema_extra=VERSION_SCHEMA,
    ),
]
PathVersion = Annotated[
    str,
    Path(description="A version of the model.", examples=["2"], json_schema_extra=VERSION_SCHEMA),
]
Alias = Annotated[
    str | None, Query(min_length=1, description="An alias of the model.", examples=["challenger"])
]


TopK = Annotated[
    int | None,
    Query(ge=1, le=1000, description="Answer so many of the largest scores, too.", examples=[5]),
]
Softmax = Annotated[
    bool,
    Query(
        description="With `top_k`: turn scores that are logits into probabilities. Scores that "
        "validation found to be probabilities stay as they are."
    ),
]

RolloutKey = Annotated[
    str | None,
    Header(description="Who calls: during a canary the same key stays with one version."),
]


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe a route's error answers for its OpenAPI page."""
    texts = {
        404: "No such model or version.",
        409: "Not loaded, or otherwise against the state of the server.",
        413: "The body or the image is too large.",
        422: "The request is at fault.",
        429: "Overloaded; retry after `Retry-After` seconds.",
        501: "Not possible with what is installed here.",
        502: "Triton or the model failed.",
        503: "Not available right now; retry after `Retry-After` seconds.",
        504: "No answer within the deadline.",
        507: "The disk is full; nothing was changed.",
    }
    return {status: {"model": ErrorResponse, "description": texts[status]} for status in statuses}


def zip_body(*, required: bool) -> dict[str, Any]:
    """Describe a route's body that is a zip, for its OpenAPI page."""
    schema = {"type": "string", "format": "binary", "description": "A zip."}
    content = {"application/octet-stream": {"schema": schema}}
    return {"requestBody": {"required": required, "content": content}}
