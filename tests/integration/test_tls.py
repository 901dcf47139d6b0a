"""HTTPS and gRPC over TLS, with clients' certificates, by two workers."""

import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
import trustme
from tritonclient.grpc import service_pb2, service_pb2_grpc

from testbed.gateway_process import GatewayProcess, running_gateway

WORKERS = 2


@dataclass
class Encrypted:
    gateway: GatewayProcess
    folder: Path
    ca: trustme.CA
    client: trustme.LeafCert
    grpc_port: int

    def trust(self, *, with_certificate: bool = True) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        if with_certificate:
            self.client.configure_cert(context)
        return context

    def serial(self, port: int) -> str:
        """Tell which certificate a new connection is shown."""
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            self.trust().wrap_socket(plain, server_hostname="127.0.0.1") as encrypted,
        ):
            shown = encrypted.getpeercert()
            assert shown is not None
            return str(shown["serialNumber"])

    def show_another(self) -> None:
        """Write a new certificate and its key, as a tool that renews them does."""
        write(self.ca.issue_cert("127.0.0.1"), self.folder)


def write(made: trustme.LeafCert, folder: Path) -> None:
    chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
    for name, content in (("tls.crt", chain), ("tls.key", made.private_key_pem.bytes())):
        draft = folder / f"{name}.new"
        draft.write_bytes(content)
        draft.replace(folder / name)


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    write(ca.issue_cert("127.0.0.1"), folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        grpc_port = free.getsockname()[1]
    environment = {
        "WORKERS": str(WORKERS),
        "GRPC_PORT": str(grpc_port),
        "TLS_CERT": str(folder / "tls.crt"),
        "TLS_KEY": str(folder / "tls.key"),
        "TLS_CLIENT_CA": str(folder / "ca.pem"),
        "SSL_CERT_FILE": str(folder / "ca.pem"),
    }
    with running_gateway(folder, environment=environment) as gateway:
        client = ca.issue_cert("client@gateway.test")
        yield Encrypted(gateway, folder, ca, client, grpc_port)


def test_who_shows_a_certificate_is_served(encrypted: Encrypted) -> None:
    """With one of the CA: answers, over one connection and over many. Without: no answer at all."""
    url = encrypted.gateway.url
    assert url.startswith("https://")
    workers: set[str] = set()
    deadline_s = time.monotonic() + 30
    while len(workers) < WORKERS:  # the kernel chooses who takes a connection
        assert time.monotonic() < deadline_s, workers
        with httpx.Client(base_url=url, verify=encrypted.trust(), trust_env=False) as client:
            for _ in range(3):
                answer = client.get("/api/v1/list")
                assert answer.status_code == 200
            workers.add(answer.headers["x-gateway-worker"])
    strange = trustme.CA().issue_cert("client@gateway.test")
    context = encrypted.trust(with_certificate=False)
    for with_strange in (False, True):
        if with_strange:
            strange.configure_cert(context)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/livez", verify=context, trust_env=False)
    with pytest.raises(httpx.TransportError):
        httpx.get(url.replace("https:", "http:") + "/livez", trust_env=False)


def _live(encrypted: Encrypted, *, with_certificate: bool) -> bool:
    key = encrypted.client.private_key_pem.bytes() if with_certificate else None
    chain = encrypted.client.cert_chain_pems[0].bytes() if with_certificate else None
    root = (encrypted.folder / "ca.pem").read_bytes()
    credentials = grpc.ssl_channel_credentials(root, key, chain)
    with grpc.secure_channel(f"127.0.0.1:{encrypted.grpc_port}", credentials) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        return bool(stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=10).live)


def test_grpc_asks_for_the_same_certificates(encrypted: Encrypted) -> None:
    """With one of the CA: answers; without: none."""
    assert _live(encrypted, with_certificate=True)
    with pytest.raises(grpc.RpcError):
        _live(encrypted, with_certificate=False)


def test_a_new_certificate_is_shown_without_a_restart(encrypted: Encrypted) -> None:
    """In every worker and by gRPC, soon; connections that are open go on."""
    port = int(encrypted.gateway.url.rpartition(":")[2])
    before = encrypted.serial(port)
    with httpx.Client(
        base_url=encrypted.gateway.url, verify=encrypted.trust(), trust_env=False
    ) as client:
        assert client.get("/livez").status_code == 200
        encrypted.show_another()
        give_up_at_s = time.monotonic() + 10
        while before in {encrypted.serial(port) for _ in range(2 * WORKERS)}:
            assert time.monotonic() < give_up_at_s
            time.sleep(0.1)
        while encrypted.serial(encrypted.grpc_port) == before:
            assert time.monotonic() < give_up_at_s
            time.sleep(0.1)
        assert client.get("/livez").status_code == 200
    assert _live(encrypted, with_certificate=True)
