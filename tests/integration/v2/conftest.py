"""One gateway, and the Triton behind it, for all tests of the Open Inference Protocol."""

import re
import socket
from collections.abc import Iterator

import httpx
import pytest

from testbed.gateway_process import running_gateway
from tests.integration.v2.rig import Both
from tests.integration.v2.sent import tiny_model


@pytest.fixture(scope="package")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    settings = {"GRPC_PORT": str(free)}
    with running_gateway(tmp_path_factory.mktemp("v2"), environment=settings) as gateway:
        gateway.register("m", tiny_model(1), load="true", labels="a\nb\nc\nd\ne")
        gateway.register("m", tiny_model(2))
        gateway.client.post("/api/v1/load", params={"name": "m", "version": "2"})
        gateway.client.put("/api/v1/models/m/aliases/next", json={"version": 2})
        gateway.register("asleep", tiny_model(3))
        words = " ".join(gateway.triton.cmdline())
        (port,) = re.findall(r"--http-port=(\d+)", words)
        (theirs,) = re.findall(r"--grpc-port=(\d+)", words)
        url, headers = f"http://127.0.0.1:{port}", gateway.triton_headers
        with httpx.Client(base_url=url, headers=headers, trust_env=False) as triton:
            yield Both(gateway, triton, f"127.0.0.1:{free}", f"127.0.0.1:{theirs}")
