"""How long a rollout will take, told before it begins."""

import asyncio
import time

from fastapi import APIRouter
from pydantic import BaseModel, Field

from gateway.api.rest.dependencies import ServicesOf
from gateway.api.rest.parameters import PathName, error_responses
from gateway.api.rest.rollout_schemas import RolloutRequest, plan_of
from gateway.metrics.query import QueryResult, Question, ask
from gateway.rollouts.control.commands import plan_or_invalid
from gateway.rollouts.state.forecast import (
    ASSUMED_DIFFERENT,
    ASSUMED_WRONG,
    KnownTraffic,
    PlanForecast,
    forecast,
    suggested_steps,
)
from gateway.rollouts.state.plan import DAY_S, Plan
from gateway.rollouts.statistics.histogram import NOTHING, Histogram, latency_bucket
from gateway.services import Services
from gateway.store.request_metrics import Filters
from gateway.telemetry.sketches import Latencies

router = APIRouter(prefix="/api/v1/models/{name}", tags=["rollouts"])

_SPAN_S = 600
_QUANTILES = 100


class ForecastStepResponse(BaseModel):
    """One step of a plan."""

    strategy: str = Field(description="Its strategy.", examples=["canary"])
    share: float = Field(description="Mirrored, or answered by the challenger, 0 to 100.")
    requests: int | None = Field(
        description="Requests to the model that it needs; null if no number decides it."
    )
    seconds: float | None = Field(description="How long they take to come; null if unknown.")
    decided_by: str = Field(
        description="What takes longest: a metric, min_samples, interval_s or labels."
    )


class RolloutForecastResponse(BaseModel):
    """What a rollout of a version that is as good as the champion takes, in the middle case."""

    requests_per_s: float = Field(
        description="What the model was asked in the last day; 0 if nothing is known."
    )
    error_rate: float = Field(description="The share of it that failed, or 0.002 if unknown.")
    steps: list[ForecastStepResponse] = Field(description="Each step, in order.")
    requests: int | None = Field(description="Of the whole rollout; null if it cannot end.")
    seconds: float | None = Field(description="How long it takes; null if that is unknown.")
    suggested_steps: list[float] | None = Field(
        description="The most careful steps of the canary with which it ends within `deadline_s`."
    )
    notes: list[str] = Field(description="What was assumed, and what would help.")


@router.post(
    "/rollout-plan", summary="Forecast a rollout", responses=error_responses(404, 422, 503)
)
async def forecast_rollout(
    services: ServicesOf, name: PathName, body: RolloutRequest
) -> RolloutForecastResponse:
    """
    Tell how many requests and seconds each step of a plan takes, from the model's own traffic.
    Nothing is begun.
    """
    plan = plan_or_invalid(lambda: plan_of(body))
    (await services.registry.refresh()).model(name).version(body.version)
    traffic = await _traffic_of(services, name)
    # Hundreds of evaluations of the analysis; requests go on meanwhile.
    found, suggested = await asyncio.to_thread(
        lambda: (forecast(plan, traffic), suggested_steps(plan, traffic))
    )
    return RolloutForecastResponse(
        requests_per_s=traffic.requests_per_s,
        error_rate=traffic.error_rate,
        steps=[
            ForecastStepResponse(
                strategy=step.strategy,
                share=step.share,
                requests=step.requests,
                seconds=step.seconds,
                decided_by=step.decided_by,
            )
            for step in found.steps
        ],
        requests=found.requests,
        seconds=found.seconds,
        suggested_steps=None if suggested is None else list(suggested),
        notes=_notes(plan, traffic, found),
    )


async def _traffic_of(services: Services, name: str) -> KnownTraffic:
    """Read what a model was asked in the last day, from its first request in it."""
    now_s = int(time.time())
    question = Question(
        start_s=now_s - int(DAY_S),
        end_s=now_s,
        step_s=_SPAN_S,
        group_by=("endpoint",),
        filters=Filters(models=(name,)),
    )
    return known_traffic(await ask(services.metrics.requests, question), now_s)


def known_traffic(answer: QueryResult, now_s: float) -> KnownTraffic:
    """Sum up the requests that versions answered, or failed; a caller's mistakes are left out."""
    rows = [row for row in answer.rows if "infer" in row.total.latencies]
    statuses = [pair for row in rows for pair in row.total.statuses.items()]
    failed = sum(count for status, count in statuses if status >= 500)
    asked = failed + sum(count for status, count in statuses if status < 400)
    if not asked:
        return KnownTraffic()
    # Of the spans that are told apart the busiest says how long requests take.
    busiest = max(rows, key=lambda row: row.total.requests)
    return KnownTraffic(
        requests_per_s=asked / max(now_s - min(row.start_s for row in rows), 1.0),
        error_rate=min(failed / asked, 0.5),
        latencies=_shares(busiest.total.latencies.get("total")),
    )


def _shares(latencies: Latencies | None) -> Histogram:
    counts: dict[int, float] = {}
    for place in range(_QUANTILES):
        value_s = None if latencies is None else latencies.quantile_s((place + 0.5) / _QUANTILES)
        if value_s is None:
            return NOTHING
        bucket = latency_bucket(value_s)
        counts[bucket] = counts.get(bucket, 0.0) + 1 / _QUANTILES
    return Histogram(counts)


def _notes(plan: Plan, traffic: KnownTraffic, found: PlanForecast) -> list[str]:
    assumed = (
        "This is the middle case for a version as good as the champion: half of all rollouts take "
        f"longer. Assumed: {ASSUMED_DIFFERENT:.0%} of its answers differ, {ASSUMED_WRONG:.0%} of "
        "the champion's are wrong, and requests name no caller."
    )
    notes = [assumed]
    if not traffic.requests_per_s:
        notes.append("The model had no traffic in the last day, so nothing is said of the time.")
    if plan.labels is None:
        notes.append(
            "The plan expects no labels. If the model gets feedback, accuracy must be shown too: "
            "say `labels` to have that counted in."
        )
    late = [step for step in found.steps if step.seconds is None or step.seconds > plan.deadline_s]
    if late and traffic.requests_per_s:
        step = late[0]
        notes.append(
            f"The {step.strategy} step of {step.share:g} % would not be decided within "
            f"{plan.deadline_s:,.0f} s, because of {step.decided_by}: take larger steps, a shadow "
            "first, more labels, or a larger tolerance."
        )
    return notes
