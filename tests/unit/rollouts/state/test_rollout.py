import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.errors import RolloutConflict, RolloutInvalid
from gateway.rollouts.state.plan import Labels, Plan, Stage
from gateway.rollouts.state.rollout import (
    Action,
    MoveAlias,
    Phase,
    Rollout,
    SetRoute,
    WaitsFor,
    actions_for,
)
from gateway.rollouts.state.transitions import (
    advance,
    begin,
    pause,
    promote,
    promoted,
    provider_failed,
    refused,
    resume,
    roll_back,
    skip_step,
)
from gateway.rollouts.statistics.metrics import DEFAULT_METRICS, Metric, MetricName
from gateway.rollouts.statistics.verdict import MetricVerdict, Outcome, Verdict

CHAIN = Plan(stages=(Stage.of("shadow"), Stage.of("canary")), interval_s=10, deadline_s=100)


def start(plan: Plan = CHAIN, now: float = 0.0) -> Rollout:
    rollout, _ = begin(rollout_id="r", model="m", champion=1, challenger=2, plan=plan, now=now)
    return rollout


def verdict(rollout: Rollout, outcome: Outcome, *, held: bool = False) -> Verdict:
    return Verdict(
        outcome,
        rollout.stage,
        rollout.step,
        1.0,
        500,
        (),
        f"It is {outcome}.",
        number=rollout.checks + 1,
        held=held,
    )


def say(
    rollout: Rollout, outcome: Outcome, after_s: float = 10.0, *, held: bool = False
) -> tuple[Rollout, Sequence[Action]]:
    return advance(rollout, verdict(rollout, outcome, held=held), 1.0, elapsed_s=after_s)


def weights_until_the_end(rollout: Rollout) -> list[float]:
    weights = [rollout.weight]
    while rollout.phase is Phase.PROGRESSING:
        rollout, _ = say(rollout, Outcome.SUCCESSFUL)
        weights.append(rollout.weight)
    assert rollout.phase is Phase.PROMOTING
    return weights


def test_accuracy_that_a_check_has_shown_is_remembered() -> None:
    """It stays shown in the steps that follow, in which a few labels may not show it again."""
    rollout = start()
    shown = MetricVerdict(
        "accuracy", Outcome.SUCCESSFUL, 0.9, 0.9, 0.01, 80, 80, 1.0, 0.04, True, "It is as good."
    )
    passed = replace(verdict(rollout, Outcome.SUCCESSFUL), metrics=(shown,))
    rollout, _ = advance(rollout, passed, 1.0, elapsed_s=10.0)
    assert rollout.accuracy_shown
    rollout, _ = say(rollout, Outcome.INCONCLUSIVE)
    assert rollout.accuracy_shown
    assert Rollout.from_json(rollout.to_json()).accuracy_shown


def test_successful_steps_lead_to_promotion() -> None:
    """Shadow, then each weight in order; 100 is reached by moving the alias."""
    assert weights_until_the_end(start()) == [0, 1, 5, 25, 50, 50]


def test_begin_mirrors_before_it_splits() -> None:
    """A rollout that begins in shadow copies every request and answers none from the challenger."""
    rollout, actions = begin(rollout_id="r", model="m", champion=1, challenger=2, plan=CHAIN, now=0)
    (action,) = actions
    assert isinstance(action, SetRoute)
    assert (action.route.weight, action.route.mirror_share) == (0, 100)
    assert action.route.salt == rollout.id


def test_promotion_ends_when_the_alias_has_moved() -> None:
    """Promoting asks for the alias; only its move makes it Succeeded and the weight 100."""
    rollout, actions = promote(start(), "Ann says so.")
    assert actions[-1] == MoveAlias("m", 1, 2)
    rollout, actions = promoted(rollout, 5)
    assert (rollout.phase, rollout.weight, rollout.finished_at_s) == (Phase.SUCCEEDED, 100, 5)
    (action,) = actions
    assert isinstance(action, SetRoute)
    assert action.route.champion == 2


def test_refused_alias_fails_the_rollout() -> None:
    """If someone else has moved the alias, the rollout is Failed and the weight 0."""
    rollout, _ = promote(start(), "Ann says so.")
    rollout, _ = refused(rollout, 5, "The champion is version 3 by now.")
    assert (rollout.phase, rollout.weight) == (Phase.FAILED, 0)


@pytest.mark.parametrize("hold", ["paused", "waiting", "free"])
def test_failed_verdict_ends_it_at_once(hold: str) -> None:
    """A Failed verdict takes all traffic away, also while a human holds the rollout."""
    rollout = start(Plan(stages=(Stage.of("canary"),), deadline_s=100))
    if hold == "paused":
        rollout, _ = pause(rollout)
    if hold == "waiting":
        rollout, _ = say(rollout, Outcome.INCONCLUSIVE, 100)
        assert rollout.phase is Phase.WAITING
    rollout, actions = say(rollout, Outcome.FAILED)
    assert (rollout.phase, rollout.weight, rollout.reason) == (Phase.FAILED, 0, "It is Failed.")
    (action,) = actions
    assert isinstance(action, SetRoute)
    assert action.route.challenger is None


def test_threshold_counts_failed_checks_over_all_steps() -> None:
    """Failed checks only add up: with a threshold of two the second ends it, steps later."""
    rollout = start(Plan(stages=(Stage.of("canary"),), threshold=2))
    rollout, _ = say(rollout, Outcome.FAILED)
    assert (rollout.phase, rollout.weight) == (Phase.PROGRESSING, 1)
    rollout, _ = say(rollout, Outcome.SUCCESSFUL)
    assert rollout.weight == 5
    rollout, _ = say(rollout, Outcome.FAILED)
    assert rollout.phase is Phase.FAILED


def test_no_data_waits_at_the_deadline_and_goes_on_by_itself() -> None:
    """Inconclusive is no failure and no success; what waits for evidence goes on when it comes."""
    rollout = start()
    for _ in range(9):
        rollout, actions = say(rollout, Outcome.INCONCLUSIVE)
        assert rollout.phase is Phase.PROGRESSING
        assert not actions
    rollout, _ = say(rollout, Outcome.INCONCLUSIVE)
    assert (rollout.phase, rollout.waits_for) == (Phase.WAITING, WaitsFor.EVIDENCE)
    rollout, _ = say(rollout, Outcome.INCONCLUSIVE)
    assert rollout.phase is Phase.WAITING
    rollout, _ = say(rollout, Outcome.SUCCESSFUL)
    assert (rollout.phase, rollout.stage, rollout.waits_for) == (Phase.PROGRESSING, 1, None)
    assert rollout.waited_s == 0


def test_a_held_rollout_goes_on_when_labels_overrule() -> None:
    """A metric that holds makes it wait, with its weight as it was; a success goes on by itself."""
    rollout, _ = say(start(), Outcome.INCONCLUSIVE, held=True)
    assert (rollout.phase, rollout.waits_for) == (Phase.WAITING, WaitsFor.EVIDENCE)
    rollout, _ = say(rollout, Outcome.INCONCLUSIVE, held=True)
    assert rollout.phase is Phase.WAITING
    rollout, _ = say(rollout, Outcome.SUCCESSFUL)
    assert (rollout.phase, rollout.stage) == (Phase.PROGRESSING, 1)


def test_time_of_day_decides_nothing() -> None:
    """Whatever the clock says at a check, ages and deadlines follow the steady clock's seconds."""
    rollout = start(now=1e9)
    for now in (1e9 + 3600, 1e9 - 7200, 0.0):
        said = verdict(rollout, Outcome.INCONCLUSIVE)
        rollout, _ = advance(rollout, said, now, elapsed_s=10)
    assert (rollout.phase, rollout.age_s, rollout.waited_s) == (Phase.PROGRESSING, 30, 30)


def test_a_human_skips_a_step() -> None:
    """Skipping goes to the next step whatever the evidence; the last one is promoted instead."""
    rollout = start(Plan(stages=(Stage.of("canary", [10, 50]),)))
    rollout, actions = skip_step(rollout, 5.0, "Ann says so.")
    assert (rollout.weight, rollout.age_s, rollout.reason) == (50, 0, "Ann says so.")
    assert actions
    with pytest.raises(RolloutConflict, match="promote"):
        skip_step(rollout, 6.0, "Ann says so.")


def test_without_auto_promote_a_human_has_the_last_word() -> None:
    """When every step has passed it waits, and promotes on a human's word."""
    rollout = start(Plan(stages=(Stage.of("ab"),), auto_promote=False))
    rollout, _ = say(rollout, Outcome.SUCCESSFUL)
    assert (rollout.phase, rollout.waits_for) == (Phase.WAITING, WaitsFor.APPROVAL)
    rollout, _ = say(rollout, Outcome.SUCCESSFUL)
    assert rollout.phase is Phase.WAITING
    rollout, _ = promote(rollout, "Ann says so.")
    assert (rollout.phase, rollout.waits_for) == (Phase.PROMOTING, None)


def test_a_verdict_counts_once() -> None:
    """The same verdict again, an older one, or one of another step changes nothing."""
    rollout = start()
    first = verdict(rollout, Outcome.SUCCESSFUL)
    after, _ = advance(rollout, first, 10, elapsed_s=10)
    assert after.stage == 1
    assert advance(after, first, 10, elapsed_s=10) == (after, ())
    of_another_step = replace(verdict(after, Outcome.FAILED), stage=0)
    assert advance(after, of_another_step, 20, elapsed_s=10) == (after, ())


def test_a_step_lasts_an_interval() -> None:
    """A verdict that comes sooner than one interval after the step began does not pass it."""
    rollout, _ = say(start(), Outcome.SUCCESSFUL, 9)
    assert rollout.stage == 0
    rollout, _ = say(rollout, Outcome.SUCCESSFUL, 1)
    assert rollout.stage == 1


def test_provider_errors_are_no_failures() -> None:
    """Errors of the analysis are counted apart; four in a row wait until it works again."""

    def fail(rollout: Rollout, times: int) -> Rollout:
        for _ in range(times):
            rollout, _ = provider_failed(rollout, "database away", 1.0, elapsed_s=1)
        return rollout

    rollout = fail(start(), 3)
    rollout, _ = say(rollout, Outcome.INCONCLUSIVE)
    rollout = fail(rollout, 3)
    assert rollout.phase is Phase.PROGRESSING
    rollout = fail(rollout, 1)
    assert (rollout.phase, rollout.waits_for) == (Phase.WAITING, WaitsFor.ANALYSIS)
    assert (rollout.provider_errors, rollout.failed_checks) == (7, 0)
    rollout, _ = say(rollout, Outcome.INCONCLUSIVE)
    assert (rollout.phase, rollout.waits_for) == (Phase.PROGRESSING, None)


def test_of_two_promotions_one_wins() -> None:
    """A second promotion, and a roll back after the first, are conflicts."""
    rollout, _ = promote(start(), "Ann")
    with pytest.raises(RolloutConflict) as conflict:
        promote(rollout, "Bob")
    assert conflict.value.code == "rollout_conflict"
    with pytest.raises(RolloutConflict):
        roll_back(rollout, 1, "Bob")


def test_finished_rollouts_take_no_orders() -> None:
    """What has failed cannot be promoted, paused or resumed; rolling it back again is no change."""
    rollout, _ = roll_back(start(), 1, "Ann")
    orders: tuple[Callable[[], object], ...] = (
        lambda: promote(rollout, "x"),
        lambda: pause(rollout),
        lambda: resume(rollout),
        lambda: skip_step(rollout, 2, "x"),
        lambda: promoted(rollout, 2),
    )
    for order in orders:
        with pytest.raises(RolloutConflict):
            order()
    assert roll_back(rollout, 9, "again") == (rollout, ())


def test_orders_repeated_change_nothing() -> None:
    """Pausing twice, resuming what runs, reporting the alias twice: no new revision, no action."""
    rollout, _ = pause(start())
    assert pause(rollout) == (rollout, ())
    running, _ = resume(rollout)
    assert resume(running) == (running, ())
    done, _ = promoted(promote(running, "Ann")[0], 3)
    assert promoted(done, 4) == (done, ())


@pytest.mark.parametrize(
    ("strategy", "steps"),
    [
        ("canary", []),
        ("canary", [5, 1]),
        ("canary", [5, 5]),
        ("canary", [0, 5]),
        ("canary", [5, 101]),
        ("canary", [100]),
        ("ab", [100]),
        ("mirror", None),
    ],
)
def test_plans_without_sense_are_refused(strategy: str, steps: list[float] | None) -> None:
    """Steps rise within (0, 100], one of them can be judged, and the strategy is known."""
    with pytest.raises(RolloutInvalid):
        Stage.of(strategy, steps)


NUMBERS: dict[str, Sequence[float]] = {
    "interval_s": (0, -1, 1e12),
    "deadline_s": (0, -1, 1e12),
    "threshold": (0, 10**12),
    "min_samples": (0, 10**12),
    "alpha": (0, 1, -1),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_every_number_of_a_plan_is_finite_and_bounded(name: str, odd: float) -> None:
    """NaN, infinity and what is out of bounds are refused, whichever number it is."""
    for value in (*NUMBERS[name], odd):
        with pytest.raises(RolloutInvalid):
            replace(CHAIN, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(RolloutInvalid):
        Stage.of("canary", [odd])
    with pytest.raises(RolloutInvalid):
        Labels(delay_s=odd)
    with pytest.raises(RolloutInvalid):
        Labels(fraction=odd)
    for field in ("tolerated", "percentile", "min_samples", "floor_s"):
        with pytest.raises(ValueError, match="must"):
            replace(DEFAULT_METRICS[1], **{field: odd})  # type: ignore[arg-type]


def test_plan_needs_a_metric_that_can_decide() -> None:
    """A stage in which nothing is required could never pass, so the plan is refused."""
    optional = (Metric(MetricName.ERROR_RATE, 0.01, required=False),)
    with pytest.raises(RolloutInvalid, match="could decide"):
        Plan(stages=(Stage.of("canary"),), metrics=optional)


def test_comparisons_count_every_metric_of_every_judged_step() -> None:
    """One shadow step with seven metrics and four canary steps with four: 23 chances to err."""
    assert CHAIN.comparisons == 7 + 4 * 4


def test_champion_cannot_challenge_itself() -> None:
    """A rollout of the champion's own version is refused."""
    with pytest.raises(RolloutInvalid):
        begin(rollout_id="r", model="m", champion=1, challenger=1, plan=CHAIN, now=0)


class AnyHistory(RuleBasedStateMachine):
    """Verdicts, orders, crashes and time in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.rollout = start(
            Plan(
                stages=(Stage.of("shadow"), Stage.of("canary", [10, 50])),
                threshold=2,
                deadline_s=50,
            )
        )
        self.passed: set[tuple[int, int]] = set()
        self.human = False
        self.actions: Sequence[Action] = actions_for(self.rollout)

    def take(self, transition: tuple[Rollout, Sequence[Action]]) -> None:
        before = self.rollout
        self.rollout, actions = transition
        self.actions = actions or self.actions
        assert self.rollout.revision - before.revision == (self.rollout != before)
        if not before.live:
            assert self.rollout == before

    @rule(outcome=st.sampled_from(Outcome), wait=st.floats(0, 30), stale=st.booleans())
    def check(self, outcome: Outcome, wait: float, stale: bool) -> None:
        said = verdict(self.rollout, outcome, held=outcome is Outcome.INCONCLUSIVE and wait > 29)
        if stale:
            said = replace(said, number=self.rollout.checks)
        place = (self.rollout.stage, self.rollout.step)
        before = self.rollout
        self.take(advance(self.rollout, said, self.now, elapsed_s=wait))
        if (self.rollout.stage, self.rollout.step) != place or (
            self.rollout.phase is Phase.PROMOTING is not before.phase
        ):
            assert outcome is Outcome.SUCCESSFUL
            assert not stale
            self.passed.add(place)

    @rule(by=st.floats(-1e5, 1e5))
    def set_the_clock(self, by: float) -> None:
        self.now += by

    @rule()
    def provider_error(self) -> None:
        self.take(provider_failed(self.rollout, "away", self.now, elapsed_s=1))

    @rule()
    def crash(self) -> None:
        self.rollout = Rollout.from_json(json.loads(json.dumps(self.rollout.to_json())))
        assert actions_for(self.rollout) == tuple(self.actions)

    @precondition(lambda self: self.rollout.phase in {Phase.PROGRESSING, Phase.WAITING})
    @rule()
    def hold(self) -> None:
        self.take(pause(self.rollout))

    @precondition(lambda self: self.rollout.phase in {Phase.PROGRESSING, Phase.WAITING})
    @rule()
    def go_on(self) -> None:
        self.take(resume(self.rollout))

    @precondition(lambda self: self.rollout.phase is Phase.PROMOTING)
    @rule(moved=st.booleans())
    def alias(self, moved: bool) -> None:
        self.take(
            promoted(self.rollout, self.now) if moved else refused(self.rollout, self.now, "moved")
        )

    @precondition(lambda self: self.rollout.phase in {Phase.PROGRESSING, Phase.WAITING})
    @rule(yes=st.sampled_from([True, False, False, False]))
    def human_promotes(self, yes: bool) -> None:
        if yes:
            self.human = True
            self.take(promote(self.rollout, "a human"))

    @invariant()
    def failed_means_weight_zero(self) -> None:
        if self.rollout.phase is Phase.FAILED:
            assert self.rollout.weight == self.rollout.mirror_share == 0
            (action,) = self.actions
            assert isinstance(action, SetRoute)
            assert (action.route.champion, action.route.challenger) == (1, None)

    @invariant()
    def promotion_needs_success_or_a_human(self) -> None:
        if self.rollout.phase in {Phase.PROMOTING, Phase.SUCCEEDED}:
            assert self.human or self.passed == {(0, 0), (1, 0), (1, 1)}

    @invariant()
    def only_what_waits_waits_for_something(self) -> None:
        assert (self.rollout.phase is Phase.WAITING) == (self.rollout.waits_for is not None)

    @invariant()
    def the_actions_follow_from_the_state(self) -> None:
        assert tuple(self.actions) == actions_for(self.rollout)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@given(st.lists(st.floats(0.5, 99.5), min_size=1, max_size=6, unique=True), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_json_round_trip_of_any_plan(steps: list[float], threshold: int) -> None:
    """What is written as JSON is read back as it was, verdicts included."""
    rollout = start(Plan(stages=(Stage.of("canary", sorted(steps)),), threshold=threshold))
    rollout, _ = say(rollout, Outcome.INCONCLUSIVE)
    assert Rollout.from_json(json.loads(json.dumps(rollout.to_json()))) == rollout
