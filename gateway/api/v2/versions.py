"""Which version a V2 call names: by a number, or by an alias where a number would be."""

from typing import Annotated

from fastapi import Depends, Path, Query, Request

from gateway.inference.pinned import Pinned, read_pinned

PathName = Annotated[str, Path(description="Name of a model.", examples=["digits"])]


# A coroutine, though it waits for nothing: the framework calls a plain function in a thread.
async def _pinned(
    request: Request,
    alias: Annotated[str | None, Query(description="An alias of the model.")] = None,
) -> Pinned:
    # Only one of a route's two paths has it.
    return read_pinned(request.path_params.get("version"), alias)


PinnedOf = Annotated[Pinned, Depends(_pinned)]
"""The version in the path, else the alias in the query."""
