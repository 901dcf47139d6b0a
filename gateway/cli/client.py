"""
Talk to a running gateway, on this machine or another, for the commands that need one.

`--url` or GATEWAY_URL says where. Without them it is this machine, on the PORT of the environment
or of `.env`, as for `serve`. GATEWAY_KEY is the key, if the gateway asks for one. An error is one
line on standard error with its code, and exit code 1; a mistyped command has exit code 2.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import httpx
import orjson
import typer
from dotenv import dotenv_values
from rich.console import Console
from rich.table import Table

# Registering validates and loading waits for every replica: longer than either may take.
_TIMEOUT_S = 300.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - compared, not bound

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="GATEWAY_URL",
        show_default=False,
        help="Where the gateway answers. Default: this machine, on PORT.",
    ),
]
Key = Annotated[
    str | None, typer.Option("--key", envvar="GATEWAY_KEY", help="A key, if it asks for one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for scripts.")]


class GatewayRefused(Exception):
    """The gateway answered an error; `code` is the stable word for it."""

    def __init__(self, detail: str, code: str) -> None:
        super().__init__(f"{detail} ({code})")
        self.code = code


class NotAGateway(Exception):
    """Something answers at that address, and it is not a gateway."""


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
            NotAGateway: Another server answered.
            httpx.TransportError: It cannot be reached.
        """
        content = self.read(method, path, **options)
        try:
            return orjson.loads(content) if content else None
        except orjson.JSONDecodeError:
            raise NotAGateway("it does not answer JSON") from None

    def read(self, method: str, path: str, **options: Any) -> bytes:
        """
        Make a call and return the answer's body.

        Raises: As `call`.
        """
        response = self._http.request(method, path, **options)
        # Every answer of a gateway carries it.
        if "x-request-id" not in response.headers:
            raise NotAGateway(f"it answers HTTP {response.status_code} as no gateway does")
        if response.is_error:
            raise _refusal(response)
        return response.content

    def close(self) -> None:
        """Close its connections."""
        self._http.close()


@contextmanager
def gateway_at(url: str | None, key: str | None) -> Iterator[GatewayClient]:
    """Talk to a gateway for the length of the block; an error ends the command with one line."""
    url = url or default_url()
    elsewhere = "--url or GATEWAY_URL names another"
    try:
        client = GatewayClient(url, key)
    except httpx.InvalidURL as error:
        _end(f"{url!r} is not a URL: {error}. {elsewhere}.")
    try:
        yield client
    except GatewayRefused as error:
        _end(str(error))
    except NotAGateway as error:
        _end(f"What answers at {url} is not a gateway: {error}. {elsewhere}.")
    except httpx.UnsupportedProtocol:
        _end(f"{url!r} is not a URL: it begins with http:// or https://. {elsewhere}.")
    except httpx.HTTPError as error:
        _end(
            f"No gateway answers at {url} ({error or type(error).__name__}). "
            f"`gateway serve` starts one; {elsewhere}."
        )
    finally:
        client.close()


def default_url() -> str:
    """Return where `gateway serve` listens with the settings of this folder and environment."""
    settings = {**dotenv_values(".env"), **os.environ}
    host = settings.get("HOST") or "127.0.0.1"
    host = _EVERYWHERE.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{settings.get('PORT') or 3000}"


def show_json(answer: Any) -> None:
    """Print an answer as JSON."""
    options = orjson.OPT_INDENT_2
    sys.stdout.write(orjson.dumps(answer, option=options).decode() + "\n")


def console() -> Console:
    """Make the console for tables: as wide as the terminal, wide enough in a pipe."""
    columns = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
    return Console(highlight=False, width=columns)


def make_table(*columns: str, whole: tuple[str, ...] = (), right: tuple[str, ...] = ()) -> Table:
    """
    Make a table that never cuts a cell: what does not fit goes on in the next line.

    Args:
        columns: The headings.
        whole: Those whose cells stay on one line, because they are copied.
        right: Those of numbers.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            column,
            overflow="fold",
            no_wrap=column in whole,
            justify="right" if column in right else "left",
        )
    return table


def _refusal(response: httpx.Response) -> GatewayRefused:
    try:
        error = orjson.loads(response.content)
        detail, code = error["detail"], error["code"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise NotAGateway(f"it answers HTTP {response.status_code} as no gateway does") from None
    if isinstance(detail, list):  # what validation says of each field
        detail = "; ".join(
            f"{'.'.join(str(part) for part in each['loc'][1:])}: {each['msg']}" for each in detail
        )
    return GatewayRefused(str(detail), str(code))


def _end(message: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(message, markup=False)
    raise SystemExit(1)
