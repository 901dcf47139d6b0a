"""
Where candidates are measured: an embedded Triton of its own, in a temporary folder. A server in
production is not touched; it only shares the machine.

The model is there under two names, as links to its files. The present configuration stays loaded
under the one; the others take turns under the other, each by a load that carries its configuration
(docs/decisions/0001). So two copies of a model are in memory and no more, and the rounds that
decide between two cost no load. The copy that nobody asks takes no time from the other.

So many callers at once ask and ask again, each waiting for its answer, as a gateway's requests do:
the input lies in shared memory where that can be had.
"""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gateway.converter.layout import CONFIG_FILE
from gateway.triton.client import TritonClient
from gateway.triton.embedded import EmbeddedOptions, EmbeddedTriton
from gateway.triton.errors import TritonError
from gateway.triton.slots import PAGE_BYTES
from gateway.triton.tensor import Canvas, InputTensor
from gateway.tuning.candidates import Candidate, load_text
from gateway.tuning.errors import PresentFails
from gateway.tuning.judgement import Measured, Round
from gateway.tuning.search import MeasurementFailed
from gateway.tuning.subject import Subject

_PRESENT, _OTHER = "present", "other"
_LOAD_TIMEOUT_S = 120.0
_SHARE_TIMEOUT_S = 5.0
# Of each caller before it counts: connections, caches, the allocator.
_WARM_UP_REQUESTS = 3
_LEAST_REQUESTS = 3
_SHORTEST_S, _LONGEST_S = 0.1, 1.0
# A measurement is as long as so many requests of one caller: then a p99 means something.
_WANTED_REQUESTS = 300


@dataclass(slots=True)
class Workbench:
    """
    Measures candidates of one subject.

    Attributes:
        present: The candidate that stays loaded.
        callers: The numbers of callers at once.
        measure_s: How long each of them is measured, in one round.
        load_s: How long a load takes.
    """

    subject: Subject
    present: Candidate
    callers: Sequence[int]
    client: TritonClient
    tensor: InputTensor
    measure_s: float = _SHORTEST_S
    load_s: float = 0.0
    _loaded: dict[str, Candidate] = field(default_factory=dict)

    async def calibrate(self, budget_s: float) -> None:
        """
        Load the present configuration, and choose how long to measure by how long the model takes
        and by how much time there is.

        Raises:
            PresentFails: The present configuration does not load, or fails on the input.
        """
        try:
            began_s = time.perf_counter()
            await self._load(_PRESENT, self.present)
            self.load_s = time.perf_counter() - began_s
            took_s = (await self._ask(_PRESENT, 1, seconds=0.0)).p99_s
        except MeasurementFailed as error:
            raise PresentFails(f"The present configuration cannot be measured: {error}") from error
        # Fifteen rounds of two candidates fit into a third of the time at least.
        longest_s = min(_LONGEST_S, budget_s / 3 / 30 / len(self.callers))
        self.measure_s = max(_SHORTEST_S, min(longest_s, took_s * _WANTED_REQUESTS))

    async def measure(self, candidate: Candidate) -> Round:
        """
        Load a candidate, if it is not loaded, and measure it once with each number of callers.

        Raises:
            MeasurementFailed: It does not load, or fails on the input.
        """
        name = _PRESENT if candidate == self.present else _OTHER
        await self._load(name, candidate)
        return {callers: await self._ask(name, callers, self.measure_s) for callers in self.callers}

    async def _load(self, name: str, candidate: Candidate) -> None:
        if self._loaded.get(name) == candidate:
            return
        text = load_text(self.subject.config, candidate, self.subject.version, name=name)
        try:
            await self.client.load(name, text, timeout_s=_LOAD_TIMEOUT_S)
        except TritonError as error:
            raise MeasurementFailed(_first_line(error)) from error
        self._loaded[name] = candidate

    async def _ask(self, name: str, callers: int, seconds: float) -> Measured:
        """Let callers ask for some time; what is under way at its end is waited for and counts."""
        latencies_s: list[float] = []
        try:
            async with asyncio.TaskGroup() as warming:
                for _ in range(callers):
                    warming.create_task(self._warm_up(name))
            began_s = time.perf_counter()
            async with asyncio.TaskGroup() as asking:
                for _ in range(callers):
                    asking.create_task(self._call(name, began_s + seconds, latencies_s))
        except* TritonError as group:
            raise MeasurementFailed(_first_line(group.exceptions[0])) from group
        took_s = time.perf_counter() - began_s
        return Measured(len(latencies_s) / took_s, float(np.percentile(latencies_s, 99)))

    async def _warm_up(self, name: str) -> None:
        for _ in range(_WARM_UP_REQUESTS):
            await self._infer(name)

    async def _call(self, name: str, until_s: float, latencies_s: list[float]) -> None:
        asked = 0
        before_s = time.perf_counter()
        while asked < _LEAST_REQUESTS or before_s < until_s:
            await self._infer(name)
            after_s = time.perf_counter()
            latencies_s.append(after_s - before_s)
            before_s = after_s
            asked += 1

    async def _infer(self, name: str) -> None:
        given, output = self.subject.signature.inputs[0], self.subject.signature.outputs[0]
        await self.client.infer(
            name,
            self.subject.version,
            input_name=given.name,
            input_dtype=given.dtype,
            tensor=self.tensor,
            output_name=output.name,
        )


@contextlib.asynccontextmanager
async def open_workbench(
    repository: Path,
    subject: Subject,
    *,
    present: Candidate,
    callers: Sequence[int],
    shared_memory: bool,
) -> AsyncIterator[Workbench]:
    """
    Start a Triton for measuring, and end it.

    Args:
        repository: The model repository, absolute; it is only read.
        subject: What is measured.
        present: Its present configuration.
        callers: The numbers of callers at once.
        shared_memory: Whether to hand the input over in shared memory; else it is sent.

    Raises:
        EmbeddedError: Triton does not start on this machine.
    """
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-tune-")))
        linked = _link(repository / subject.triton_model, folder / "models")
        options = EmbeddedOptions(repository=linked, data_dir=folder / "var")
        triton = EmbeddedTriton(options)
        client = TritonClient(await triton.start())
        stack.push_async_callback(triton.stop, idle=True)
        stack.push_async_callback(client.close)
        if shared_memory:
            size_bytes = -(-subject.tensor.nbytes // PAGE_BYTES) * PAGE_BYTES
            await client.share(size_bytes, timeout_s=_SHARE_TIMEOUT_S)
        tensor = Canvas(client.region).tensor(subject.tensor)
        stack.callback(tensor.release)
        yield Workbench(subject, present, sorted(set(callers)), client, tensor)


def _link(model: Path, repository: Path) -> Path:
    """Make a repository in which a model is there twice, without its config.pbtxt."""
    for name in (_PRESENT, _OTHER):
        (repository / name).mkdir(parents=True)
        for entry in model.iterdir():
            if entry.name != CONFIG_FILE:
                (repository / name / entry.name).symlink_to(entry)
    return repository


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
