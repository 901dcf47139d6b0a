"""
Load and unload: change what should be, then wait until it is, on every replica.

`load` writes the desired state first, so that a crash right after the answer loses nothing, and
takes it back if a replica cannot load the version: what served before still serves.

The later wish counts. Loads of one model happen one after the other in this gateway; an unload
waits for none of them, and the caller of a load hears at once that it was overtaken. Two gateways
meet in the store, and the reconciler of each ends at the same state.
"""

import asyncio
import contextlib
from collections import defaultdict
from typing import Protocol

from gateway.background.tasks import TaskSet
from gateway.errors import (
    DeadlineExceeded,
    LoadFailed,
    LoadSuperseded,
    ModelNotLoaded,
    SignatureConflict,
    StoreUnavailable,
    TritonUnavailable,
)
from gateway.registry.artifacts import Artifacts
from gateway.registry.registry import Registry
from gateway.registry.versions import Catalog, Model, ModelVersion
from gateway.triton.reconciler import Reconciler
from gateway.triton.replicas import ReplicaSet, Served


class Lifecycle(Protocol):
    """Loads and unloads models: in this process, or through the one that does."""

    async def load(self, name: str, version: int | None = None, *, actor: str) -> ModelVersion:
        """Load the champion of a model, or one version of it; see `LocalLifecycle.load`."""

    async def unload(self, name: str, version: int | None = None, *, actor: str) -> None:
        """Unload every loaded version of a model, or one; see `LocalLifecycle.unload`."""


class LifecycleObserver(Protocol):
    """Hears when a load that somebody asked for has come to its end."""

    def load_settled(self) -> None:
        """Hear that a version is no longer among `LoadStates.first_loads`."""


class LocalLifecycle:
    """Loads and unloads models by this process's reconciler."""

    def __init__(
        self,
        registry: Registry,
        replicas: ReplicaSet,
        reconciler: Reconciler,
        *,
        timeout_s: float,
        artifacts: Artifacts,
        observer: LifecycleObserver,
    ) -> None:
        self._artifacts = artifacts
        self._observer = observer
        self._loads = reconciler.loads
        self._registry = registry
        self._replicas = replicas
        self._reconciler = reconciler
        self._timeout_s = timeout_s
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks = TaskSet()
        registry.on_change(self._announce)

    async def load(self, name: str, version: int | None = None, *, actor: str) -> ModelVersion:
        """
        Load the champion of a model, or one version of it, on every replica.

        Returns:
            The version that is loaded now.

        Raises:
            ModelNotFound, VersionNotFound: There is no such thing.
            ArtifactCorrupt: Its file is not the one that was published.
            SignatureConflict: A version with other inputs or outputs that lies in the same Triton
            model is loaded; only releases before 0.2 published such.
            LoadSuperseded: Somebody unloaded it while it was waited for.
            LoadFailed: A replica could not load it; the desired state is as it was.
            TritonUnavailable, DeadlineExceeded: No replica could be asked in time; likewise.
            StoreUnavailable: The wish cannot be recorded.
        """
        async with self._locks[name]:
            model = (await self._registry.refresh()).model(name)
            target = model.version(version) if version is not None else model.champion
            number, served = target.version, (name, target.version)
            _check_side_by_side(model, target)
            await self._artifacts.check(target)
            fresh = number not in model.desired
            self._loads.forgive(name, number)
            try:
                if fresh:
                    self._loads.first_loads.add(served)
                if fresh or number in model.quarantined:
                    try:
                        await self._registry.store.set_desired(name, add={number}, actor=actor)
                    except StoreUnavailable:
                        fresh = False  # nothing was recorded that would have to be taken back
                        raise
                    await self._registry.refresh()
                await self._until_ready(served)
            except LoadSuperseded:
                raise  # the wish is not there any more, or is somebody else's by now
            except BaseException:
                if fresh:
                    await self._withdraw(served, actor=actor)
                raise
            finally:
                self._loads.first_loads.discard(served)
                self._observer.load_settled()
            return target

    async def unload(self, name: str, version: int | None = None, *, actor: str) -> None:
        """
        Unload every loaded version of a model, or one. Requests in flight finish.

        Raises:
            ModelNotLoaded: Nothing of it is loaded, or the name is unknown.
            VersionNotFound: There is no such version.
            StoreUnavailable: The wish cannot be recorded.
        """
        model = (await self._registry.refresh()).models.get(name)
        if model is None:
            raise ModelNotLoaded(name)
        versions = model.desired if version is None else {model.version(version).version}
        if not versions or not versions <= model.desired:
            raise ModelNotLoaded(name)
        removed = await self._registry.store.set_desired(name, remove=versions, actor=actor)
        await self._registry.refresh()
        if not removed:
            raise ModelNotLoaded(name)  # somebody else was first
        await self._until_gone(name)

    async def close(self) -> None:
        """Give up what nobody waits for any more."""
        await self._tasks.close()

    async def _withdraw(self, served: Served, *, actor: str) -> None:
        """Take a wish back that could not be fulfilled."""
        name, number = served
        await self._registry.store.set_desired(name, remove={number}, actor=actor)
        await self._registry.refresh()
        await self._settle(name)

    async def _settle(self, name: str) -> None:
        """Bring one model to the desired state on every replica that can be reached."""
        live = self._replicas.live()
        await asyncio.gather(*(self._reconciler.reconcile_model(r, name) for r in live))

    async def _until_ready(self, served: Served) -> None:
        """Wait until every live replica, and at least one, has a version ready."""
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    seen = self._seen()
                    await self._settle_unless_superseded(served)
                    self._raise_superseded(served)
                    live = self._replicas.live()
                    self._raise_failure(served)
                    if live and all(served in replica.ready for replica in live):
                        return
                    await self._change(seen)
        except TimeoutError:
            if not self._replicas.live():
                raise TritonUnavailable("No replica can be reached right now.") from None
            raise DeadlineExceeded(
                f"Version {served[1]} of {served[0]} was not ready within {self._timeout_s:g} s."
            ) from None

    async def _until_gone(self, name: str) -> None:
        """
        Wait until no live replica has ready what is not desired of a model. Where that takes too
        long, callers hear "not loaded" all the same.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                while True:
                    seen = self._seen()
                    await self._settle(name)
                    model = self._registry.catalog.models.get(name)
                    desired = frozenset() if model is None else model.desired
                    live = self._replicas.live()
                    if all(replica.ready_versions(name) <= desired for replica in live):
                        return
                    await self._change(seen)

    async def _settle_unless_superseded(self, served: Served) -> None:
        """
        Settle, but wait no longer once a version is not desired any more: what Triton was asked
        goes on without its caller.
        """
        settling = asyncio.create_task(self._settle(served[0]))
        superseded = asyncio.create_task(self._superseded(served))
        try:
            await asyncio.wait({settling, superseded}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            settling.cancel()
            await asyncio.gather(settling, return_exceptions=True)
            raise
        finally:
            superseded.cancel()
        if settling.done():
            settling.result()
        else:
            self._tasks.keep(settling)

    async def _superseded(self, served: Served) -> None:
        """Wait until a version is not desired."""
        async with self._replicas.changed:
            await self._replicas.changed.wait_for(lambda: not self._is_desired(served))

    async def _change(self, seen: object) -> None:
        """Wait until something is not as it was seen."""
        async with self._replicas.changed:
            await self._replicas.changed.wait_for(lambda: self._seen() != seen)

    def _seen(self) -> object:
        """Return what decides how a load or unload goes on, to be compared."""
        live = self._replicas.live()
        return (
            [(replica.name, replica.ready) for replica in live],
            dict(self._loads.failures),
            self._registry.catalog.generation,
        )

    def _is_desired(self, served: Served) -> bool:
        model = self._registry.catalog.models.get(served[0])
        return model is not None and served[1] in model.desired

    def _raise_superseded(self, served: Served) -> None:
        if not self._is_desired(served):
            raise LoadSuperseded(f"Somebody unloaded version {served[1]} of {served[0]} meanwhile.")

    def _announce(self, _catalog: Catalog) -> None:
        self._tasks.start(self._replicas.announce())

    def _raise_failure(self, served: Served) -> None:
        for replica in self._replicas.live():
            failure = self._loads.failure(replica, *served)
            if failure is not None and served not in replica.ready:
                raise LoadFailed(
                    f"Version {served[1]} of {served[0]} could not be loaded: {failure.reason}"
                )


def _check_side_by_side(model: Model, target: ModelVersion) -> None:
    """
    Versions of one Triton model share one config, so that their tensors must be the same. They are,
    unless both were published by a release that put them into one whatever they took.
    """
    for number in model.desired - {target.version}:
        other = model.versions[number]
        shared = other.triton_model == target.triton_model
        if shared and not target.signature.same_tensors(other.signature):
            raise SignatureConflict(
                f"Version {number} of {model.name} is loaded and has other inputs or outputs than "
                f"version {target.version}: unload it first."
            )
