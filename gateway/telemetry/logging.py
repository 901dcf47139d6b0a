"""
Logs: structlog, readable on a terminal, JSON lines elsewhere. Records of libraries that use the
standard module pass through the same renderer. One record is one line: control characters and line
separators in a value are escaped, so that no name or header can write a line of its own.
"""

import logging
import re
import sys
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from gateway.telemetry.log_writer import LogWriter

# C0, DEL, C1, and the two separators that some viewers break lines at.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure_logging(
    level: str, form: Literal["auto", "console", "json"], *, worker: int | None = None
) -> None:
    """
    Set up logging for the process.

    Args:
        level: Least severe level, in lower case.
        form: "auto" is "console" if stderr is a terminal.
        worker: The number that every record carries, of one of several worker processes.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=not console),
        structlog.processors.StackInfoRenderer(),
    ]
    if worker is not None:
        shared.append(_add_worker(worker))
    renderers: list[Processor] = (
        [_escape, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=24)]
        if console
        # json escapes what is below a blank; ensure_ascii escapes the rest.
        else [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=True),
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = _handler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Each says at `info` what our own records say better.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "httpx", "alembic"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(logging.WARNING, root.level))


def _handler() -> logging.Handler:
    try:
        return LogWriter(sys.stderr.fileno())
    except (AttributeError, OSError):
        # Whoever has put something else in the place of stderr reads it.
        return logging.StreamHandler(sys.stderr)


def _add_worker(number: int) -> Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        # What tells of another worker says so itself.
        event.setdefault("worker", number)
        return event

    return add


def _escape(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape control characters in every string that goes to a terminal, but the traceback."""
    for key, value in event.items():
        if isinstance(value, str) and key not in {"exception", "stack"}:
            event[key] = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", value)
    return event
