"""
`gateway doctor`: tells what is wrong with a machine before something fails on it, each line with
the fix. It changes nothing and starts nothing that it does not end.
"""

import asyncio
import json
import os
import shutil
import socket
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gateway.errors import StoreUnavailable
from gateway.listener import PortTaken, bind
from gateway.settings import Settings
from gateway.store.database import open_database
from gateway.triton.client import TritonClient
from gateway.triton.discovery import TritonUrlInvalid, parse_triton_url
from gateway.triton.embedded import EmbeddedOptions, Finding, preflight
from gateway.triton.errors import TritonError

_SANDBOX = "gateway.registry.validation.sandbox"
_LEAST_DISK_BYTES = 2 * 1024**3
_REPLICA_TIMEOUT_S = 3.0


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything that this gateway needs with these settings."""
    findings = [_port(settings), *_disk(settings), await _database(settings), await _sandbox()]
    if settings.triton_urls:
        findings += [await _replica(settings, text) for text in settings.triton_urls]
    else:
        options = EmbeddedOptions(
            data_dir=settings.data_dir.resolve(),
            repository=settings.model_repository.resolve(),
        )
        findings += preflight(options.data_dir, options.repository)
    return findings


def show(findings: list[Finding], *, as_json: bool) -> None:
    """Print the findings as a table, or as JSON."""
    if as_json:
        print(json.dumps({"findings": [asdict(found) for found in findings]}))  # noqa: T201 - for scripts
        return
    table = Table(box=None, pad_edge=False)
    for column in ("", "check", "found"):
        table.add_column(column)
    for found in findings:
        mark = "[green]ok[/]" if found.ok else "[red]no[/]"
        detail = found.detail if found.ok or not found.fix else f"{found.detail}\n→ {found.fix}"
        table.add_row(mark, found.name, detail)
    Console().print(table)


def _port(settings: Settings) -> Finding:
    try:
        bind(settings).close()
    except PortTaken as error:
        return Finding("port", False, str(error), "Stop the other server, or set PORT.")
    return Finding("port", True, f"{settings.host}:{settings.port} is free")


def _disk(settings: Settings) -> list[Finding]:
    findings = []
    for name, path in (("data", settings.data_dir), ("repository", settings.model_repository)):
        place = _existing(path.resolve())
        free = shutil.disk_usage(place).free
        writable = os.access(place, os.W_OK)
        ok = free >= _LEAST_DISK_BYTES and writable
        detail = f"{path}: {free / 1024**3:.1f} GiB free" + ("" if writable else ", not writable")
        setting = "DATA_DIR" if name == "data" else "MODEL_REPOSITORY"
        findings.append(
            Finding(f"{name} folder", ok, detail, f"Free some space, or set {setting} elsewhere.")
        )
    return findings


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())


async def _database(settings: Settings) -> Finding:
    try:
        database = await open_database(settings.resolved_database_url)
    except StoreUnavailable as error:
        if isinstance(error.__cause__, ImportError):
            return Finding("database", False, "its driver is not installed", str(error))
        return Finding(
            "database",
            False,
            f"{error.__cause__ or error}",
            "Check DATABASE_URL and that the server runs.",
        )
    await database.close()
    return Finding("database", True, settings.resolved_database_url.split("@")[-1])


async def _sandbox() -> Finding:
    """Confine a process as a validation is, and tell which bounds the machine allows."""
    name = "sandbox of validation"
    with tempfile.TemporaryDirectory() as folder:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-m", _SANDBOX, folder),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        printed, _ = await process.communicate()
    try:
        held: dict[str, bool] = json.loads(printed)
    except ValueError:
        return Finding(name, False, f"ended with {process.returncode}", "Uploads will fail.")
    detail = ", ".join(f"{what}: {'held' if holds else 'no'}" for what, holds in held.items())
    return Finding(
        name,
        held["calls"],
        f"{detail} (files need Linux 5.13, namespaces a runtime that allows them)",
        "Allow seccomp filters: without them an uploaded model may open connections.",
    )


async def _replica(settings: Settings, text: str) -> Finding:
    name = "replica"
    try:
        url = parse_triton_url(text)
        socket.getaddrinfo(url.host, url.http_port)
    except TritonUrlInvalid as error:
        return Finding(name, False, str(error), "Correct TRITON_URLS.")
    except OSError as error:
        return Finding(name, False, f"{text}: {error.strerror}", "Correct the name in TRITON_URLS.")
    client = TritonClient(url.endpoint(url.host, settings.triton_admin_key))
    try:
        entries = await client.index(timeout_s=_REPLICA_TIMEOUT_S)
    except TritonError as error:
        return Finding(
            name,
            False,
            f"{text}: {error}",
            "Start it with --model-control-mode=explicit, open its gRPC port, "
            "and set TRITON_ADMIN_KEY if its calls are restricted.",
        )
    finally:
        await client.close()
    ready = sum(entry.state == "READY" for entry in entries)
    return Finding(name, True, f"{text}: answers, {ready} versions ready")
