"""`gateway tune`: search for a better configuration of a model, on this machine."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from gateway.cli.client import console, make_table, show_json
from gateway.cli.configured import fail, read_settings
from gateway.converter.errors import ConverterError
from gateway.errors import GatewayError
from gateway.settings import Settings
from gateway.telemetry.logging import configure_logging
from gateway.triton.embedded import EmbeddedError
from gateway.tuning.candidates import Candidate
from gateway.tuning.errors import TuningError
from gateway.tuning.judgement import Figures, Objective
from gateway.tuning.plot import draw
from gateway.tuning.records import Written, write_candidate
from gateway.tuning.report import config_text, to_json, warnings
from gateway.tuning.tune import Tuning, Wanted, tune

# A client of one Triton keeps no more connections.
_MOST_CALLERS = 256


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """What was typed; see `gateway tune --help`."""

    name: str
    version: int | None
    objective: str
    budget_s: float
    callers: str
    image: Path | None
    shape: str | None

    def read(self) -> Wanted:
        """
        Make sense of it.

        Raises:
            ValueError: Something is no number, or no objective.
            OSError: The image cannot be read.
        """
        callers = _numbers(self.callers, "--callers")
        if max(callers) > _MOST_CALLERS:
            raise ValueError(f"--callers: at most {_MOST_CALLERS} at once")
        if self.objective not in list(Objective):
            raise ValueError(f"--for: one of {', '.join(Objective)}, not {self.objective!r}")
        return Wanted(
            name=self.name,
            version=self.version,
            objective=Objective(self.objective),
            callers=callers,
            budget_s=self.budget_s,
            image=None if self.image is None else self.image.read_bytes(),
            shape=None if self.shape is None else _numbers(self.shape, "--shape"),
        )


def run_tune(
    asked: TuneOptions,
    *,
    model_repository: Path | None,
    write: bool,
    as_json: bool,
    plot: Path | None,
) -> None:
    """
    Tune a model and show what was found; an error is one line and exit code 1.

    Args:
        asked: What to tune, and how.
        model_repository: The repository; None: that of the settings.
        write: Write the winner, if it is better.
        as_json: Print one JSON object instead of a table.
        plot: Where to draw the figures, as SVG.
    """
    settings = read_settings()
    configure_logging("error", settings.log_format)
    repository = (model_repository or settings.model_repository).resolve()
    try:
        wanted = asked.read()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            tuning = runner.run(_tune(settings, repository, wanted))
            written = None
            if write and tuning.result.decision.replace:
                winner = tuning.result.winner
                written = runner.run(write_candidate(settings, repository, tuning.subject, winner))
        if plot is not None:
            plot.write_text(_picture(tuning), encoding="utf-8")
    except (TuningError, ConverterError, GatewayError) as error:
        fail(f"{error} ({error.code})")
    except (EmbeddedError, OSError, ValueError) as error:
        fail(str(error))
    if as_json:
        show_json(to_json(tuning, written))
    else:
        show(tuning, written, console(), write=write)


def show(tuning: Tuning, written: Written | None, out: Console, *, write: bool) -> None:
    """Print what was found as a table, and what to do now."""
    result = tuning.result
    out.print(_table(tuning))
    for candidate, reason in result.failed.items():
        out.print(Text(f"Failed: {candidate}: {reason}", style="yellow"))
    for warning in warnings(tuning):
        out.print(Text(f"Warning: {warning}", style="yellow"))
    if not result.decision.replace:
        out.print(Text(result.decision.reason))
        return
    out.print(Text(f"{result.winner}. {result.decision.reason}", style="bold"))
    if written is not None:
        out.print(Text(_what_was_written(tuning.subject.name, written)))
    elif not write:
        out.print(Text("\nconfig.pbtxt would be (--write writes it):\n"))
        out.print(Text(config_text(tuning)))


async def _tune(settings: Settings, repository: Path, wanted: Wanted) -> Tuning:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    err = Console(stderr=True)
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("Starting Triton", total=1.0)

        def show_round(text: str, share: float) -> None:
            progress.update(task, description=text, completed=min(1.0, share))

        return await tune(settings, repository, wanted, on_round=show_round)


def _table(tuning: Tuning) -> Table:
    """Make the table: the final rounds of the two first, then all others, best known first."""
    result = tuning.result
    measured = [
        heading
        for number in result.figures[result.present].callers
        for heading in (f"{number} at once: req/s", "p99 ms")
    ]
    measured += ["to present: req/s", "p99", "rounds"]
    table = make_table("candidate", *measured, right=tuple(measured))
    table.title = f"{tuning.subject.name}, version {tuning.subject.version}"
    base = result.final[result.present]
    for candidate, figures in result.final.items():
        what = "present" if candidate == result.present else "best found"
        table.add_row(*_row(f"{candidate} ({what})", figures, base), style="bold")
    table.add_section()
    present = result.figures[result.present]
    others = [c for c in result.figures if c not in result.final]
    for candidate in sorted(others, key=lambda c: -result.figures[c].throughput_per_s):
        table.add_row(*_row(str(candidate), result.figures[candidate], present))
    return table


def _row(name: str, figures: Figures, present: Figures) -> list[str]:
    cells = [name]
    for number in figures.callers:
        cells += [f"{figures.rate_per_s(number):.1f}", f"{figures.p99_s(number) * 1000:.2f}"]
    return [
        *cells,
        f"{figures.throughput_per_s / present.throughput_per_s:.2f}×",
        f"{figures.latency_s / present.latency_s:.2f}×",
        str(len(figures.rounds)),
    ]


def _picture(tuning: Tuning) -> str:
    result = tuning.result
    figures: dict[Candidate, Figures] = {**result.figures, **result.final}
    title = f"{tuning.subject.name}, version {tuning.subject.version}, {tuning.cores} cores"
    return draw(title, figures, present=result.present, winner=result.winner)


def _what_was_written(name: str, written: Written) -> str:
    said = "config.pbtxt is changed" if written.file else "config.pbtxt is left as it was"
    if not written.versions:
        return f"{said}; a gateway that adopts the repository loads {name} with it."
    numbers = ", ".join(map(str, written.versions))
    return (
        f"{said}, and the record of version {numbers}. A running gateway loads {name} anew by "
        "itself, with no gap."
    )


def _numbers(text: str, option: str) -> tuple[int, ...]:
    """Read whole numbers that are separated by commas."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise ValueError(f"{option}: whole numbers separated by commas, not {text!r}")
    return numbers
