"""
Keep what was counted and take it to the store in batches.

Counts of a step are kept from the start of this process and stored whole, in place of what was
stored before: storing twice does no harm, and a process that is killed loses at most what came
since the last flush. A process that starts again counts under another name, and the counts of all
names are added up.
"""

import asyncio
import uuid
from typing import Any

from gateway.errors import StoreUnavailable
from gateway.rollouts.live.counting import StepCounts
from gateway.rollouts.state.traffic import StepId
from gateway.store.rollout_evidence import EvidenceStore

SAMPLES_PER_ROLLOUT = 200


class Tally:
    """Counts and samples of this gateway."""

    def __init__(self, store: EvidenceStore) -> None:
        self.gateway = uuid.uuid4().hex
        self._store = store
        self._counts: dict[StepId, StepCounts] = {}
        self._dirty: set[StepId] = set()
        self._samples: list[dict[str, Any]] = []
        self._sampled: dict[str, int] = {}
        self._flushing = asyncio.Lock()

    def counts(self, step: StepId) -> StepCounts:
        """Return a step's counts, to be added to right now."""
        self._dirty.add(step)
        found = self._counts.get(step)
        if found is None:
            found = self._counts[step] = StepCounts()
        return found

    def wants_sample(self, rollout: str) -> bool:
        """Whether another sample of a disagreement is to be kept."""
        return self._sampled.get(rollout, 0) < SAMPLES_PER_ROLLOUT

    def sample(self, sample: dict[str, Any]) -> None:
        """Keep one request that two versions answered differently."""
        rollout = sample["rollout"]
        self._sampled[rollout] = self._sampled.get(rollout, 0) + 1
        self._samples.append(sample)

    async def flush(self) -> None:
        """
        Store what is new.

        Raises:
            StoreUnavailable: The store is away; nothing is lost, the next flush stores it.
        """
        async with self._flushing:
            if self._dirty or self._samples:
                await self._store_new()

    async def _store_new(self) -> None:
        dirty, self._dirty = self._dirty, set()
        samples, self._samples = self._samples, []
        documents = {
            (step.rollout, step.stage, step.step): (
                self._counts[step].freeze().to_json(),
                self._counts[step].dropped,
            )
            for step in dirty
            if step in self._counts
        }
        try:
            await self._store.put_observations(self.gateway, documents, samples)
        except StoreUnavailable:
            self._dirty |= dirty
            self._samples = samples + self._samples
            raise
