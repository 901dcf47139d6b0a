"""A gateway that asks for keys, keys of every kind, and models of several callers."""

import base64
import contextlib
import io
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from gateway.access.roles import Role
from testbed.gateway_process import GatewayProcess, running_gateway
from tests.running_triton import tiny_classifier

ADMIN = "the key of the first admin, of the settings"
MINE, OTHER, GHOST = "mine", "other", "ghost"
KINDS = (
    None,
    "expired",
    "revoked",
    "wrong",
    "infer",
    "infer for another",
    "operator",
    "admin",
)
"""Every kind of caller; None shows no key."""
ROLE_OF = {
    "infer": Role.INFER,
    "infer for another": Role.INFER,
    "operator": Role.OPERATOR,
    "admin": Role.ADMIN,
}


@dataclass
class Gate:
    """A gateway that asks for keys, and keys of every kind."""

    gateway: GatewayProcess
    grpc: str
    keys: dict[str, str]

    def call(self, method: str, path: str, key: str | None, **options: Any) -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return self.gateway.client.request(method, path, headers=headers, **options)

    def load(self) -> None:
        """Load what an admin has unloaded while every route was called."""
        assert self.call("POST", "/api/v1/load", ADMIN, params={"name": MINE}).text == "200"

    def make(self, name: str, role: str, **terms: Any) -> str:
        body = {"name": name, "role": role, **terms}
        answer = self.call("POST", "/api/v1/keys", ADMIN, json=body)
        assert answer.status_code == 200, answer.text
        key: str = answer.json()["key"]
        return key


@contextlib.contextmanager
def open_gate(folder: Path) -> Iterator[Gate]:
    """Run a gateway of two workers, with a key of every kind, for the length of a block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        grpc_port = listener.getsockname()[1]
    environment = {"GATEWAY_ADMIN_KEY": ADMIN, "WORKERS": "2", "GRPC_PORT": str(grpc_port)}
    with running_gateway(folder, environment=environment) as gateway:
        made = Gate(gateway, f"127.0.0.1:{grpc_port}", {})
        gateway.client.headers["X-API-Key"] = ADMIN
        for name in (MINE, OTHER):
            gateway.register(name, tiny_classifier(), load="true")
        del gateway.client.headers["X-API-Key"]
        made.keys = {
            "infer": made.make("reader", "infer", models=[MINE]),
            "infer for another": made.make("stranger", "infer", models=[OTHER]),
            "operator": made.make("operator", "operator"),
            "admin": made.make("admin", "admin"),
            "revoked": made.make("gone", "admin"),
            "expired": made.make("short", "admin", expires="1s"),
        }
        assert made.call("DELETE", "/api/v1/keys/gone", ADMIN).status_code == 200
        made.keys["wrong"] = made.keys["admin"][:-4] + "----"
        time.sleep(1.1)  # the second of the key that expires
        yield made


def image() -> str:
    written = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 10, 10)).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()
