"""The rollouts of one gateway process: what they are made of, and their background work."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from gateway.background import run_in_background
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.registry import Registry
from gateway.registry.versions import Catalog
from gateway.rollouts.control.commands import Rollouts
from gateway.rollouts.control.controller import Controller
from gateway.rollouts.control.evaluations import AskVersion, Evaluations
from gateway.rollouts.live.mirror import Ask, Mirror
from gateway.rollouts.live.recorder import Recorder
from gateway.rollouts.live.trials import Trials
from gateway.rollouts.state.traffic import Traffic, traffic_of
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.store.evaluations import EvaluationStore
from gateway.store.feedback import FeedbackStore
from gateway.store.rollouts import RolloutStore

_FLUSH_S = 1.0


class RunningRollouts:
    """`trials` for requests, `commands` for people."""

    def __init__(
        self,
        trials: Trials,
        commands: Rollouts,
        controller: Controller,
        recorder: Recorder,
        mirror: Mirror,
    ) -> None:
        self.trials = trials
        self.commands = commands
        self._controller = controller
        self._recorder = recorder
        self._mirror = mirror

    @contextlib.asynccontextmanager
    async def running(self, ask: Ask, ask_version: AskVersion) -> AsyncIterator[None]:
        """Send copies, store counts, evaluate and move rollouts on, as long as the block runs."""
        async with contextlib.AsyncExitStack() as stack:
            # Closed from the last to the first: what the controller and the mirror have counted
            # when they end is stored by the recorder's last flush.
            run_in_background(stack, partial(self._recorder.follow, _FLUSH_S))
            run_in_background(stack, self._controller.follow)
            run_in_background(stack, partial(self.commands.evaluations.follow, ask_version))
            self._mirror.start(ask)
            stack.push_async_callback(self._mirror.close)
            yield


def open_rollouts(
    settings: Settings,
    database: Database,
    registry: Registry,
    lifecycle: Lifecycle,
    recall: Callable[[str], Awaitable[tuple[str, int, int] | None]],
) -> RunningRollouts:
    """
    Make the parts. Routes follow every catalog from now on.

    Args:
        settings, database, registry, lifecycle: What they work with.
        recall: Finds the answer to a request that another process of this gateway gave.
    """
    store, feedback = RolloutStore(database), FeedbackStore(database)
    recorder = Recorder(store, feedback, elsewhere=recall)
    mirror = Mirror(
        recorder,
        workers=settings.mirror_concurrency,
        queue=settings.mirror_queue,
        queue_bytes=settings.mirror_queue_bytes,
        timeout_s=settings.challenger_timeout_s,
        keep_images=settings.keep_disagreeing_images,
    )
    controller = Controller(
        store,
        feedback,
        registry,
        lifecycle,
        recorder,
        poll_s=settings.rollout_poll_s,
        lease_s=settings.rollout_lease_s,
        # No request that chose the challenger is under way any more by then.
        unload_after_s=settings.request_timeout_s,
        feedback_window_s=settings.feedback_window_s,
    )
    evaluations = Evaluations(
        EvaluationStore(database),
        store,
        registry,
        lifecycle,
        folder=settings.data_dir / "evaluation-sets",
        gateway=recorder.gateway,
    )
    routes = _Routes(registry)
    return RunningRollouts(
        Trials(routes.traffic, recorder, mirror),
        Rollouts(store, feedback, registry, lifecycle, controller, recorder, evaluations),
        controller,
        recorder,
        mirror,
    )


class _Routes:
    """The traffic that belongs to the catalog in force."""

    def __init__(self, registry: Registry) -> None:
        self._traffic = traffic_of(registry.catalog)
        registry.on_change(self._take)

    def traffic(self) -> Traffic:
        return self._traffic

    def _take(self, catalog: Catalog) -> None:
        self._traffic = traffic_of(catalog)
