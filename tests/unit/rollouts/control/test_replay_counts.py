"""What a replay counts, and what the analysis of a shadow makes of it."""

from types import MappingProxyType

import numpy as np
import pytest

from gateway.converter.signature import ModelSignature, TensorSignature
from gateway.registry.versions import Model, ModelVersion
from gateway.rollouts.control.replay_counts import ReplayCounts, label_for
from gateway.rollouts.live.mirror import Reply
from gateway.rollouts.live.recordings import Recorded
from gateway.rollouts.state.plan import Plan, Stage
from gateway.rollouts.statistics.verdict import Outcome

PLAN = Plan((Stage.of("shadow"),))


def reply(category: int, *, classes: int = 3, took_s: float = 0.01) -> Reply:
    return Reply(np.eye(classes, dtype=np.float32)[[category]], took_s)


def replayed(candidate: object, *, images: int = 1500, labelled: bool = False) -> ReplayCounts:
    """Ask so many: the champion is always right; `candidate` makes a reply of the true class."""
    assert callable(candidate)
    counts = ReplayCounts()
    for number in range(images):
        true = number % 3
        label = true if labelled else None
        counts.add(reply(true), candidate(true), None, label, timed=True)
    return counts


@pytest.mark.parametrize(
    ("candidate", "labelled", "outcome", "why"),
    [
        pytest.param(reply, False, Outcome.SUCCESSFUL, "", id="the same"),
        pytest.param(reply, True, Outcome.SUCCESSFUL, "", id="the same, labelled"),
        pytest.param(
            lambda true: reply((true + 1) % 3), True, Outcome.FAILED, "accuracy", id="wrong"
        ),
        pytest.param(
            lambda true: reply((true + 1) % 3),
            False,
            Outcome.INCONCLUSIVE,
            "agreement",
            id="different, and nobody says who is right",
        ),
        pytest.param(
            lambda true: None if true == 0 else reply(true),
            False,
            Outcome.FAILED,
            "error rate",
            id="failing",
        ),
        pytest.param(
            lambda true: reply(true, took_s=0.03), False, Outcome.FAILED, "latency", id="slower"
        ),
    ],
)
def test_it_is_judged_as_a_shadow(
    candidate: object, labelled: bool, outcome: Outcome, why: str
) -> None:
    """The same passes; wrong, failing and slower fail; difference alone decides nothing."""
    verdict = replayed(candidate, labelled=labelled).verdict(PLAN, now_s=1.0)
    assert verdict.outcome is outcome, verdict.sentence
    assert why in verdict.sentence


def test_too_few_decide_nothing() -> None:
    """Ninety requests are fewer than the plan's hundred, whatever they say."""
    verdict = replayed(reply, images=90).verdict(PLAN, now_s=1.0)
    assert verdict.outcome is Outcome.INCONCLUSIVE


def test_times_of_a_full_machine_are_not_compared() -> None:
    """Without room both times are left out; the answers count."""
    counts = ReplayCounts()
    counts.add(reply(1), reply(1, took_s=9.0), None, None, timed=False)
    observed = counts.step.freeze()
    assert observed.pairs.compared == 1
    assert observed.challenger.latencies.counts == {}


def test_a_request_that_both_fail_is_marked_shared() -> None:
    """It is an error of both, and compares nothing."""
    counts = ReplayCounts()
    counts.add(None, None, None, 1, timed=True)
    counts.add(reply(1), None, None, 1, timed=True)
    observed = counts.step.freeze()
    assert (observed.champion.errors, observed.challenger.errors, observed.shared) == (1, 2, 1)
    assert observed.pairs.compared == 0
    assert observed.pairs.labelled == 0


def version(number: int, *labels: str) -> ModelVersion:
    tensor = TensorSignature("image", "FP32", (-1, -1, -1, 3))
    return ModelVersion(
        model="m",
        version=number,
        digest="",
        source_digest="",
        size_bytes=0,
        signature=ModelSignature((tensor,), (tensor,), ir_version=8),
        config="",
        changes=(),
        source="",
        created_at_s=0.0,
        labels=labels,
    )


MODEL = Model(
    "m",
    "",
    MappingProxyType({1: version(1, "cat", "dog"), 2: version(2, "dog", "fox", "cat")}),
    MappingProxyType({"champion": 2}),
    frozenset(),
    MappingProxyType({}),
)


@pytest.mark.parametrize(
    ("answered_by", "label", "champions"),
    [
        pytest.param(2, 1, 1, id="of the champion"),
        pytest.param(1, 0, 2, id="cat"),
        pytest.param(1, 1, 0, id="dog"),
        pytest.param(9, 1, None, id="of a version that is gone"),
        pytest.param(1, None, None, id="not told"),
        pytest.param(1, -2, -2, id="of a class that it did not know"),
    ],
)
def test_a_label_is_translated_to_the_champions_numbers(
    answered_by: int, label: int | None, champions: int | None
) -> None:
    """The version that answered may have numbered its classes in another way."""
    assert label_for(Recorded("m", answered_by, "id", b"", label), MODEL, 2) == champions


def test_a_class_that_one_version_lacks_is_told_apart() -> None:
    """Its answers and its labels are counted, and held against nobody."""
    counts = ReplayCounts()
    classes = (0, -2)
    counts.add(reply(0), reply(1), classes, 1, timed=True)
    counts.add(reply(0), reply(0), classes, 0, timed=True)
    observed = counts.step.freeze()
    assert (observed.apart, observed.pairs.compared, observed.pairs.labelled) == (2, 1, 1)
