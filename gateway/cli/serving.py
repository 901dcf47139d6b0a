"""`gateway serve`, `doctor` and `settings`: what runs on the machine itself."""

import asyncio
import shlex
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog
import uvloop
from rich.console import Console

from gateway.access.opening import NotSafe
from gateway.app import create_app
from gateway.cli.client import show_json
from gateway.cli.configured import fail, read_settings
from gateway.cli.doctor import examine, show
from gateway.cli.settings_table import settings_list, settings_table
from gateway.cli.setup_triton import ensure_triton
from gateway.control_plane import LocalControlPlane
from gateway.demo import DEMO_MODEL, SAMPLE
from gateway.errors import StoreUnavailable
from gateway.grpc_api.server import GrpcPortTaken, reserve_port
from gateway.listener import PortTaken, bind
from gateway.server import serve
from gateway.settings import Settings
from gateway.system.allocator import keep_large_buffers
from gateway.system.descriptors import raise_limit
from gateway.telemetry.logging import configure_logging
from gateway.telemetry.tracing import TracingUnavailable, require_tracing
from gateway.tls import TlsUnusable, read_certificates
from gateway.triton.discovery import TritonUrlInvalid
from gateway.triton.embedded import EmbeddedError
from gateway.workers.child.main import serve_as_worker
from gateway.workers.parent.main import serve_with_workers
from gateway.workers.parent.pool import WorkersFailed

log = structlog.get_logger(__name__)


def run_server(*, demo: bool, workers: int | None = None, insecure: bool = False) -> None:
    """Serve until a signal ends it; a start that fails is one line and exit code 1."""
    given: dict[str, int] = {} if workers is None else {"workers": workers}
    settings = read_settings(**given, **({"insecure": True} if insecure else {}))
    configure_logging(settings.log_level, settings.log_format)
    keep_large_buffers()
    raise_limit()
    try:
        require_tracing(settings.otel_exporter_otlp_endpoint)
        # Each process that serves reads it for itself; here it fails before anything is started.
        read_certificates(settings)
        listener, grpc_port = bind(settings), reserve_port(settings)
    except (TracingUnavailable, TlsUnusable, PortTaken, GrpcPortTaken) as error:
        fail(str(error))
    if grpc_port is not None:
        settings = settings.model_copy(update={"grpc_port": grpc_port.getsockname()[1]})
    if not settings.triton_urls:
        ensure_triton()
    port = listener.getsockname()[1]

    def welcome() -> None:
        _welcome(settings, port, demo=demo)

    if settings.workers > 1:
        _run(serve_with_workers(settings, listener, demo=demo, on_started=welcome))
    else:
        app = create_app(settings, plane=LocalControlPlane(settings, demo=demo))
        _run(serve(app, settings, listener, on_started=welcome))


def run_worker(number: int, channel: int, handover: int) -> None:
    """Be one of several worker processes; the descriptors lead to the parent."""
    configure_logging("info", "auto", worker=number)
    keep_large_buffers()
    _run(serve_as_worker(number, socket.socket(fileno=channel), socket.socket(fileno=handover)))


def _run(serving: Coroutine[Any, Any, None]) -> None:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serving)
    except (EmbeddedError, NotSafe, TritonUrlInvalid, StoreUnavailable, WorkersFailed) as error:
        fail(str(error) if error.__cause__ is None else f"{error} {error.__cause__}")


def run_doctor(*, as_json: bool) -> None:
    """Look at the machine, print what was found, and exit with 1 if something is wrong."""
    settings = read_settings()
    findings = asyncio.run(examine(settings))
    show(findings, as_json=as_json)
    sys.exit(0 if all(finding.ok for finding in findings) else 1)


def print_settings(*, as_json: bool) -> None:
    """Print every setting: as a Markdown table, or its description and default as JSON."""
    if as_json:
        show_json(settings_list())
        return
    Console(soft_wrap=True, highlight=False).print(settings_table(), markup=False, end="")


def _welcome(settings: Settings, port: int, *, demo: bool) -> None:
    """Say where the server is; to a person also a line to paste that works."""
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104 - compared, not bound
    url = f"{'http' if settings.tls_cert is None else 'https'}://{host}:{port}"
    if settings.log_format != "console" and not sys.stdout.isatty() and not demo:
        # Whoever reads the log reads one JSON object a line; who tries the demo wants the line.
        log.info("ready", url=url)
        return
    # Width is not cut: a line to be pasted must stay one line.
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"\nReady: {url}/docs\n")
    if demo and settings.models_dir is None:
        console.print("Ask the demo model what it sees (a seven):\n")
        console.print(f"  {_question(url)}\n", markup=False)
    else:
        console.print(f"  curl -s {url}/api/v1/list\n", markup=False)


def _question(url: str) -> str:
    """Write the call that sends the demo's picture, as a line for a shell."""
    here = SAMPLE.is_relative_to(Path.cwd())
    picture = shlex.quote(str(SAMPLE.relative_to(Path.cwd()) if here else SAMPLE))
    kind = "-H 'Content-Type: image/png'"
    return f"curl -s {url}/api/v1/run/{DEMO_MODEL} {kind} --data-binary @{picture}"
