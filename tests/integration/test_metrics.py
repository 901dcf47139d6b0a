"""Metrics end to end: a gateway with its Triton, and what its clients know to have sent."""

import asyncio
import base64
import csv
import io
import json
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from PIL import Image
from prometheus_client import parser
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from typer.testing import CliRunner

from gateway.cli import app
from gateway.demo import SECOND_VERSION
from testbed.gateway_process import GatewayProcess, running_gateway


def _image() -> str:
    encoded = io.BytesIO()
    Image.new("RGB", (28, 28), (9, 9, 9)).save(encoded, "PNG")
    return base64.b64encode(encoded.getvalue()).decode()


def _cli(*arguments: str, fails: bool = False) -> str:
    """Run a command of the command line; return what it prints."""
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert (done.exit_code != 0) == fails, done.output
    return str(done.output)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("metrics")
    with running_gateway(folder, "--demo", environment={"METRICS_FLUSH_INTERVAL_S": "0.5"}) as up:
        yield up


async def _send(url: str, calls: list[tuple[str, str, object]]) -> Counter[tuple[str, int]]:
    """Make calls (endpoint, path, body) eight at a time; count them by endpoint and status."""
    counted: Counter[tuple[str, int]] = Counter()
    places = asyncio.Semaphore(8)
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:

        async def call(endpoint: str, path: str, body: object) -> None:
            async with places:
                method = "GET" if body is None else "POST"
                response = await client.request(method, path, json=body or None)
                counted[endpoint, response.status_code] += 1

        await asyncio.gather(*(call(*one) for one in calls))
    return counted


def _stored(client: httpx.Client, **asked: object) -> Counter[tuple[str, int]]:
    answer = client.get("/api/v1/metrics", params={"step": "all", **asked})  # type: ignore[dict-item]  # any scalar
    assert answer.status_code == 200, answer.text
    counted: Counter[tuple[str, int]] = Counter()
    for row in answer.json()["rows"]:
        counted[row["endpoint"], row["status"]] += row["requests"]
    return counted


_MIX: list[tuple[str, str, object]] = [
    *[("run", "/api/v1/run/digits", {"image": _image()})] * 40,
    *[("run", "/api/v1/run/digits?version=1", {"image": _image()})] * 20,
    *[("run", "/api/v1/run/digits", {"image": "AAAA"})] * 10,
    *[("run", "/api/v1/run/digits", {"picture": 1})] * 5,
    *[("run", "/api/v1/run/nobody", {"image": _image()})] * 10,
    *[("list", "/api/v1/list", None)] * 20,
    *[("load", "/api/v1/load?name=digits", {})] * 5,
    *[("load", "/api/v1/load?name=nobody", {})] * 5,
    *[("unload", "/api/v1/unload?name=nobody", {})] * 5,
    *[("model", "/api/v1/models/digits", None)] * 5,
    *[("unmatched", "/no/such/path", None)] * 5,
]


async def test_stored_counts_are_those_of_the_clients(gateway: GatewayProcess) -> None:
    """By endpoint and status: what was sent is what is stored, to the request."""
    before = _stored(gateway.client)
    sent = await _send(gateway.url, _MIX)
    stored = _stored(gateway.client)
    stored.subtract(before)
    assert {key: stored[key] for key in sent} == dict(sent)
    assert sent["run", 200] == 60
    rows = gateway.client.get("/api/v1/metrics?endpoint=run&step=all&status=409").json()["rows"]
    assert {(row["model"], row["version"]) for row in rows} == {("", None)}


async def test_prometheus_counts_the_same(gateway: GatewayProcess) -> None:
    """/metrics parses as OpenMetrics, agrees with what is stored, and shows Triton beside it."""
    await _send(gateway.url, [("run", "/api/v1/run/digits", {"image": _image()})] * 5)
    stored = _stored(gateway.client, endpoint="run", status="200")
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    text = gateway.client.get("/metrics", headers=accept).text
    parsed = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # untyped library
    families = {family.name: family for family in parsed}
    shown = sum(
        sample.value
        for sample in families["gateway_requests"].samples
        if sample.labels["endpoint"] == "run" and sample.labels["status"] == "200"
    )
    assert shown == stored["run", 200]
    triton = families["nv_inference_request_success"].samples
    assert {sample.labels["replica"] for sample in triton} == {"embedded"}


async def test_durations_are_those_that_the_answers_told(gateway: GatewayProcess) -> None:
    """Durations that are stored add up to those that callers were told in Server-Timing."""
    before = gateway.client.get("/api/v1/metrics?endpoint=run&status=200&step=all&last=2h").json()
    told_s = []
    for _ in range(60):
        answer = gateway.client.post("/api/v1/run/digits", json={"image": _image()})
        stages = dict(part.split(";dur=") for part in answer.headers["Server-Timing"].split(", "))
        told_s.append(float(stages["infer"]) / 1000)
    after = gateway.client.get("/api/v1/metrics?endpoint=run&status=200&step=all&last=2h").json()

    def total(answer: dict[str, list[dict[str, float]]]) -> float:
        return sum(row["infer_mean_s"] * row["requests"] for row in answer["rows"])

    # Rounding in the header: a hundredth of a millisecond a request.
    assert total(after) - total(before) == pytest.approx(sum(told_s), abs=60 * 1e-5)


def test_csv_has_the_agreed_columns(gateway: GatewayProcess) -> None:
    """A script that reads CSV finds its columns, in their order."""
    gateway.client.get("/api/v1/list")
    text = gateway.client.get("/api/v1/metrics?format=csv").text
    rows = list(csv.DictReader(io.StringIO(text)))
    wanted = "start,endpoint,model,version,status,requests,p50_s,p90_s,p99_s,mean_s"
    assert text.startswith(wanted)
    assert "list" in {row["endpoint"] for row in rows}


def test_parquet_holds_the_same_rows(gateway: GatewayProcess) -> None:
    """The three formats say the same."""
    from pyarrow import parquet  # noqa: PLC0415 - large

    asked = "/api/v1/metrics?endpoint=run&step=all&last=2h&format="
    as_json = gateway.client.get(asked + "json").json()["rows"]
    content = gateway.client.get(asked + "parquet").content
    rows = parquet.read_table(io.BytesIO(content)).to_pylist()
    names = ("endpoint", "model", "version", "status", "requests", "p99_s")
    assert [[row[n] for n in names] for row in rows] == [[row[n] for n in names] for row in as_json]


async def test_the_command_line_shows_what_is_stored(gateway: GatewayProcess) -> None:
    """`gateway metrics`: the table, JSON and CSV tell the requests, errors and percentiles."""
    await _send(gateway.url, _MIX)
    asked = ("metrics", "--url", gateway.url, "--last", "2h", "--endpoint", "run")
    rows = json.loads(_cli(*asked, "--by", "model,status", "--format", "json"))["rows"]
    by_group = {(row["model"], row["status"]): row for row in rows}
    assert {group: row["requests"] for group, row in by_group.items()} == {
        (row["model"], row["status"]): row["requests"]
        for row in gateway.client.get(
            "/api/v1/metrics?last=2h&endpoint=run&step=all&group_by=model,status"
        ).json()["rows"]
    }
    table = _cli(*asked, "--by", "model,status").splitlines()
    (shown,) = [line for line in table if "digits" in line and " 422 " in line]
    refused = by_group["digits", 422]
    assert re.split(r"\s{2,}", shown.strip())[2:5] == [
        str(refused["requests"]),
        "100.0%",
        f"{refused['p50_s'] * 1000:.1f} ms",
    ]
    assert "█" in shown
    only = _cli(*asked, "--model", "digits", "--format", "csv").splitlines()
    assert only[0].startswith("start,endpoint,model,version,status,requests")
    assert {line.split(",")[2] for line in only[1:]} == {"digits"}


async def test_the_command_line_compares_two_versions(gateway: GatewayProcess) -> None:
    """`gateway metrics compare`: both versions' counts, and the second's times over the first's."""
    registered = gateway.client.post(
        "/api/v1/register",
        params={"name": "digits"},
        content=SECOND_VERSION.read_bytes(),
        headers={"Content-Type": "application/octet-stream"},
    )
    assert registered.json()["version"] == 2, registered.text
    loaded = gateway.client.post("/api/v1/load", params={"name": "digits", "version": 2})
    assert loaded.status_code == 200, loaded.text
    await _send(gateway.url, [("run", "/api/v1/run/digits?version=2", {"image": _image()})] * 7)
    asked = ("metrics", "compare", "digits", "1", "2", "--url", gateway.url, "--last", "2h")
    first, second = json.loads(_cli(*asked, "--json"))["rows"]
    assert (first["version"], second["version"]) == (1, 2)
    assert second["requests"] == 7
    lines = {
        cells[0]: cells[1:]
        for line in _cli(*asked).splitlines()
        if (cells := re.split(r"\s{2,}", line.strip()))
    }
    assert lines["requests"] == [str(first["requests"]), "7"]
    for name in ("p99", "infer p50"):
        one, other = (row[f"{name.replace(' ', '_')}_s"] for row in (first, second))
        shown = [f"{one * 1000:.1f} ms", f"{other * 1000:.1f} ms", f"{other / one:.2f}"]
        assert lines[name] == shown
    none = _cli("metrics", "compare", "digits", "1", "9", "--url", gateway.url)
    assert "none" in none


def test_the_command_line_says_what_it_cannot_do() -> None:
    """No gateway, and a question that cannot be read: one line, exit code 1."""
    said = _cli("metrics", "--url", "http://127.0.0.1:9", fails=True)
    assert "Traceback" not in said
    said = _cli("metrics", "--url", "http://127.0.0.1:9", "--format", "csv", fails=True)
    assert "No gateway answers at http://127.0.0.1:9" in said


@pytest.mark.parametrize(
    "query",
    [
        *("step=7", "step=x", "group_by=name", "status=20", "start=yesterday", "last=0s"),
        *("version=0", "start=2026-01-02&end=2026-01-01", "start=0&step=1m"),
    ],
)
def test_a_question_that_cannot_be_read_is_refused(gateway: GatewayProcess, query: str) -> None:
    """422 and a code, whatever is asked."""
    answer = gateway.client.get(f"/api/v1/metrics?{query}")
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] in {"metrics_query_invalid", "version_invalid"}


async def test_a_graceful_stop_loses_nothing(tmp_path: Path) -> None:
    """What was counted just before SIGTERM is stored, however long the interval."""
    environment = {"METRICS_FLUSH_INTERVAL_S": "3600"}
    with running_gateway(tmp_path, "--demo", environment=environment) as first:
        sent = await _send(first.url, _MIX)
        assert first.stop(signal.SIGTERM) == 0
    with running_gateway(tmp_path, environment=environment) as second:
        stored = _stored(second.client)
    assert {key: stored[key] for key in sent} == dict(sent)


async def test_a_kill_loses_at_most_one_interval_and_the_next_start_says_what(
    tmp_path: Path,
) -> None:
    """After SIGKILL all but the last flush interval is there, and what is missing is told."""
    interval_s = 2.0
    environment = {"METRICS_FLUSH_INTERVAL_S": str(interval_s)}
    answered_at_s = []
    with running_gateway(tmp_path, "--demo", environment=environment) as first:
        ends_s = time.time() + 1.5 * interval_s
        while time.time() < ends_s:
            first.client.get("/api/v1/list")
            answered_at_s.append(time.time())
        killed_s = time.time()
        first.kill()
    with running_gateway(tmp_path, environment=environment) as second:
        stored = _stored(second.client, endpoint="list")["list", 200]
        (gap,) = second.client.get("/api/v1/metrics").json()["gaps"]
        assert second.line_with("metrics_lost", gap["start"])
        asked = {"start": str(killed_s + 120), "end": str(killed_s + 180)}
        assert second.client.get("/api/v1/metrics", params=asked).json()["gaps"] == []
        table = _cli("metrics", "--url", second.url)
        assert f"the {gap['at_most_s']:.1f} s before is missing" in " ".join(table.split())
    safe = sum(at_s < killed_s - interval_s for at_s in answered_at_s)
    assert 0 < safe <= stored <= len(answered_at_s)
    start_s, end_s = (datetime.fromisoformat(gap[name]).timestamp() for name in ("start", "end"))
    assert start_s <= killed_s <= end_s
    assert gap["at_most_s"] == pytest.approx(end_s - start_s, abs=0.002)
    assert sum(at_s < start_s for at_s in answered_at_s) <= stored
    assert gap["at_most_s"] <= 1.2 * interval_s


async def test_every_metric_is_documented(gateway: GatewayProcess) -> None:
    """docs/metrics.md lists every metric of ours, with its labels, and no other."""
    await _send(gateway.url, _MIX)
    shown: dict[str, set[str]] = {}
    families = parser.text_string_to_metric_families(gateway.client.get("/metrics").text)
    for family in families:
        if family.name.startswith("gateway_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            shown[name] = set().union(*(sample.labels for sample in family.samples)) - {"le"}
    text = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    documented = {
        name: {label.strip() for label in labels.split(",") if label.strip()}
        for name, labels in re.findall(
            r"^\| `(gateway_\w+)` \|[^|]*\|([^|]*)\|$", text, re.MULTILINE
        )
    }
    assert set(documented) == set(shown)
    # What has counted nothing yet shows no labels.
    assert {name: documented[name] for name, labels in shown.items() if labels} == {
        name: labels for name, labels in shown.items() if labels
    }
