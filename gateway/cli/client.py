"""
Talk to a running gateway, on this machine or another, for the commands that need one.

`--url` or GATEWAY_URL says where, GATEWAY_KEY the key, if the gateway asks for one. An error leaves
as one line on standard error with its code, and exit code 1.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import httpx
import orjson
import typer
from rich.console import Console

DEFAULT_URL = "http://127.0.0.1:3000"
# Registering validates and loading waits for every replica: longer than either may take.
_TIMEOUT_S = 300.0

Url = Annotated[str, typer.Option("--url", envvar="GATEWAY_URL", help="Where the gateway answers.")]
Key = Annotated[
    str | None, typer.Option("--key", envvar="GATEWAY_KEY", help="A key, if it asks for one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for scripts.")]


class GatewayRefused(Exception):
    """The gateway answered an error; `code` is the stable word for it."""

    def __init__(self, detail: str, code: str) -> None:
        super().__init__(f"{detail} ({code})")
        self.code = code


class GatewayClient:
    """A gateway behind a URL."""

    def __init__(self, url: str, key: str | None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S)

    def call(self, method: str, path: str, **options: Any) -> Any:
        """
        Make a call and read its answer; None where it has no body.

        Raises:
            GatewayRefused: It answered an error.
            httpx.TransportError: It cannot be reached.
        """
        response = self._http.request(method, path, **options)
        try:
            answer = orjson.loads(response.content) if response.content else None
        except orjson.JSONDecodeError:
            answer = {"detail": f"HTTP {response.status_code}, not from a gateway", "code": "?"}
        if response.is_error or (isinstance(answer, dict) and answer.get("code") == "?"):
            error = answer if isinstance(answer, dict) else {}
            raise GatewayRefused(str(error.get("detail", response.text)), error.get("code", "?"))
        return answer

    def close(self) -> None:
        """Close its connections."""
        self._http.close()


@contextmanager
def gateway_at(url: str, key: str | None) -> Iterator[GatewayClient]:
    """Talk to a gateway for the length of the block; an error ends the command with one line."""
    client = GatewayClient(url, key)
    try:
        yield client
    except GatewayRefused as error:
        _end(str(error))
    except httpx.TransportError as error:
        _end(f"No gateway answers at {url}: {error or type(error).__name__}. Is it running?")
    finally:
        client.close()


def show_json(answer: Any) -> None:
    """Print an answer as JSON."""
    options = orjson.OPT_INDENT_2
    sys.stdout.write(orjson.dumps(answer, option=options).decode() + "\n")


def console() -> Console:
    """Make the console for tables: as wide as the terminal, wide enough in a pipe."""
    columns = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
    return Console(highlight=False, width=columns)


def _end(message: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(message, markup=False)
    raise SystemExit(1)
