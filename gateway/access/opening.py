"""
Opens what tells who may ask: the keys of the settings and of the database, and the tokens of an
issuer. Refuses to serve everybody on an address that others can reach.
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from pydantic import SecretStr

from gateway.access.keyring import Keyring
from gateway.access.keys import Pepper
from gateway.access.secret_file import secret_in
from gateway.background.tasks import Work
from gateway.registry.registry import Registry
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.store.keys import KeyStore

if TYPE_CHECKING:
    from gateway.access.sign_in import SignIn
    from gateway.access.tokens import Tokens

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


@dataclass(frozen=True, slots=True)
class Access:
    """
    What tells who may ask.

    Attributes:
        keyring: Tells who shows a key or a token.
        sign_in: Signs people in with a browser, if the settings say so.
        follow: Keeps the issuer's keys those of now, for as long as it runs; None without one.
    """

    keyring: Keyring
    sign_in: "SignIn | None" = None
    follow: Work | None = None


@contextlib.asynccontextmanager
async def open_access(
    settings: Settings, database: Database, registry: Registry
) -> AsyncIterator[Access]:
    """
    Read the keys; they are read again with every new generation of the registry.

    Raises:
        NotSafe: Nobody has made a key, and others can reach the gateway; or a secret's file cannot
            be read, or settings contradict each other.
        StoreUnavailable: The database cannot be read.
    """
    bootstrap = _secret(settings.gateway_admin_key, settings.gateway_admin_key_file)
    if bootstrap is not None and len(bootstrap) < 16:
        raise NotSafe("GATEWAY_ADMIN_KEY_FILE: the key has less than 16 characters.")
    pepper = await asyncio.to_thread(_pepper, settings)
    async with contextlib.AsyncExitStack() as stack:
        tokens = _tokens(settings)
        if tokens is not None:
            stack.push_async_callback(tokens.close)
        keyring = Keyring(pepper, KeyStore(database).read_all, bootstrap=bootstrap, tokens=tokens)
        await keyring.refresh()
        if keyring.open and not settings.insecure and not is_loopback(settings.host):
            raise NotSafe(
                f"HOST={settings.host} lets others reach this gateway, and without a key everybody "
                "may do everything. Either set GATEWAY_ADMIN_KEY (openssl rand -hex 32 makes one) "
                "or OIDC_ISSUER, or serve everybody with --insecure (INSECURE=true)."
            )
        registry.read_alongside(keyring.refresh)
        if tokens is None:
            yield Access(keyring)
        else:
            yield Access(keyring, _sign_in(settings, tokens, pepper), tokens.follow)


def _tokens(settings: Settings) -> "Tokens | None":
    if settings.oidc_issuer is None and settings.oidc_client_id is None:
        return None
    try:
        # Optional, and slow to import.
        from gateway.access.issuer_opening import open_tokens  # noqa: PLC0415
    except ImportError as error:
        raise NotSafe("OIDC_ISSUER needs: pip install 'onnx-gateway[oidc]'.") from error
    try:
        return open_tokens(settings)
    except ValueError as error:
        raise NotSafe(str(error)) from None


def _sign_in(settings: Settings, tokens: "Tokens", pepper: Pepper) -> "SignIn | None":
    from gateway.access.issuer_opening import open_sign_in  # noqa: PLC0415

    secret = _secret(settings.oidc_client_secret, settings.oidc_client_secret_file)
    try:
        return open_sign_in(settings, tokens, pepper, secret)
    except ValueError as error:
        raise NotSafe(str(error)) from None


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
        return Pepper(secret_in(path).encode())
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
