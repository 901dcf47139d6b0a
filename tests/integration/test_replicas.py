"""Two real Tritons behind one gateway: a load reaches both, a death is not noticed by callers."""

import asyncio
import base64
import io
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from gateway.triton.embedded import EmbeddedOptions, EmbeddedTriton
from testbed.gateway_process import GatewayProcess, running_gateway
from tests.eventually import eventually
from tests.model_family import original_model

pytestmark = pytest.mark.alone

ADMIN_KEY = "shared-by-both"


class Replica:
    """A Triton that keeps its ports and its secret over restarts."""

    def __init__(self, triton: EmbeddedTriton) -> None:
        self.triton = triton

    @property
    def url(self) -> str:
        endpoint = self.triton.endpoint
        assert endpoint is not None
        assert endpoint.metrics_url is not None
        grpc, metrics = (u.rsplit(":", 1)[1] for u in (endpoint.grpc_url, endpoint.metrics_url))
        return f"http://{endpoint.http_url}?grpc_port={grpc}&metrics_port={metrics}"

    @property
    def process(self) -> psutil.Process:
        """The server's process."""
        endpoint = self.triton.endpoint
        assert endpoint is not None
        port = endpoint.http_url.rsplit(":", 1)[1]
        (found,) = (
            child
            for child in psutil.Process().children()
            if child.name() == "tritonserver" and any(port in word for word in child.cmdline())
        )
        return found

    async def requests(self, model: str) -> float:
        """Requests that this replica answered for a model, by its own metrics."""
        endpoint = self.triton.endpoint
        assert endpoint is not None
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"http://{endpoint.metrics_url}/metrics")).text
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if line.startswith("nv_inference_request_success") and f'model="{model}"' in line
        )


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[list[Replica]]:
    (tmp_path / "repository").mkdir()
    async with AsyncExitStack() as stack:
        started = []
        for number in (1, 2):
            triton = EmbeddedTriton(
                EmbeddedOptions(
                    repository=tmp_path / "repository",
                    data_dir=tmp_path / f"triton{number}",
                    admin_key=ADMIN_KEY,
                    # The gateway's open connections would keep a stopping server that long.
                    exit_timeout_s=1,
                    # Whoever keeps a server elsewhere may not notice that it hangs.
                    probe_failures=1000,
                    halted_s=1000.0,
                )
            )
            await triton.start()
            stack.push_async_callback(triton.stop)
            started.append(Replica(triton))
        yield started


@pytest.fixture
def gateway(replicas: list[Replica], tmp_path: Path) -> Iterator[GatewayProcess]:
    models = tmp_path / "models"
    models.mkdir()
    original_model(models / "m.onnx", 10)
    environment = {
        "MODELS_DIR": str(models),
        "TRITON_URLS": ", ".join(replica.url for replica in replicas),
        "TRITON_ADMIN_KEY": ADMIN_KEY,
    }
    with running_gateway(tmp_path, environment=environment) as process:
        yield process


def _body() -> dict[str, str]:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (200, 30, 90)).save(buffer, "PNG")
    return {"image": base64.b64encode(buffer.getvalue()).decode()}


class Callers:
    """Four callers that never stop asking; `statuses` is what they heard."""

    def __init__(self, url: str) -> None:
        self.statuses: list[int] = []
        self.slowest_s = 0.0
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30, trust_env=False) as client:
            while not self._stop.wait(0.01):
                began_s = time.monotonic()
                self.statuses.append(client.post("/api/v1/run/m", json=_body()).status_code)
                self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)

    async def stop(self) -> list[int]:
        self._stop.set()
        await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in self._threads))
        return self.statuses


async def _ready_replicas(gateway: GatewayProcess) -> int:
    answer = await asyncio.to_thread(gateway.client.get, "/readyz")
    return int(answer.json()["checks"]["replicas"]["detail"].split()[0])


async def _call(gateway: GatewayProcess, path: str) -> httpx.Response:
    return await asyncio.to_thread(gateway.client.post, path)


async def test_nothing_is_started_when_replicas_are_named(gateway: GatewayProcess) -> None:
    """With TRITON_URLS the gateway has no Triton of its own."""
    with pytest.raises(AssertionError, match="no tritonserver"):
        _ = gateway.triton


async def test_a_load_reaches_every_replica_and_both_answer(
    gateway: GatewayProcess, replicas: list[Replica]
) -> None:
    """After `load` both replicas answer, and concurrent requests are shared between them."""
    assert (await _call(gateway, "/api/v1/load?name=m")).content == b"200"
    before = [await replica.requests("m") for replica in replicas]
    callers = Callers(gateway.url)
    await eventually(lambda: len(callers.statuses) >= 200)
    assert set(await callers.stop()) == {200}
    after = [await replica.requests("m") for replica in replicas]
    shares = [new - old for new, old in zip(after, before, strict=True)]
    assert min(shares) > 0.2 * sum(shares)
    assert (await _call(gateway, "/api/v1/unload?name=m")).content == b"200"
    assert (await _call(gateway, "/api/v1/unload?name=m")).status_code == 409


async def test_a_dead_replica_is_left_out_and_comes_back_with_its_loads(
    gateway: GatewayProcess, replicas: list[Replica]
) -> None:
    """Callers do not notice the death of a replica; started again, it is given its loads."""
    await _call(gateway, "/api/v1/load?name=m")
    callers = Callers(gateway.url)
    await eventually(lambda: len(callers.statuses) >= 50)
    restarted = replicas[0].triton
    await restarted.restart("a test")
    await eventually(lambda: restarted.restarts == 1 and restarted.endpoint is not None)

    async def answers_again() -> bool:
        return await replicas[0].requests("m") >= 20

    await eventually(answers_again)
    statuses = await callers.stop()
    assert set(statuses) == {200}
    assert await _ready_replicas(gateway) == 2


async def test_a_hung_replica_keeps_no_request(
    gateway: GatewayProcess, replicas: list[Replica]
) -> None:
    """A replica is halted with requests in it: the other answers them, long before the deadline."""
    await _call(gateway, "/api/v1/load?name=m")
    callers = Callers(gateway.url)
    await eventually(lambda: len(callers.statuses) >= 100)
    halted = replicas[0].process
    halted.suspend()
    try:
        answered = len(callers.statuses)
        await eventually(lambda: len(callers.statuses) >= answered + 200)
    finally:
        halted.resume()
    assert set(await callers.stop()) == {200}
    assert callers.slowest_s < 15.0  # of the 30 s of a request


async def test_with_every_replica_gone_callers_hear_503(
    gateway: GatewayProcess, replicas: list[Replica]
) -> None:
    """No replica: 503 with Retry-After for `run`; alive all the same, and not ready."""
    await _call(gateway, "/api/v1/load?name=m")
    for replica in replicas:
        await replica.triton.stop()
    answer = await asyncio.to_thread(gateway.client.post, "/api/v1/run/m", json=_body())
    assert answer.status_code == 503
    assert answer.json()["code"] == "triton_unavailable"
    assert "retry-after" in answer.headers
    assert gateway.client.get("/livez").status_code == 200
    assert gateway.client.get("/readyz").status_code == 503
