"""One worker process, as its parent sees it."""

import asyncio
import time
from dataclasses import dataclass, field

from prometheus_client.core import Metric

from gateway.workers.wire.channel import Channel
from gateway.workers.wire.handover import Handover
from gateway.workers.wire.messages import WorkerReport


@dataclass(eq=False)
class Worker:
    """
    One worker process.

    Attributes:
        number: 1 … N; a successor has the number of its predecessor.
        follows: It is sent every change of the state.
        serving: It takes connections.
        ready_at_s: Since when all is loaded, as it sees it (monotonic); None before.
        generation, revision: Of the catalog and of the state that it knows; -1 before.
        counted: What it had counted when it last said so.
        report: What it last said of itself.
        silent: It did not say in time that it knows a change; nobody waits for it.
        heard_at_s: When it last reported (monotonic).
        validation_slots: How many it holds.
    """

    number: int
    process: asyncio.subprocess.Process
    handover: Handover
    channel: Channel
    follows: bool = False
    serving: bool = False
    ready_at_s: float | None = None
    generation: int = -1
    revision: int = -1
    silent: bool = False
    heard_at_s: float = field(default_factory=time.monotonic)
    counted: list[Metric] = field(default_factory=list)
    report: WorkerReport | None = None
    validation_slots: int = 0

    @property
    def has_catalog(self) -> bool:
        """Whether it has told which catalog it knows. Before, it answers no requests."""
        return self.generation >= 0

    def lags(self, generation: int, revision: int) -> bool:
        """Whether it has a catalog, and knows less than this."""
        behind = self.generation < generation or self.revision < revision
        return self.has_catalog and not self.silent and behind

    def silent_for_s(self) -> float:
        """Return for how long it has not reported; 0 while it starts."""
        return time.monotonic() - self.heard_at_s if self.ready_at_s is not None else 0.0
