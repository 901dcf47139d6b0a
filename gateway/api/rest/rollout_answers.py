"""Rollouts as the routes answer them."""

import math
from datetime import UTC, datetime

from pydantic import ValidationError

from gateway.api.rest.evidence_schemas import ComparisonResponse, VerdictResponse
from gateway.api.rest.rollout_schemas import RolloutResponse, StageRequest
from gateway.errors import RolloutInvalid
from gateway.rollouts.state.rollout import Rollout
from gateway.rollouts.statistics.evaluation import Comparison
from gateway.store.rollout_tables import RolloutRow


def response_of(row: RolloutRow) -> RolloutResponse:
    """Show a rollout; of a state that cannot be read, what the row itself says."""
    try:
        rollout = Rollout.from_json(row.state)
    except (ValidationError, RolloutInvalid):
        return _unreadable(row)
    last = rollout.verdicts[-1] if rollout.verdicts and rollout.live else None
    due = last is not None and last.more_s is not None
    return RolloutResponse(
        id=rollout.id,
        model=rollout.model,
        champion=rollout.champion,
        challenger=rollout.challenger,
        version=rollout.challenger,
        strategy=rollout.current_stage.strategy,
        stages=[
            StageRequest(strategy=stage.strategy.value, steps=list(stage.steps))
            for stage in rollout.plan.stages
        ],
        phase=rollout.phase,
        waits_for=rollout.waits_for,
        paused=rollout.paused,
        weight=rollout.weight,
        mirror_share=rollout.mirror_share,
        stage=rollout.stage,
        step=rollout.step,
        samples=rollout.verdicts[-1].samples if rollout.verdicts else 0,
        reason=rollout.reason,
        verdicts=[VerdictResponse.model_validate(each) for each in rollout.verdicts],
        failed_checks=rollout.failed_checks,
        due_at=utc(last.at_s + (last.more_s or 0.0)) if last is not None and due else None,
        notice="" if last is None else last.notice,
        warnings=list(rollout.warnings),
        gate=_gate_of(row),
        created_by=row.created_by,
        created_at=utc(rollout.created_at_s),
        step_started_at=utc(rollout.step_started_at_s),
        deadline_at=utc(rollout.deadline_at_s),
        finished_at=None if rollout.finished_at_s is None else utc(rollout.finished_at_s),
        revision=rollout.revision,
    )


def _unreadable(row: RolloutRow) -> RolloutResponse:
    reason = row.state.get("reason")
    return RolloutResponse(
        id=row.id,
        model=row.model,
        champion=row.champion,
        challenger=row.challenger,
        version=row.challenger,
        strategy="unknown",
        stages=[],
        phase=row.phase,
        waits_for=None,
        paused=False,
        weight=0.0,
        mirror_share=0.0,
        stage=0,
        step=0,
        samples=0,
        reason=f"Its stored state cannot be read. {reason if isinstance(reason, str) else ''}",
        verdicts=[],
        failed_checks=0,
        due_at=None,
        notice="",
        warnings=["The stored state of this rollout cannot be read."],
        gate=_gate_of(row),
        created_by=row.created_by,
        created_at=utc(row.created_at_s),
        step_started_at=utc(row.created_at_s),
        deadline_at=utc(row.created_at_s),
        finished_at=None if row.finished_at_s is None else utc(row.finished_at_s),
        revision=row.revision,
    )


def _gate_of(row: RolloutRow) -> ComparisonResponse | None:
    """Show what let the rollout begin; nothing of what cannot be read."""
    if row.gate is None:
        return None
    try:
        return ComparisonResponse.model_validate(Comparison.from_json(row.gate))
    except ValidationError:
        return None


def utc(at_s: float) -> datetime:
    """A time in Unix seconds; one that the calendar does not have becomes its last day."""
    last = datetime.max.replace(tzinfo=UTC)
    if not math.isfinite(at_s) or at_s >= last.timestamp():
        return last
    return datetime.fromtimestamp(max(0.0, at_s), UTC)
