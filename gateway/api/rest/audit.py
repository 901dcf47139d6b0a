"""The audit log: who changed what, when, from where and why."""

from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from gateway.api.rest.dependencies import ServicesOf
from gateway.api.rest.parameters import error_responses
from gateway.metrics.times import MOMENT_PATTERN, read_moment_s
from gateway.store.tables import AuditRow

router = APIRouter(prefix="/api/v1/audit", tags=["access"])

_JSON_LINES = "application/x-ndjson"
_MOMENT = {"pattern": MOMENT_PATTERN}


class AuditResponse(BaseModel):
    """One change of state."""

    id: int = Field(description="Its number; it grows with time.")
    at: datetime = Field(description="When, UTC.")
    actor: str = Field(
        description="Who: a key by its name, `api` for anybody of an open gateway, or a part of "
        "the gateway that acts by itself.",
        examples=["key ci"],
    )
    action: str = Field(description="What.", examples=["load"])
    outcome: str = Field(description="done, or refused.")
    model: str = Field(description="Of which model; empty if of none.")
    source: str = Field(description="The caller's address.", examples=["10.0.0.7"])
    request_id: str = Field(description="The request's `X-Request-ID`.")
    details: dict[str, Any] = Field(description="Versions, reasons, evidence.")


@router.get(
    "",
    summary="Read the audit log",
    response_model=list[AuditResponse],
    responses={
        200: {"content": {_JSON_LINES: {"schema": {"type": "string"}}}},
        **error_responses(422, 503),
    },
)
async def show_audit(
    services: ServicesOf,
    start: Annotated[
        str | None, Query(description="From this moment on.", json_schema_extra=_MOMENT)
    ] = None,
    end: Annotated[
        str | None, Query(description="Up to this moment.", json_schema_extra=_MOMENT)
    ] = None,
    actor: Annotated[str | None, Query(description="Only this one's.")] = None,
    action: Annotated[str | None, Query(description="Only these.", examples=["load"])] = None,
    model: Annotated[str | None, Query(description="Only of this model.")] = None,
    after: Annotated[
        int, Query(ge=0, description="Only rows after this id, from there on; 0: the newest.")
    ] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000, description="How many at most.")] = 1000,
    format: Annotated[  # noqa: A002 - as elsewhere
        str, Query(pattern="^(json|jsonl)$", description="json, or jsonl: one object a line.")
    ] = "json",
) -> Response:
    """Show the newest changes, the oldest of them first. Nothing in the log is ever changed."""
    rows = await services.audit.read(
        after=after,
        start_s=None if start is None else read_moment_s(start),
        end_s=None if end is None else read_moment_s(end),
        actor=actor,
        action=action,
        model=model,
        limit=limit,
    )
    entries = [_entry(row).model_dump(mode="json") for row in rows]
    if format == "jsonl":
        return Response(b"".join(orjson.dumps(e) + b"\n" for e in entries), media_type=_JSON_LINES)
    return Response(orjson.dumps(entries), media_type="application/json")


def _entry(row: AuditRow) -> AuditResponse:
    action = row.action.removesuffix("_refused")
    return AuditResponse(
        id=row.id,
        at=datetime.fromtimestamp(row.at_s, UTC),
        actor=row.actor,
        action=action,
        outcome="done" if action == row.action else "refused",
        model=row.model,
        source=row.source,
        request_id=row.request_id,
        details=row.details,
    )
