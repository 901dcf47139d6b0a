"""
Tune one model on this machine: find out what it is, search, and say what was found. Nothing is
written here (`records.py` does, when it is asked to).
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.converter.placement import usable_cores
from gateway.settings import Settings
from gateway.tuning.candidates import read_candidate, read_space
from gateway.tuning.judgement import Objective
from gateway.tuning.records import read_record
from gateway.tuning.search import Budget, Search, SearchResult
from gateway.tuning.subject import Subject, read_subject
from gateway.tuning.workbench import open_workbench

# A machine with so much to do for each core measures its other work, too.
_BUSY_LOAD = 0.3


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    What is asked for.

    Attributes:
        name, version: The model; None: its champion, or the newest.
        objective: What to choose for.
        callers: The numbers of callers at once.
        budget_s: Time for measuring, seconds; starting Triton and the first load come on top.
        image: An encoded image to ask with.
        shape: Of the input, instead.
    """

    name: str
    version: int | None = None
    objective: Objective = Objective.BALANCED
    callers: Sequence[int] = (1, 4, 16)
    budget_s: float = 60.0
    image: bytes | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Tuning:
    """
    What came of it.

    Attributes:
        subject: What was tuned.
        result: What the search found.
        cores: Of this machine, as far as this process may use them.
        load_1m: What waited for them before, on average over a minute.
        measure_s: How long each number of callers was measured in each round.
        took_s: The search, seconds.
    """

    wanted: Wanted
    subject: Subject
    result: SearchResult
    cores: int
    load_1m: float
    measure_s: float
    took_s: float

    @property
    def busy(self) -> bool:
        """Whether the machine had other work, so that the figures are noise in part."""
        return self.load_1m > _BUSY_LOAD * self.cores


async def tune(
    settings: Settings,
    repository: Path,
    wanted: Wanted,
    *,
    on_round: Callable[[str, float], None] = lambda _text, _share: None,
) -> Tuning:
    """
    Search for a better configuration of a model.

    Args:
        settings: Of the gateway, whose record of the model is read if it has one.
        repository: The model repository, absolute; it is only read.
        wanted: What is asked for.
        on_round: Is told what is being measured, and which part of the time is over (0 to 1).

    Raises:
        TuningError: One of its classes; see there.
        GatewayError, ConverterError: What is asked for is missing or does not fit; see
            `read_subject`.
        EmbeddedError: Triton does not start on this machine.
    """
    load_1m = os.getloadavg()[0]
    subject = read_subject(
        repository,
        wanted.name,
        await read_record(settings, repository, wanted.name),
        version=wanted.version,
        image=wanted.image,
        shape=wanted.shape,
        max_image_pixels=settings.max_image_pixels,
    )
    cores = usable_cores()
    present = read_candidate(subject.config)
    async with open_workbench(
        repository,
        subject,
        present=present,
        callers=wanted.callers,
        shared_memory=settings.shared_memory != "off",
    ) as bench:
        await bench.calibrate(wanted.budget_s)
        began_s = time.monotonic()
        result = await Search(
            present=present,
            space=read_space(subject.config, cores=cores),
            objective=wanted.objective,
            measure=bench.measure,
            load_s=bench.load_s,
            budget=Budget(began_s + wanted.budget_s, time.monotonic),
            on_round=lambda text: on_round(text, (time.monotonic() - began_s) / wanted.budget_s),
        ).run()
        took_s = time.monotonic() - began_s
    return Tuning(wanted, subject, result, cores, load_1m, bench.measure_s, took_s)
