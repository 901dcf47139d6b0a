"""
Opens what tells who may ask: the keys of the settings and of the database. Refuses to serve
everybody on an address that others can reach.
"""

import asyncio
import ipaddress
from pathlib import Path

import structlog
from pydantic import SecretStr

from gateway.access.keyring import Keyring
from gateway.access.keys import Pepper
from gateway.access.secret_file import kept_secret
from gateway.registry.registry import Registry
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.store.keys import KeyStore

log = structlog.get_logger(__name__)

_SECRET_FILE = "keys.secret"  # noqa: S105 - where it is, not what it is
_WARN_EVERY_S = 3600.0


class NotSafe(Exception):
    """The gateway would let everybody do everything, or cannot read its secrets."""


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


async def open_keyring(settings: Settings, database: Database, registry: Registry) -> Keyring:
    """
    Read the keys; they are read again with every new generation of the registry.

    Raises:
        NotSafe: Nobody has made a key, and others can reach the gateway; or a secret's file cannot
            be read.
        StoreUnavailable: The database cannot be read.
    """
    bootstrap = _secret(settings.gateway_admin_key, settings.gateway_admin_key_file)
    if bootstrap is not None and len(bootstrap) < 16:
        raise NotSafe("GATEWAY_ADMIN_KEY_FILE: the key has less than 16 characters.")
    keyring = Keyring(
        await asyncio.to_thread(_pepper, settings), KeyStore(database).read_all, bootstrap=bootstrap
    )
    await keyring.refresh()
    if keyring.open and not settings.insecure and not is_loopback(settings.host):
        raise NotSafe(
            f"HOST={settings.host} lets others reach this gateway, and without a key everybody may "
            "do everything. Either set GATEWAY_ADMIN_KEY (openssl rand -hex 32 makes one), or "
            "serve everybody with --insecure (INSECURE=true)."
        )
    registry.read_alongside(keyring.refresh)
    return keyring


async def warn_while_open(settings: Settings, keyring: Keyring) -> None:
    """Say every hour that everybody may do everything, if others can reach the gateway."""
    while not is_loopback(settings.host):
        if keyring.open:
            log.warning("open_to_everybody", host=settings.host, mend="GATEWAY_ADMIN_KEY")
        await asyncio.sleep(_WARN_EVERY_S)


def _pepper(settings: Settings) -> Pepper:
    given = _secret(settings.keys_secret, settings.keys_secret_file)
    if given is not None:
        return Pepper(given.encode())
    path = settings.data_dir / _SECRET_FILE
    try:
        return Pepper(kept_secret(path).encode())
    except OSError as error:
        raise NotSafe(f"The secret of keys cannot be kept in {path}: {error.strerror}.") from error


def _secret(value: SecretStr | None, file: Path | None) -> str | None:
    if value is not None:
        return value.get_secret_value()
    if file is None:
        return None
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise NotSafe(f"{file} cannot be read: {error.strerror}.") from error
    if not text:
        raise NotSafe(f"{file} is empty.")
    return text
