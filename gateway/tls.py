"""
TLS: the certificate that this gateway shows, and the clients' certificates that it asks for. Both
are read again when their files change; connections that are open keep what they began with.
"""

import asyncio
import contextlib
import ssl
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from gateway.background.tasks import run_in_background
from gateway.settings import Settings

log = structlog.get_logger(__name__)

_LOOK_EVERY_S = 1.0


class TlsUnusable(Exception):
    """The certificate, its key or the clients' CA cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """
    Files in PEM.

    Attributes:
        certificate: The server's chain, its own certificate first.
        key: The private key; None if it stands in the certificate's file.
        client_ca: Who signs the certificates that clients have to show; None asks for none.
    """

    certificate: Path
    key: Path | None = None
    client_ca: Path | None = None

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """
        Tell the files from what they were before, also behind links that were swapped.

        Raises:
            OSError: One of them is not there.
        """
        files = [path for path in (self.certificate, self.key, self.client_ca) if path is not None]
        read = [path.stat() for path in files]
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in read)

    def read(self) -> ssl.SSLContext:
        """
        Make the context of connections from now on: TLS 1.2 or later, HTTP/1.1.

        Raises:
            TlsUnusable: A file cannot be read, or key and certificate do not belong together.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # Without a password function, OpenSSL would ask the terminal.
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ValueError) as error:
            names = ", ".join(str(path) for path in (self.certificate, self.key) if path)
            raise TlsUnusable(f"TLS_CERT, TLS_KEY: {names}: {_reason(error)}.") from error
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ValueError) as error:
                raise TlsUnusable(f"TLS_CLIENT_CA: {self.client_ca}: {_reason(error)}.") from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class Shown(NamedTuple):
    """What is in force, in PEM."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


class Certificates:
    """
    What connections begin with.

    Attributes:
        context: For the next connection.
        shown: The same, for a server that reads PEM itself.

    Raises:
        TlsUnusable: The files cannot be used.
    """

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self._tried = self._stamp()
        self._take()

    async def follow(self) -> None:
        """Look every second whether the files have changed, for good."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """
        Read the files again if they have changed. Those that cannot be used change nothing: a new
        certificate without its new key will have it in a moment.
        """
        stamp = self._stamp()
        if stamp is None or stamp == self._tried:
            return
        self._tried = stamp
        try:
            self._take()
        except TlsUnusable as error:
            log.warning("certificate_not_taken", reason=str(error))
        else:
            log.info("certificate_taken", certificate=str(self.files.certificate))

    def _take(self) -> None:
        files = self.files
        context = files.read()
        try:
            shown = Shown(
                files.certificate.read_bytes(),
                (files.key or files.certificate).read_bytes(),
                None if files.client_ca is None else files.client_ca.read_bytes(),
            )
        except OSError as error:
            raise TlsUnusable(f"TLS_CERT, TLS_KEY, TLS_CLIENT_CA: {_reason(error)}.") from error
        self.context, self.shown = context, shown

    def _stamp(self) -> tuple[tuple[int, int, int], ...] | None:
        try:
            return self.files.stamp()
        except OSError:
            return None


class ServerContext(ssl.SSLContext):
    """
    What an event loop is given for all connections: each begins with the certificates of that
    moment. Beyond `most` handshakes at once, the next ones are refused, since a connection is known
    to the limits of connections only when its handshake is over.
    """

    def __new__(cls, certificates: Certificates, *, most: int) -> "ServerContext":  # noqa: ARG004
        """Make the context, which itself is never used."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, certificates: Certificates, *, most: int) -> None:
        self._certificates = certificates
        self._most = most
        self._begun: weakref.WeakSet[ssl.SSLObject] = weakref.WeakSet()

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """
        Begin a connection; called by the event loop.

        Raises:
            ssl.SSLError: Too many handshakes are under way.
        """
        if len(self._begun) >= self._most:
            for each in [each for each in self._begun if each.cipher() is not None]:
                self._begun.discard(each)
            if len(self._begun) >= self._most:
                raise ssl.SSLError("too many handshakes are under way")
        made = self._certificates.context.wrap_bio(*arguments, **options)
        self._begun.add(made)
        return made


def read_certificates(settings: Settings) -> Certificates | None:
    """
    Read the certificate of the settings; None without one.

    Raises:
        TlsUnusable: It cannot be used.
    """
    if settings.tls_cert is None:
        if settings.tls_key is not None or settings.tls_client_ca is not None:
            raise TlsUnusable("TLS_KEY and TLS_CLIENT_CA need TLS_CERT beside them.")
        return None
    return Certificates(TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca))


@contextlib.asynccontextmanager
async def following(certificates: Certificates | None) -> AsyncIterator[None]:
    """Follow the files, if there are any, until the block ends."""
    async with contextlib.AsyncExitStack() as stack:
        if certificates is not None:
            run_in_background(stack, certificates.follow)
        yield


def _no_password() -> str:
    raise ValueError("the key is encrypted, and there is nobody to ask for its password")


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").replace("_", " ").lower()
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
