"""The stored metrics, and what Prometheus reads."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, Field

from gateway.api.rest.dependencies import ServicesOf
from gateway.api.rest.metrics_parameters import (
    EXPOSITION,
    TABLE,
    End,
    Format,
    Last,
    Models,
    Start,
    Versions,
    read_group_by,
    read_range,
    read_status,
    read_step_s,
    read_versions,
)
from gateway.api.rest.parameters import error_responses
from gateway.errors import MetricsQueryInvalid
from gateway.metrics.formats import as_csv, as_parquet
from gateway.metrics.query import DIMENSIONS, QueryResult, Question, ask, describe
from gateway.metrics.times import iso, iso_ms
from gateway.services import Services
from gateway.store.metrics_writers import Gap
from gateway.store.request_metrics import Filters

router = APIRouter(tags=["metrics"])

_MAX_ROWS = 100_000


class MetricsRow(BaseModel):
    """The requests of one group in one span of time. Durations are in seconds."""

    start: str = Field(description="Beginning of the span, UTC.", examples=["2026-01-31T12:00:00Z"])
    endpoint: str | None = Field(None, description="list, load, run, …; if it was grouped by.")
    model: str | None = Field(None, description='The model; "" for none, or one not registered.')
    version: int | None = Field(None, description="The version; null for none.")
    status: int | None = Field(None, description="The HTTP status.")
    requests: int = Field(description="Requests that ended in the span.")
    rate_per_s: float = Field(description="Requests by second, over the whole span.")
    errors: int = Field(description="Of these, with a status of 400 or more.")
    server_errors: int = Field(description="Of these, with a status of 500 or more.")
    error_share: float = Field(description="errors / requests.")
    error_codes: dict[str, int] = Field(description="Requests by the error's code.")
    bytes_in: int = Field(description="Bytes of the request bodies.")
    bytes_out: int = Field(description="Bytes of the answers' bodies.")
    p50_s: float | None = Field(description="Median, within 1 %.")
    p90_s: float | None = Field(description="90th percentile, within 1 %.")
    p99_s: float | None = Field(description="99th percentile, within 1 %.")
    p999_s: float | None = Field(description="99.9th percentile, within 1 %.")
    mean_s: float | None = Field(description="Mean, exact.")
    queue_p50_s: float | None = Field(None, description="Median of the wait for a place.")
    queue_p90_s: float | None = Field(None, description="90th percentile of the wait for a place.")
    queue_p99_s: float | None = Field(None, description="99th percentile of the wait for a place.")
    queue_p999_s: float | None = Field(
        None, description="99.9th percentile of the wait for a place."
    )
    queue_mean_s: float | None = Field(None, description="Mean of the wait for a place.")
    decode_p50_s: float | None = Field(None, description="Median of decoding.")
    decode_p90_s: float | None = Field(None, description="90th percentile of decoding.")
    decode_p99_s: float | None = Field(None, description="99th percentile of decoding.")
    decode_p999_s: float | None = Field(None, description="99.9th percentile of decoding.")
    decode_mean_s: float | None = Field(None, description="Mean of decoding.")
    infer_p50_s: float | None = Field(None, description="Median in Triton.")
    infer_p90_s: float | None = Field(None, description="90th percentile in Triton.")
    infer_p99_s: float | None = Field(None, description="99th percentile in Triton.")
    infer_p999_s: float | None = Field(None, description="99.9th percentile in Triton.")
    infer_mean_s: float | None = Field(None, description="Mean in Triton.")


class GapRow(BaseModel):
    """A time of which one gateway's counts are not stored; what others counted is in the rows."""

    start: str = Field(
        description="Everything before is stored, UTC.", examples=["2026-01-31T12:00:01.500Z"]
    )
    end: str | None = Field(
        description="When the gateway that counted was killed; null if it may come back with them."
    )
    at_most_s: float | None = Field(description="The length, in seconds.", examples=[4.5])


class MetricsResponse(BaseModel):
    """The stored metrics of a time."""

    start: str = Field(description="From when, UTC.")
    end: str = Field(description="Until before when, UTC.")
    step_s: int = Field(description="Length of a row's span, in seconds.")
    group_by: list[str] = Field(description="What is told apart.")
    rows: list[MetricsRow] = Field(description="By start, then by group; only where requests were.")
    gaps: list[GapRow] = Field(
        description="What is missing: a gateway was killed, or cannot reach the database."
    )


class CategoriesRow(BaseModel):
    """What one version answered."""

    model: str = Field(description="The model.")
    version: int | None = Field(description="The version.")
    answers: int = Field(description="Answered runs.")
    categories: dict[str, int] = Field(description="Answers by category.")


class SampleRow(BaseModel):
    """One look at a version on a replica."""

    start: str = Field(description="The minute, or the hour, UTC.")
    replica: str = Field(description="Which Triton.")
    model: str = Field(description="The model.")
    version: int = Field(description="The version.")
    load_s: float | None = Field(description="How long its last load took.")
    memory_bytes: int | None = Field(description="Resident memory of its backend processes.")
    gpu_memory_bytes: int | None = Field(description="Their memory on the GPU.")
    pending: int | None = Field(description="Requests in Triton at that moment.")
    inferences: int = Field(description="Images that were answered since the look before.")
    executions: int = Field(description="Batches that these were computed in.")
    queue_s: float = Field(description="Time that requests waited in Triton's queue, added up.")
    compute_s: float = Field(description="Time that was computed, added up.")
    batch_sizes: dict[str, int] = Field(description="Executions by size of the batch.")


@router.get(
    "/api/v1/metrics",
    summary="Ask the stored metrics",
    response_model=MetricsResponse,
    responses={
        200: TABLE,
        **error_responses(422, 501, 503),
    },
)
async def metrics(
    services: ServicesOf,
    start: Start = None,
    end: End = None,
    last: Last = "1h",
    step: Annotated[
        str | None,
        Query(
            description="Length of a span: 1m, 5m, 1h, 1d …, or `all`. Default: by the range.",
            examples=["5m"],
        ),
    ] = None,
    group_by: Annotated[
        str, Query(description="Which of endpoint, model, version, status are told apart.")
    ] = ",".join(DIMENSIONS),
    endpoint: Annotated[list[str], Query(description="Only these endpoints.")] = [],  # noqa: B006 - FastAPI copies it
    model: Models = [],  # noqa: B006
    version: Versions = [],  # noqa: B006
    status: Annotated[list[str], Query(description="Only these: 200, 404, 5xx …")] = [],  # noqa: B006
    format: Annotated[Format, Query(description="How the answer is written.")] = Format.JSON,  # noqa: A002 - the contract's name
) -> Response:
    """
    Count requests, errors, bytes and durations, by span of time and group.

    Minutes, hours and days are kept for different lengths of time; an answer about what is kept by
    the hour only has rows of an hour, and says so in `step_s`. Requests that ended before the call
    are in the answer.
    """
    start_s, end_s = read_range(start, end, last)
    question = Question(
        start_s=start_s,
        end_s=end_s,
        step_s=read_step_s(step, end_s - start_s),
        group_by=read_group_by(group_by),
        filters=Filters(
            endpoints=tuple(endpoint),
            models=tuple(model),
            versions=read_versions(version),
            statuses=tuple(read_status(text) for text in status),
        ),
    )
    await services.flush_metrics()
    answer = await ask(services.metrics.requests, question)
    if len(answer.rows) > _MAX_ROWS:
        raise MetricsQueryInvalid(
            f"The answer has {len(answer.rows)} rows, more than {_MAX_ROWS}: ask for a longer step."
        )
    gaps = await services.metrics.gaps(answer.start_s, answer.end_s)
    return _written(answer, gaps, format)


@router.get(
    "/api/v1/metrics/categories",
    summary="What versions answered",
    responses=error_responses(422, 503),
)
async def metrics_categories(
    services: ServicesOf,
    start: Start = None,
    end: End = None,
    last: Last = "1h",
    model: Models = [],  # noqa: B006
    version: Versions = [],  # noqa: B006
) -> list[CategoriesRow]:
    """Count the answers of each version by category."""
    start_s, end_s = read_range(start, end, last)
    filters = Filters(
        endpoints=("run",), models=tuple(model), versions=read_versions(version), statuses=(200,)
    )
    await services.flush_metrics()
    answer = await ask(
        services.metrics.requests,
        Question(start_s, end_s, None, ("model", "version"), filters),
    )
    return [
        CategoriesRow(
            model=str(row.group[0]),
            version=int(row.group[1]) or None,
            answers=row.total.requests,
            categories=dict(sorted(row.total.categories.items())),
        )
        for row in answer.rows
    ]


@router.get(
    "/api/v1/metrics/samples", summary="Memory, loads, batches", responses=error_responses(422, 503)
)
async def metrics_samples(
    services: ServicesOf,
    start: Start = None,
    end: End = None,
    last: Last = "1h",
    model: Annotated[str | None, Query(description="Only this model.")] = None,
    version: Versions = [],  # noqa: B006
) -> list[SampleRow]:
    """Show what was sampled of each version on each replica, by minute or, once old, by hour."""
    start_s, end_s = read_range(start, end, last)
    samples = await services.metrics.samples.read(
        start_s, end_s, model=model, versions=read_versions(version)
    )
    columns = [name for name in SampleRow.model_fields if name != "start"]
    return [
        SampleRow(
            start=iso(sample.start_s), **{column: getattr(sample, column) for column in columns}
        )
        for sample in samples
    ]


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: EXPOSITION},
)
async def prometheus(request: Request, services: ServicesOf) -> Response:
    """Show the current counts, in the OpenMetrics format if the caller takes it."""
    return await exposition(services, request.headers.get("accept", ""))


async def exposition(services: Services, accept: str) -> Response:
    """Write what Prometheus reads."""
    families = await services.scrape()
    encode, content_type = choose_encoder(accept)
    return Response(encode(families), media_type=content_type)


def _written(answer: QueryResult, gaps: Sequence[Gap], form: Format) -> Response:
    rows = [_row(describe(row, answer)) for row in answer.rows]
    if form is Format.CSV:
        return Response(as_csv(rows), media_type="text/csv; charset=utf-8")
    if form is Format.PARQUET:
        return Response(as_parquet(rows), media_type="application/vnd.apache.parquet")
    body = {
        "start": iso(answer.start_s),
        "end": iso(answer.end_s),
        "step_s": answer.step_s,
        "group_by": list(answer.group_by),
        "rows": rows,
        "gaps": [_gap(gap) for gap in gaps],
    }
    return JSONResponse(body)


def _gap(gap: Gap) -> dict[str, str | float | None]:
    if gap.until_s is None:
        return {"start": iso_ms(gap.since_s), "end": None, "at_most_s": None}
    at_most_s = round(gap.until_s - gap.since_s, 3)
    return {"start": iso_ms(gap.since_s), "end": iso_ms(gap.until_s), "at_most_s": at_most_s}


def _row(named: dict[str, object]) -> dict[str, Any]:
    start_s = named.pop("start_s")
    assert isinstance(start_s, int)
    if "version" in named:
        named["version"] = named["version"] or None
    return {"start": iso(start_s), **named}
