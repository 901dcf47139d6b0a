"""
The shortest way through the framework for the one call that counts.

A `run` as the original contract knows it has no parameters and a body of one string. The general
machinery (dependencies, validation, serialisation) takes longer for it than Triton for a small
image, so such a request is read here. Anything else about it, from a query to a misspelt field, and
the general way takes over, with its validation and its error messages; both end in the same
function of `serving.py`.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from gateway.api.base64_image import decode_base64

Answer = Callable[[Request, str, bytes], Awaitable[Response]]
"""Answers a run of a model (its name) on an image (the file's bytes)."""


def run_route(answer: Answer) -> type[APIRoute]:
    """Make the class of the route whose plain requests `answer` takes."""

    class RunRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            general = super().get_route_handler()

            async def handle(request: Request) -> Response:
                image = await _plain_image(request)
                if image is None:
                    return await general(request)
                return await answer(request, request.path_params["name"], image)

            return handle

    return RunRoute


async def _plain_image(request: Request) -> bytes | None:
    """Read the image of a request that has nothing else; None if there is more to be said."""
    if not _plain(request):
        return None
    try:
        asked = orjson.loads(await request.body())
        if (
            isinstance(asked, dict)
            and asked.keys() == {"image"}
            and isinstance(asked["image"], str)
        ):
            return decode_base64(asked["image"])
    except (ValueError, ClientDisconnect):
        # The general way says what is wrong, or that there is nobody to tell.
        pass
    return None


def _plain(request: Request) -> bool:
    headers = request.headers
    content_type = headers.get("content-type", "application/json")
    # A body of unknown length is limited while it is read: by the general way.
    return (
        not request.scope["query_string"]
        and "content-length" in headers
        and (content_type == "application/json" or content_type.startswith("application/json;"))
    )
