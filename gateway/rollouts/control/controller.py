"""
Observe, decide, act: what moves a rollout on when nobody is looking.

One gateway of several runs it, the one that holds the lease in the database; if that one dies, the
lease runs out and another goes on from what is stored. Two that believe to hold it do no harm:
every change is compared with the revision that it was made from.

Intervals and deadlines are measured by a steady clock, never by the time of day. A gateway that
takes over begins the current interval again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog
from pydantic import ValidationError

from gateway.errors import GatewayError, ModelNotLoaded, RolloutInvalid, StoreUnavailable
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.registry import Registry
from gateway.registry.versions import CHAMPION
from gateway.rollouts.control.applying import ROLL_BACK, Changes, action_of
from gateway.rollouts.control.judging import judge, observe
from gateway.rollouts.live.compute import ComputeWatch, Read
from gateway.rollouts.live.tally import Tally
from gateway.rollouts.state.rollout import JUDGED, Phase, Rollout
from gateway.rollouts.state.transitions import advance, provider_failed, roll_back
from gateway.store.cached_read import CachedRead
from gateway.store.feedback import FeedbackStore
from gateway.store.leases import LeaseStore
from gateway.store.outage import StoreOutage
from gateway.store.rollout_evidence import EvidenceStore
from gateway.store.rollout_tables import RolloutRow
from gateway.store.rollouts import RolloutStore

log = structlog.get_logger(__name__)

ACTOR = "rollout-controller"
_LEASE = "rollouts"
_FORGET_EVERY_S = 60.0
_UNREADABLE = "Its stored state cannot be read; the champion has all traffic."

Work = Callable[[RolloutRow], Awaitable[None]]


class Controller:
    """Moves rollouts on."""

    def __init__(
        self,
        store: RolloutStore,
        evidence: EvidenceStore,
        feedback: FeedbackStore,
        leases: LeaseStore,
        registry: Registry,
        lifecycle: Lifecycle,
        tally: Tally,
        changes: Changes,
        *,
        poll_s: float,
        lease_s: float,
        unload_after_s: float,
        feedback_window_s: float,
        answers_kept: int,
        now: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._evidence = evidence
        self._feedback = feedback
        self._leases = leases
        self._registry = registry
        self._lifecycle = lifecycle
        self._tally = tally
        self._changes = changes
        self._poll_s = poll_s
        self._lease_s = lease_s
        self._unload_after_s = unload_after_s
        self._feedback_window_s = feedback_window_s
        self._answers_kept = answers_kept
        self._now = now
        self._steady = steady
        self._compute = ComputeWatch(tally, now=steady)
        self._forgotten_s = steady()
        self._leased_until_s = 0.0
        self._cached = CachedRead(store.data_version, self._to_do)
        # When what is being waited for began, by the steady clock: the interval of a step, and the
        # time after which a failed challenger is unloaded.
        self._since: dict[str, tuple[tuple[object, ...], float]] = {}
        # A promotion may wait for a load for minutes: each rollout is worked on by itself.
        self._at_work: dict[str, asyncio.Task[None]] = {}
        self._read: Read | None = None
        self._busy: Callable[[], bool] = lambda: False

    async def follow(self, read: Read, busy: Callable[[], bool]) -> None:
        """
        Move all rollouts on, for ever, while this gateway holds the lease.

        Args:
            read: Asks Triton what it has computed.
            busy: Whether callers use the machine up.
        """
        self._read, self._busy = read, busy
        outage = StoreOutage("rollouts_wait_for_the_store", "rollouts_go_on")
        try:
            while True:
                with outage.tolerated():
                    if await self._holds_lease():
                        await self._round()
                await asyncio.sleep(self._poll_s)
        finally:
            tasks = list(self._at_work.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                await self._leases.release(_LEASE, self._tally.gateway)
            except StoreUnavailable:
                log.info("rollout_lease_runs_out_by_itself")

    async def _holds_lease(self) -> bool:
        """Extend the lease when half of it is over: each time is a write to the database."""
        now_s = self._steady()
        if now_s < self._leased_until_s - self._lease_s / 2:
            return True
        held = await self._leases.hold(_LEASE, self._tally.gateway, for_s=self._lease_s) > 0
        self._leased_until_s = now_s + self._lease_s if held else 0.0
        return held

    async def _round(self) -> None:
        live, failed = await self._cached.get()
        known = {row.id for row in (*live, *failed)}
        self._since = {key: since for key, since in self._since.items() if key in known}
        for row in live:
            self._start(row, self._move_on)
        for row in failed:
            if self._waited_s(row.id, "failed") >= self._unload_after_s:
                self._start(row, self._unload_failed)
        if self._steady() - self._forgotten_s > _FORGET_EVERY_S:
            self._forgotten_s = self._steady()
            await self._feedback.forget(
                older_than_s=self._feedback_window_s, keep=self._answers_kept
            )

    async def _to_do(self) -> tuple[Sequence[RolloutRow], Sequence[RolloutRow]]:
        return await self._store.live(), await self._store.to_unload()

    def _waited_s(self, rollout: str, *what: object) -> float:
        """How long this gateway has seen a rollout wait for something, in seconds."""
        now_s = self._steady()
        before = self._since.get(rollout)
        if before is None or before[0] != what:
            before = self._since[rollout] = (what, now_s)
        return now_s - before[1]

    def _start(self, row: RolloutRow, work: Work) -> None:
        """Do what there is to do for a rollout, unless that is still going on."""
        if row.id in self._at_work:
            return
        task = asyncio.create_task(_alone(row, work))
        self._at_work[row.id] = task
        task.add_done_callback(lambda _: self._at_work.pop(row.id, None))

    async def _move_on(self, row: RolloutRow) -> None:
        try:
            rollout = Rollout.from_json(row.state)
        except (ValidationError, RolloutInvalid):
            log.exception("rollout_unreadable", rollout=row.id)
            await self._store.end_unreadable(row.id, reason=_UNREADABLE, actor=ACTOR)
            await self._registry.refresh()
            return
        if rollout.phase is Phase.PROMOTING:
            await self._changes.finish_promotion(rollout, actor=ACTOR)
        elif (why := await self._unfit(rollout)) is not None:
            ended = roll_back(rollout, self._now(), why)
            await self._changes.apply(rollout, ended, action=ROLL_BACK, actor=ACTOR)
        elif rollout.phase in JUDGED:
            if self._read is not None:
                await self._compute.look(rollout, self._read, busy=self._busy())
            waited_s = self._waited_s(rollout.id, rollout.stage, rollout.step, rollout.checks)
            if waited_s >= rollout.plan.interval_s:
                await self._check(rollout, waited_s)

    async def _unfit(self, rollout: Rollout) -> str | None:
        """Tell why a rollout cannot go on, whatever the evidence; None if it can."""
        model = (await self._registry.refresh()).models.get(rollout.model)
        if model is None or rollout.challenger not in model.versions:
            return f"Version {rollout.challenger} is gone."
        if (champion := model.aliases.get(CHAMPION)) != rollout.champion:
            return f"The alias {CHAMPION} was moved to version {champion} by someone else."
        if (why := model.quarantined.get(rollout.challenger)) is not None:
            return f"Version {rollout.challenger} is in quarantine: {why}"
        for version in (rollout.challenger, rollout.champion):
            if version not in model.desired:
                return f"Version {version} was unloaded."
        return None

    async def _check(self, rollout: Rollout, elapsed_s: float) -> None:
        now = self._now()
        try:
            observed = await observe(rollout, self._evidence, self._tally)
        except ValidationError as error:
            reason = f"{error.error_count()} counts are unreadable"
            failed = provider_failed(rollout, reason, now, elapsed_s=elapsed_s)
            await self._changes.apply(rollout, failed, action="", actor=ACTOR)
            return
        # Some milliseconds of arithmetic, which the requests on the event loop need not wait for.
        verdict = await asyncio.to_thread(judge, rollout, observed, now, elapsed_s=elapsed_s)
        transition = advance(rollout, verdict, now, elapsed_s=elapsed_s)
        await self._changes.apply(
            rollout,
            transition,
            action=action_of(rollout, transition[0]),
            actor=ACTOR,
            verdict=verdict,
        )

    async def _unload_failed(self, row: RolloutRow) -> None:
        """Unload a challenger that was loaded for a rollout which failed; nobody is asking it."""
        model = (await self._registry.refresh()).models.get(row.model)
        named = model is not None and row.challenger in model.aliases.values()
        if model is not None and row.challenger in model.desired and not named:
            try:
                await self._lifecycle.unload(row.model, row.challenger, actor=ACTOR)
            except ModelNotLoaded:
                log.info("challenger_was_unloaded", rollout=row.id)
        await self._store.mark_unloaded(row.id)


async def _alone(row: RolloutRow, work: Work) -> None:
    """Let a rollout that is stuck hold up no other one, and not end the controller."""
    try:
        await work(row)
    except GatewayError as error:
        log.warning("rollout_stuck", rollout=row.id, reason=error.detail)
    except Exception:
        log.exception("rollout_stuck", rollout=row.id)
