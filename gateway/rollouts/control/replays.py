"""
Replays: recorded requests, asked of a candidate and of the champion, and judged as a shadow is.

No caller takes part. Each request is asked of both versions by the same worker, in an order that is
drawn by lot, and times count only while callers leave room. While they do not, a replay rests for
nineteen times as long as it asked. One runs at a time in a process: the one that was asked for it.
"""

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog

from gateway.background.tasks import run_in_background
from gateway.errors import (
    GatewayError,
    NothingRecorded,
    Overloaded,
    ReplayNotFound,
    RolloutInvalid,
    StoreUnavailable,
)
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.registry import Registry
from gateway.rollouts.control.asking import loaded_meanwhile, patiently
from gateway.rollouts.control.replay_counts import ReplayCounts, label_for
from gateway.rollouts.live.mirror import Ask, Copy, Reply
from gateway.rollouts.live.recorder import TrafficRecorder
from gateway.rollouts.live.recordings import Overview, Recorded, Recordings
from gateway.rollouts.state.classes import class_map
from gateway.rollouts.state.plan import Plan
from gateway.rollouts.state.traffic import Assignment, StepId
from gateway.rollouts.statistics.verdict import Verdict
from gateway.store.replays import ReplayStore
from gateway.store.rollout_tables import ReplayRow

log = structlog.get_logger(__name__)

_ACTOR = "replay"
_REST = 19.0
_TELL_EVERY_S = 1.0
_RETRY_S = 1.0
# A replay that says nothing for so long has ended with its gateway.
_SILENT_S = 30.0


class _Job(NamedTuple):
    id: str
    model: str
    champion: int
    candidate: int
    plan: Plan
    paths: Sequence[Path]


class Replays:
    """The replays that this process was asked for, and the results of all."""

    def __init__(
        self,
        store: ReplayStore,
        recordings: Recordings,
        recorder: TrafficRecorder,
        registry: Registry,
        lifecycle: Lifecycle,
        *,
        timeout_s: float,
    ) -> None:
        """`timeout_s` is the deadline of one answer, in seconds."""
        self._store = store
        self._recordings = recordings
        self._recorder = recorder
        self._registry = registry
        self._lifecycle = lifecycle
        self._timeout_s = timeout_s
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue(1)
        self._at_work = False
        self._lots = random.Random()  # noqa: S311 - it draws lots, no secrets

    async def begin(
        self, name: str, version: int, plan: Plan, *, most: int | None, actor: str
    ) -> ReplayRow:
        """
        Ask a version what has been recorded; it runs in the background.

        Args:
            name: The model.
            version: The candidate.
            plan: Its metrics, `alpha` and `min_samples` are those of the verdict.
            most: So many requests, the newest; None: all.
            actor: Who does it.

        Raises:
            ModelNotFound, VersionNotFound: There is no such thing.
            RolloutInvalid: The version is the champion.
            NothingRecorded: There is nothing to ask.
            Overloaded: Another replay is running.
        """
        model = (await self._registry.refresh()).model(name)
        model.version(version)
        if version == model.champion.version:
            raise RolloutInvalid(f"Version {version} is the champion of {name}.")
        await self._recorder.flush()
        paths = (await asyncio.to_thread(self._recordings.paths, name))[:most]
        if not paths:
            raise NothingRecorded(
                f"No request to {name} is recorded. RECORD_SHARE=0.1 records a tenth of them."
            )
        if self._at_work:
            raise Overloaded("Another replay is running.")
        self._at_work = True
        job = _Job(uuid.uuid4().hex[:12], name, model.champion.version, version, plan, paths)
        versions = {"champion": job.champion, "candidate": version}
        try:
            await self._store.begin(job.id, name, images=len(paths), actor=actor, **versions)
        except BaseException:
            self._at_work = False
            raise
        self._jobs.put_nowait(job)
        return await self.read(name, job.id)

    async def read(self, name: str, replay: str) -> ReplayRow:
        """
        Read one.

        Raises:
            ReplayNotFound: The model has none of that id.
        """
        row = await self._store.read(replay)
        if row is None or row.model != name:
            raise ReplayNotFound(replay)
        return _heard_of(row)

    async def history(self, name: str, *, limit: int) -> Sequence[ReplayRow]:
        """
        Read the replays of a model, the newest first.

        Raises:
            ModelNotFound: No model has that name.
        """
        (await self._registry.refresh()).model(name)
        return [_heard_of(row) for row in await self._store.history(name, limit=limit)]

    async def recorded(self, name: str) -> Overview:
        """
        Tell how much is recorded of a model.

        Raises:
            ModelNotFound: No model has that name.
        """
        (await self._registry.refresh()).model(name)
        await self._recorder.flush()
        return await asyncio.to_thread(self._recordings.overview, name)

    async def forget(self, name: str) -> None:
        """
        Delete everything that is recorded of a model.

        Raises:
            ModelNotFound: No model has that name.
        """
        (await self._registry.refresh()).model(name)
        await self._recorder.flush()
        await asyncio.to_thread(self._recordings.delete, name)

    @property
    def sealed(self) -> bool:
        """Whether what is recorded from now on is encrypted."""
        return self._recordings.sealed

    async def follow(self, ask: Ask, busy: Callable[[], bool]) -> None:
        """
        Run one replay after the other, for ever.

        Args:
            ask: Sends a copy of a request to a version.
            busy: Whether callers use the machine up.
        """
        while True:
            job, counts = await self._jobs.get(), ReplayCounts()
            verdict, error = None, ""
            try:
                verdict = await self._run(job, counts, ask, busy)
            except asyncio.CancelledError:
                with contextlib.suppress(StoreUnavailable):
                    await self._fail(job, counts, "The gateway was stopped.")
                raise
            except GatewayError as failure:
                error = failure.detail
            except Exception as failure:
                # One replay must not end those that come after it.
                log.exception("replay_failed", replay=job.id)
                error = f"It could not be run ({type(failure).__name__})."
            if verdict is None:
                await self._at_last(partial(self._fail, job, counts, error))
            else:
                await self._at_last(partial(self._finish, job, counts, verdict))
            self._at_work = False
            log.info("replayed", replay=job.id, model=job.model, version=job.candidate, error=error)

    async def _run(
        self, job: _Job, counts: ReplayCounts, ask: Ask, busy: Callable[[], bool]
    ) -> Verdict:
        async with contextlib.AsyncExitStack() as stack:
            run_in_background(stack, partial(self._tell_regularly, job, counts))
            for version in (job.champion, job.candidate):
                loaded = loaded_meanwhile(
                    self._registry, self._lifecycle, job.model, version, actor=_ACTOR
                )
                await stack.enter_async_context(loaded)
            for path in job.paths:
                recorded = await asyncio.to_thread(self._recordings.read, path)
                if recorded is None:
                    counts.skipped += 1
                else:
                    await self._ask_both(job, recorded, counts, ask, busy)
        return await asyncio.to_thread(counts.verdict, job.plan, now_s=time.time())

    async def _tell_regularly(self, job: _Job, counts: ReplayCounts) -> None:
        while True:
            with contextlib.suppress(StoreUnavailable):  # it is told at the end
                await self._store.tell(job.id, counts.progress)
            await asyncio.sleep(_TELL_EVERY_S)

    async def _ask_both(
        self,
        job: _Job,
        recorded: Recorded,
        counts: ReplayCounts,
        ask: Ask,
        busy: Callable[[], bool],
    ) -> None:
        model = self._registry.catalog.model(job.model)
        one, other = model.version(job.champion), model.version(job.candidate)
        assignment = Assignment(
            id=StepId(job.id, 0, 0),
            model=job.model,
            champion=job.champion,
            challenger=job.candidate,
            version=job.champion,
            shadow=True,
            mirrored=True,
            classes=class_map(one.labels, other.labels, sizes=(one.classes, other.classes)),
        )
        copy = Copy(assignment, recorded.request_id, recorded.encoded, tensor=None, scores=None)
        free, began_s = not busy(), time.monotonic()
        order = [job.champion, job.candidate]
        self._lots.shuffle(order)
        replies = {
            version: await patiently(partial(self._reply, copy, ask, version)) for version in order
        }
        free = free and not busy()
        counts.add(
            replies[job.champion],
            replies[job.candidate],
            assignment.classes,
            label_for(recorded, model, job.champion),
            timed=free,
        )
        if not free:
            await asyncio.sleep(_REST * (time.monotonic() - began_s))

    async def _reply(self, copy: Copy, ask: Ask, version: int) -> Reply | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await ask(copy, version)
        except TimeoutError:
            return None

    async def _fail(self, job: _Job, counts: ReplayCounts, error: str) -> None:
        await self._store.tell(job.id, counts.progress, state="failed", error=error)

    async def _finish(self, job: _Job, counts: ReplayCounts, verdict: Verdict) -> None:
        found = verdict.to_json()
        await self._store.tell(job.id, counts.progress, state="done", verdict=found)

    async def _at_last(self, tell: Callable[[], Awaitable[None]]) -> None:
        """Store how a replay ended, when the store is there."""
        while True:
            try:
                return await tell()
            except StoreUnavailable:
                await asyncio.sleep(_RETRY_S)


def _heard_of(row: ReplayRow) -> ReplayRow:
    """Show a replay whose gateway has ended as what it is."""
    if row.state == "running" and time.time() - row.told_at_s > _SILENT_S:
        row.state, row.error = "failed", "Its gateway ended before it did."
    return row
