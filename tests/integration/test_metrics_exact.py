"""
Stored metrics against the raw samples: a gateway in this process, and around its app a layer that
writes down what the recorder was told of each request. Beside it, what was measured of versions.
"""

import asyncio
import math
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from gateway.app import create_app
from gateway.demo import publish_demo
from gateway.services import Services
from gateway.settings import Settings
from testbed.rollout_family import colour_model, image_of
from tests.eventually import eventually

_BODY_BYTES = 300_000
Kind = tuple[str, str, int | None, int]
"""Endpoint, model, version, status."""


@dataclass
class Gateway:
    """The app, its services, a client, and the raw durations by kind, in seconds."""

    app: FastAPI
    client: httpx.AsyncClient
    raw_s: dict[Kind, list[float]] = field(default_factory=dict)

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and write down how long it took at the point where it is counted."""
        began_s = time.perf_counter()
        await self.app(scope, receive, send)
        around_s = time.perf_counter() - began_s
        seen = scope["state"]["observation"]
        # The recorder's clock is right: this layer's own is a moment longer.
        assert seen.total_s <= around_s
        model = seen.model if seen.model in {"digits", "colours"} else ""
        version = seen.version if model and seen.version in {1, 2} else None
        kind = seen.endpoint, model, version or None, seen.status
        self.raw_s.setdefault(kind, []).append(seen.total_s)


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder = tmp_path_factory.mktemp("exact")
    publish_demo(folder / "repository")
    settings = Settings(
        _env_file=None,
        data_dir=folder / "var",
        model_repository=folder / "repository",
        max_body_bytes=_BODY_BYTES,
        request_timeout_s=1.0,
        probe_interval_s=1000,
    )
    app = create_app(settings)
    made = Gateway(app, httpx.AsyncClient())
    transport = httpx.ASGITransport(app=made, raise_app_exceptions=False)
    async with app.router.lifespan_context(app):
        made.client = httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60)
        for seed in (0, 1):
            file = colour_model(folder / f"{seed}.onnx", seed=seed, hangs=seed == 1)
            registered = await made.client.post(
                "/api/v1/register",
                params={"name": "colours"},
                content=file.read_bytes(),
                headers={"Content-Type": "application/octet-stream"},
            )
            assert registered.status_code == 200, registered.text
        for name, version in (("digits", 1), ("colours", 1), ("colours", 2)):
            asked: dict[str, str | int] = {"name": name, "version": version}
            assert (await made.client.post("/api/v1/load", params=asked)).status_code == 200
        yield made
        await made.client.aclose()


Call = tuple[str, str, str, Any]
"""Endpoint, method, path, body."""


async def _send(gateway: Gateway, calls: list[Call]) -> Counter[tuple[str, int]]:
    """Make calls in any order, four at a time; count them by endpoint and status."""
    random.Random(7).shuffle(calls)
    counted: Counter[tuple[str, int]] = Counter()
    places = asyncio.Semaphore(4)

    async def call(endpoint: str, method: str, path: str, body: Any) -> None:
        async with places:
            answer = await gateway.client.request(method, path, json=body)
            counted[endpoint, answer.status_code] += 1

    await asyncio.gather(*(call(*one) for one in calls))
    return counted


async def _rows(gateway: Gateway, **asked: str) -> list[dict[str, Any]]:
    answer = await gateway.client.get("/api/v1/metrics", params={"step": "all", **asked})
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["rows"]
    return rows


def _kind(row: dict[str, Any]) -> Kind:
    return row["endpoint"], row["model"], row["version"], row["status"]


async def test_counts_and_percentiles_are_those_of_the_raw_samples(gateway: Gateway) -> None:
    """Mixed endpoints, models, versions, errors: counts exact, percentiles within one percent."""
    before: Counter[tuple[str, int]] = Counter()
    for row in await _rows(gateway):
        before[row["endpoint"], row["status"]] += row["requests"]
    red, blue, digit = image_of(0), image_of(2), image_of(0, side=28)
    sent = await _send(
        gateway,
        [
            *[("list", "GET", "/api/v1/list", None)] * 600,
            *[("run", "POST", "/api/v1/run/digits", digit)] * 150,
            *[("run", "POST", "/api/v1/run/digits?version=1", digit)] * 50,
            *[("run", "POST", "/api/v1/run/colours?version=1", red)] * 150,
            *[("run", "POST", "/api/v1/run/colours?version=2", red)] * 50,
            *[("run", "POST", "/api/v1/run/colours?version=2", blue)] * 2,
            *[("run", "POST", "/api/v1/run/nobody", red)] * 20,
            *[("run", "POST", "/api/v1/run/digits", {"image": "AAAA"})] * 15,
            *[("run", "POST", "/api/v1/run/digits", {"image": "A" * _BODY_BYTES})] * 7,
            *[("load", "POST", "/api/v1/load?name=nobody", None)] * 9,
            *[("model", "GET", "/api/v1/models/nobody", None)] * 5,
            *[("unmatched", "GET", "/no/such/path", None)] * 11,
        ],
    )
    raw_s = {kind: list(values) for kind, values in gateway.raw_s.items()}
    rows = {_kind(row): row for row in await _rows(gateway)}
    stored: Counter[tuple[str, int]] = Counter()
    for (endpoint, _, _, status), row in rows.items():
        stored[endpoint, status] += row["requests"]
    stored.subtract(before)
    assert {kind: count for kind, count in stored.items() if kind in sent} == sent
    assert {status for _, status in sent} == {200, 404, 409, 413, 422, 504}
    assert {kind: row["requests"] for kind, row in rows.items()} == {
        kind: len(values) for kind, values in raw_s.items()
    }
    late = rows["run", "colours", 2, 504]
    assert late["error_codes"] == {"deadline_exceeded": late["requests"]}
    for kind, values in raw_s.items():
        values.sort()
        for name, share in (("p50_s", 0.5), ("p90_s", 0.9), ("p99_s", 0.99)):
            exact = values[math.ceil(share * len(values)) - 1]
            assert rows[kind][name] == pytest.approx(exact, rel=0.01), (kind, name)
        assert rows[kind]["mean_s"] == pytest.approx(sum(values) / len(values))


async def test_samples_and_categories_tell_what_a_version_did(gateway: Gateway) -> None:
    """Load time, memory, batches and what was answered: of the version that was asked."""
    sampler = gateway.services.metrics.sampler
    # At the end of each minute the sampler looks by itself, and would take a part of the counts.
    await eventually(lambda: 1 < time.time() % 60 < 45, within_s=20)
    now_s = time.time()
    await sampler.sample(now_s - 60)
    before = await gateway.client.get("/api/v1/metrics/categories?model=colours&version=1")
    before_categories = before.json()[0]["categories"] if before.json() else {}
    run = ("run", "POST", "/api/v1/run/colours?version=1")
    calls: list[Call] = [(*run, image_of(n % 3)) for n in range(30)]
    assert await _send(gateway, calls) == {("run", 200): 30}
    await sampler.sample(now_s)
    answer = await gateway.client.get("/api/v1/metrics/samples?model=colours&version=1")
    sample = answer.json()[-1]
    assert (sample["model"], sample["version"], sample["replica"]) == ("colours", 1, "embedded")
    assert 0 < sample["load_s"] < 60
    assert 5e6 < sample["memory_bytes"] < 2e9
    assert sample["gpu_memory_bytes"] is None
    assert sample["inferences"] == 30
    assert sample["executions"] == sum(sample["batch_sizes"].values()) <= 30
    assert sum(int(size) * count for size, count in sample["batch_sizes"].items()) == 30
    assert sample["compute_s"] > 0
    assert sample["queue_s"] >= 0
    assert sample["pending"] == 0
    categories = await gateway.client.get("/api/v1/metrics/categories?model=colours&version=1")
    found = Counter(categories.json()[0]["categories"])
    found.subtract(before_categories)
    assert {name: count for name, count in found.items() if count} == {
        f"{category:02d}": 10 for category in range(3)
    }


async def test_parquet_without_its_library_is_501_with_a_cure(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where pyarrow is not installed the answer names what to install, or to ask for instead."""
    # Python's own way to say that a module is not there.
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    answer = await gateway.client.get("/api/v1/metrics?format=parquet")
    assert (answer.status_code, answer.json()["code"]) == (501, "format_unavailable")
    assert "pip install 'onnx-gateway[parquet]'" in answer.json()["detail"]
    assert "csv" in answer.json()["detail"]
