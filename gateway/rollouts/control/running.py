"""The rollouts and replays of a gateway process: what they are made of, and their work."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from functools import partial

import structlog

from gateway.background.tasks import run_in_background
from gateway.errors import StoreUnavailable
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.registry import Registry
from gateway.registry.versions import Catalog
from gateway.rollouts.control.applying import Changes
from gateway.rollouts.control.commands import Rollouts
from gateway.rollouts.control.controller import Controller
from gateway.rollouts.control.evaluations import AskVersion, Evaluations
from gateway.rollouts.control.replays import Replays
from gateway.rollouts.live.answers import Answers, Recalled
from gateway.rollouts.live.assignments import Assignments
from gateway.rollouts.live.compute import Read
from gateway.rollouts.live.mirror import Ask, Mirror
from gateway.rollouts.live.recorder import TrafficRecorder
from gateway.rollouts.live.recordings import Recordings
from gateway.rollouts.live.tally import Tally
from gateway.rollouts.state.traffic import Traffic, traffic_of
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.store.evaluations import EvaluationStore
from gateway.store.feedback import FeedbackStore
from gateway.store.leases import LeaseStore
from gateway.store.outage import StoreOutage
from gateway.store.registrations import RegistrationStore
from gateway.store.replays import ReplayStore
from gateway.store.rollout_evidence import EvidenceStore
from gateway.store.rollouts import RolloutStore

log = structlog.get_logger(__name__)

_FLUSH_S = 1.0


class RunningRollouts:
    """`assignments` and `recorder` for requests, `commands` for people."""

    def __init__(
        self,
        assignments: Assignments,
        recorder: TrafficRecorder,
        commands: Rollouts,
        controller: Controller,
        mirror: Mirror,
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self.assignments = assignments
        self.recorder = recorder
        self.commands = commands
        self._controller = controller
        self._mirror = mirror
        self._flush = flush

    @contextlib.asynccontextmanager
    async def running(
        self,
        ask: Ask,
        ask_version: AskVersion,
        *,
        read: Read,
        busy: Callable[[], bool],
        models: Callable[[], Collection[str]],
    ) -> AsyncIterator[None]:
        """
        Send copies, store counts, record, replay, evaluate and move rollouts on, as long as the
        block runs.

        Args:
            ask: Sends a copy of a request to a version.
            ask_version: Sends an image to a version.
            read: Asks Triton what it has computed.
            busy: Whether callers use the machine up.
            models: The names of those that exist.
        """
        async with contextlib.AsyncExitStack() as stack:
            # Closed from the last to the first: what the controller and the mirror have counted
            # when they end is stored by the last flush.
            run_in_background(stack, partial(_flush_regularly, self._flush))
            run_in_background(stack, partial(self._controller.follow, read, self._mirror.busy))
            run_in_background(stack, partial(self.commands.evaluations.follow, ask_version))
            run_in_background(stack, partial(self.commands.replays.follow, ask, self._mirror.busy))
            run_in_background(stack, partial(self.recorder.follow, models))
            self._mirror.start(ask, busy)
            stack.push_async_callback(self._mirror.close)
            yield


def open_rollouts(
    settings: Settings,
    database: Database,
    registry: Registry,
    lifecycle: Lifecycle,
    recall: Callable[[str], Awaitable[Recalled | None]],
) -> RunningRollouts:
    """
    Make the parts. Routes follow every catalog from now on.

    Args:
        settings, database, registry, lifecycle: What they work with.
        recall: Finds the answer to a request that another process of this gateway gave.
    """
    store, feedback = RolloutStore(database), FeedbackStore(database)
    evidence, leases = EvidenceStore(database), LeaseStore(database)
    routes = _Routes(registry)
    tally = Tally(evidence)
    answers = Answers(
        tally,
        feedback,
        window_s=settings.feedback_window_s,
        traffic=routes.traffic,
        elsewhere=recall,
    )
    mirror = Mirror(
        tally,
        answers,
        workers=settings.mirror_concurrency,
        queue=settings.mirror_queue,
        queue_bytes=settings.mirror_queue_bytes,
        timeout_s=settings.challenger_timeout_s,
        keep_images=settings.keep_disagreeing_images,
    )
    changes = Changes(store, registry, lifecycle)
    controller = Controller(
        store,
        evidence,
        feedback,
        leases,
        registry,
        lifecycle,
        tally,
        changes,
        poll_s=settings.rollout_poll_s,
        lease_s=settings.rollout_lease_s,
        # No request that chose the challenger is under way any more by then.
        unload_after_s=settings.request_timeout_s,
        feedback_window_s=settings.feedback_window_s,
        answers_kept=settings.feedback_answers,
    )
    evaluations = Evaluations(
        EvaluationStore(database),
        store,
        leases,
        registry,
        lifecycle,
        RegistrationStore(database).report,
        folder=settings.data_dir / "evaluation-sets",
        gateway=tally.gateway,
    )

    recordings = Recordings(
        settings.data_dir / "recordings",
        key=settings.record_key_bytes,
        most_images=settings.record_images,
        most_bytes=settings.record_bytes,
        kept_s=settings.record_kept_s,
    )
    recorder = TrafficRecorder(
        recordings, share=settings.record_share, models=settings.record_models
    )
    replays = Replays(
        ReplayStore(database),
        recordings,
        recorder,
        registry,
        lifecycle,
        timeout_s=settings.challenger_timeout_s,
    )

    async def flush() -> None:
        await answers.flush()
        await tally.flush()

    return RunningRollouts(
        Assignments(routes.traffic, tally, answers, mirror),
        recorder,
        Rollouts(
            store,
            evidence,
            feedback,
            registry,
            lifecycle,
            changes,
            tally,
            answers,
            recorder,
            evaluations,
            replays,
            feedback_window_s=settings.feedback_window_s,
        ),
        controller,
        mirror,
        flush,
    )


async def _flush_regularly(flush: Callable[[], Awaitable[None]]) -> None:
    """Store what was counted and answered, for ever; at the end once more."""
    outage = StoreOutage("observations_wait_for_the_store", "observations_stored_again")
    try:
        while True:
            await asyncio.sleep(_FLUSH_S)
            with outage.tolerated():
                await flush()
    finally:
        try:
            await flush()
        except StoreUnavailable:
            log.warning("observations_lost")


class _Routes:
    """The traffic that belongs to the catalog in force."""

    def __init__(self, registry: Registry) -> None:
        self._traffic = traffic_of(registry.catalog)
        registry.on_change(self._take)

    def traffic(self) -> Traffic:
        return self._traffic

    def _take(self, catalog: Catalog) -> None:
        self._traffic = traffic_of(catalog)
