"""Rollouts and evaluations as they are answered: every field, and what cannot be read."""

from dataclasses import fields
from typing import Any

import pytest
from pydantic import BaseModel

from gateway.api.rest.evidence_schemas import (
    CalibrationResponse,
    ComparisonResponse,
    EvaluationDetails,
    MetricVerdictResponse,
    VerdictResponse,
)
from gateway.api.rest.rollout_answers import response_of
from gateway.rollouts.state.plan import Plan, Stage
from gateway.rollouts.state.rollout import Rollout
from gateway.rollouts.statistics.evaluation import Calibration, Comparison, Evaluation, compare
from gateway.rollouts.statistics.verdict import MetricVerdict, Outcome, Verdict
from gateway.store.rollout_tables import RolloutRow

_VERDICT = Verdict(Outcome.INCONCLUSIVE, 0, 0, 1.0, 12, (), "Too few.", number=3)
_GATE = compare([0, 1], [0, 1], [0, 0])


def _row(**changes: Any) -> RolloutRow:
    rollout = Rollout("r", "m", 1, 2, Plan((Stage.of("canary"),)), 1.0, 1.0, verdicts=(_VERDICT,))
    kept = {"state": rollout.to_json(), "gate": _GATE.to_json(), **changes}
    return RolloutRow(
        id="r",
        model="m",
        champion=1,
        challenger=2,
        phase="Progressing",
        revision=4,
        created_by="me",
        created_at_s=1.0,
        **kept,
    )


@pytest.mark.parametrize(
    ("shown", "kept"),
    [
        (VerdictResponse, Verdict),
        (MetricVerdictResponse, MetricVerdict),
        (EvaluationDetails, Evaluation),
        (CalibrationResponse, Calibration),
        (ComparisonResponse, Comparison),
    ],
)
def test_an_answer_has_every_field_of_what_is_kept(shown: type[BaseModel], kept: Any) -> None:
    """What a check or an evaluation knows is in the answer, under the same names."""
    assert list(shown.model_fields) == [field.name for field in fields(kept)]


def test_verdicts_and_the_gate_are_shown_as_they_are_stored() -> None:
    """The numbers of a check and of the evaluation set reach the answer unchanged."""
    shown = response_of(_row()).model_dump(mode="json")
    assert shown["verdicts"] == [_VERDICT.to_json()]
    assert shown["samples"] == 12
    assert shown["gate"] == _GATE.to_json()


def test_what_another_release_stored_is_left_out() -> None:
    """A gate that cannot be read is none; of a state that cannot be read the row is shown."""
    assert response_of(_row(gate={"images": "many"})).gate is None
    shown = response_of(_row(state={"reason": "It was."}))
    assert (shown.strategy, shown.verdicts) == ("unknown", [])
    assert shown.reason.endswith("It was.")
    assert shown.revision == 4
