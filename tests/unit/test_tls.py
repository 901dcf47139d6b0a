"""Connections that begin with TLS, over real sockets."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trustme
import uvloop

from gateway.tls import Certificates, ServerContext, TlsFiles, TlsUnusable


class Echo(asyncio.Protocol):
    """What is served: says back what it hears."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


@dataclass
class Server:
    ca: trustme.CA
    certificates: Certificates
    port: int = 0

    def trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.trust(), server_hostname="gateway.test"
        )


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """The event loop that serves."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as made:
        yield made


def write_certificate(ca: trustme.CA, folder: Path, name: str = "gateway.test") -> TlsFiles:
    """Write a new certificate and its key, each at once, the certificate first."""
    made = ca.issue_cert(name)
    files = TlsFiles(folder / "tls.crt", folder / "tls.key")
    assert files.key is not None
    chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
    for path, content in ((files.certificate, chain), (files.key, made.private_key_pem.bytes())):
        draft = path.with_suffix(".new")
        draft.write_bytes(content)
        draft.replace(path)
    return files


@contextlib.asynccontextmanager
async def serving(folder: Path, most: int = 100) -> AsyncIterator[Server]:
    ca = trustme.CA()
    server = Server(ca, Certificates(write_certificate(ca, folder)))
    context = ServerContext(server.certificates, most=most)
    listener = await asyncio.get_running_loop().create_server(
        Echo, "127.0.0.1", 0, ssl=context, ssl_handshake_timeout=1.0
    )
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()


def test_what_comes_with_the_handshakes_end_is_not_lost(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    """A client that sends its request together with its last word of the handshake is answered."""

    async def story() -> None:
        async with serving(tmp_path) as server:
            for _ in range(20):
                into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
                tls = server.trust().wrap_bio(into, out, server_hostname="gateway.test")
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                with contextlib.suppress(ssl.SSLWantReadError):
                    tls.do_handshake()
                while True:
                    writer.write(out.read())
                    into.write(await reader.read(65536))
                    try:
                        tls.do_handshake()
                    except ssl.SSLWantReadError:
                        continue
                    break
                tls.write(b"hello")
                writer.write(out.read())
                answer = b""
                while answer != b"hello":
                    with contextlib.suppress(ssl.SSLWantReadError):
                        answer += tls.read(100)
                    if answer != b"hello":
                        into.write(await reader.read(65536))
                writer.close()
                await writer.wait_closed()

    runner.run(asyncio.wait_for(story(), 20))


def test_handshakes_are_bounded(runner: asyncio.Runner, tmp_path: Path) -> None:
    """Silent ones take no more than their places, and end in time; open connections take none."""

    async def story() -> None:
        async with serving(tmp_path, most=4) as server:
            opened = [await server.connect() for _ in range(12)]
            silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(10)]
            ended = [asyncio.create_task(_end_of(reader)) for reader, _ in silent]
            await asyncio.wait(ended)
            opened.append(await server.connect())
            for reader, writer in opened:
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
            for _, writer in [*silent, *opened]:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    runner.run(asyncio.wait_for(story(), 20))


async def _end_of(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""


def test_a_certificate_is_taken_when_its_key_is_there_too(tmp_path: Path) -> None:
    """Whatever of the two comes first, nothing is shown that does not work, and then both are."""
    ca = trustme.CA()
    files = write_certificate(ca, tmp_path)
    certificates = Certificates(files)
    first = certificates.context
    certificates.look()
    assert certificates.context is first

    old_key = files.key.read_bytes() if files.key else b""
    write_certificate(ca, tmp_path)
    new_key = files.key.read_bytes() if files.key else b""
    assert files.key is not None
    files.key.write_bytes(old_key)
    with structlog.testing.capture_logs() as logged:
        certificates.look()
        certificates.look()
    assert [line["event"] for line in logged] == ["certificate_not_taken"]
    assert certificates.context is first
    files.key.unlink()
    certificates.look()
    assert certificates.context is first
    files.key.write_bytes(new_key)
    certificates.look()
    assert certificates.context is not first


@pytest.mark.parametrize("broken", ["missing", "not PEM", "of another", "encrypted", "client CA"])
def test_what_cannot_be_used_is_one_line_at_the_start(tmp_path: Path, broken: str) -> None:
    """It names the setting and the file, and never asks the terminal for a password."""
    ca = trustme.CA()
    files = write_certificate(ca, tmp_path)
    assert files.key is not None
    if broken == "missing":
        files.certificate.unlink()
    elif broken == "not PEM":
        files.certificate.write_text("nonsense")
    elif broken == "of another":
        other = trustme.CA().issue_cert("gateway.test")
        files.key.write_bytes(other.private_key_pem.bytes())
    elif broken == "encrypted":
        os.system(f"openssl rsa -aes128 -passout pass:x -in {files.key} -out {files.key}.2 2>&-")
        encrypted = Path(f"{files.key}.2")
        if encrypted.exists():
            encrypted.replace(files.key)
        else:
            os.system(f"openssl ec -aes128 -passout pass:x -in {files.key} -out {files.key}.2 2>&-")
            encrypted.replace(files.key)
    else:
        nonsense = tmp_path / "ca.pem"
        nonsense.write_text("nonsense")
        files = TlsFiles(files.certificate, files.key, nonsense)
    with pytest.raises(TlsUnusable, match=r"^TLS_.*\.$") as raised:
        Certificates(files)
    assert "\n" not in str(raised.value)
