"""The forms that every command shares: help, options, addresses, errors, tables."""

import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from gateway import __version__
from gateway.cli import app
from gateway.cli.client import default_url, make_table
from gateway.cli.metrics import requests_table

# They serve, install, or are started by the gateway alone: there is nothing to be read by a script.
_WITHOUT_JSON = {"serve", "worker", "setup-triton"}


def _commands(
    group: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))


_ALL = dict(_commands(typer.main.get_command(app)))
# `metrics` is a group that answers by itself.
_LEAVES = {path: each for path, each in _ALL.items() if path not in {("rollout",), ("keys",)}}


def _typed(*arguments: str, **environment: str) -> Any:
    return CliRunner().invoke(
        app, arguments, env={"COLUMNS": "80", "GATEWAY_URL": "", **environment}
    )


@pytest.mark.parametrize("path", [(), *_ALL], ids=" ".join)
def test_each_help_is_whole_at_80_columns(path: tuple[str, ...]) -> None:
    """`-h` is `--help`; no line is longer than 80 characters and no sentence is cut."""
    short, long = _typed(*path, "-h"), _typed(*path, "--help")
    assert (short.exit_code, short.output) == (0, long.output)
    lines = short.output.splitlines()
    cut = [line for line in lines if line.endswith("...") and not line.endswith("[ARGS]...")]
    assert cut == []
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("path", [path for path in _LEAVES if path[-1] not in _WITHOUT_JSON])
def test_whatever_answers_does_so_as_json(path: tuple[str, ...]) -> None:
    """Every command that answers takes `--json`."""
    options = {option for each in _LEAVES[path].params for option in each.opts}
    assert "--json" in options


def test_the_version_is_told() -> None:
    """`gateway --version` and `python -m gateway --version` print it and end."""
    assert _typed("--version").output == f"gateway {__version__}\n"
    command = [sys.executable, "-m", "gateway", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == (
        f"gateway {__version__}\n"
    )


@pytest.mark.parametrize(
    ("environment", "file", "url"),
    [
        ({}, "", "http://127.0.0.1:3000"),
        ({"PORT": "3001"}, "", "http://127.0.0.1:3001"),
        ({}, "PORT=3002\nHOST=10.0.0.7\n", "http://10.0.0.7:3002"),
        ({"PORT": "3003"}, "PORT=3002\n", "http://127.0.0.1:3003"),
        ({"HOST": "0.0.0.0"}, "", "http://127.0.0.1:3000"),
        ({"HOST": "::"}, "", "http://[::1]:3000"),
        ({"HOST": "fe80::1"}, "", "http://[fe80::1]:3000"),
    ],
)
def test_the_command_line_asks_where_serve_listens(
    environment: dict[str, str],
    file: str,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """HOST and PORT, of the environment or of .env, say where; an open address is this machine."""
    monkeypatch.chdir(tmp_path)
    for name in ("HOST", "PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".env").write_text(file)
    assert default_url() == url


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "127.0.0.1:9", "http://", "http://:x"])
@pytest.mark.parametrize("command", [("models",), ("metrics",), ("rollout", "list")])
def test_an_address_where_nobody_answers_is_one_line(command: tuple[str, ...], url: str) -> None:
    """It names the address and GATEWAY_URL; exit code 1, no traceback."""
    done = _typed(*command, "--url", url)
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    (line,) = done.output.splitlines()
    assert url in line
    assert "GATEWAY_URL" in line


class _Other(BaseHTTPRequestHandler):
    """Another server on the port, as people have them."""

    status, body = 200, b""

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>hello</html>"),
        (200, b"[]"),
        (404, b'{"detail": "Not Found"}'),
        (422, b'{"detail": [{"loc": ["query", "x"], "msg": "field required"}]}'),
        (502, b""),
    ],
)
def test_another_server_is_named_as_such(status: int, body: bytes) -> None:
    """What is not a gateway is called so, whatever it answers; its own errors are not passed on."""
    handler = type("Handler", (_Other,), {"status": status, "body": body})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            done = _typed("models", "--url", f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
    assert done.exit_code == 1
    assert "is not a gateway" in done.output
    assert "GATEWAY_URL" in done.output
    assert "field required" not in done.output


def test_a_mistyped_command_has_an_exit_code_of_its_own() -> None:
    """Usage errors are 2, refusals 1; `rollout watch` has 3 and 4 for a wait and a failure."""
    assert _typed("models", "--nonsense").exit_code == 2
    assert _typed("metrics", "--format", "xml", "--url", "http://127.0.0.1:9").exit_code == 2


@pytest.mark.parametrize("width", [80, 120])
def test_metrics_keep_endpoints_and_durations_whole(width: int) -> None:
    """At 80 and at 120 columns, beside a model with a long name."""
    row = {
        "endpoint": "roll_back_rollout",
        "model": "flowers-with-a-long-name",
        "version": 12,
        "start": "2026-01-01T00:00",
        "requests": 123456,
        "errors": 2,
        "error_share": 0.123,
        **{f"{name}_s": 1.4333 for name in ("p50", "p90", "p99", "mean")},
    }
    answer = {"group_by": ["endpoint", "model", "version"], "rows": [row]}
    out = io.StringIO()
    Console(file=out, width=width).print(requests_table(answer, answer, narrow=width < 120))
    text = out.getvalue()
    for whole in ("roll_back_rollout", "123456", "12.3%", "1433.3 ms", "ENDPOINT", "REQUESTS"):
        assert whole in text
    assert "…" not in text
    assert all(len(line.rstrip()) <= width for line in text.splitlines())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_table_cuts_nothing(width: int) -> None:
    """What is copied stays on one line; everything else goes on in the next."""
    table = make_table("ID", "MODEL", "WHY", whole=("ID",))
    found, reason = (
        "0123456789abcdef0123456789abcdef",
        "score drift was above what is tolerated " * 4,
    )
    table.add_row(found, "a-model-with-quite-a-long-name", reason)
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    text = out.getvalue()
    assert found in text
    assert "…" not in text
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    # Word by word, down the last column.
    assert text.count("tolerated") == 4
