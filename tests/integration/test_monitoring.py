"""Deployment files against the real thing: promtool, a Prometheus that scrapes a gateway."""

import base64
import contextlib
import io
import json
import runpy
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.gateway_process import running_gateway

_ROOT = Path(__file__).parents[2]
_RULES = _ROOT / "deploy/prometheus"
_HAS_PROMETHEUS = shutil.which("promtool") and shutil.which("prometheus")
needs_prometheus = pytest.mark.skipif(
    not _HAS_PROMETHEUS, reason="no Prometheus on this machine (Debian: package prometheus)"
)


def _dashboards() -> dict[str, dict[str, object]]:
    script = runpy.run_path(str(_ROOT / "deploy/grafana/make_dashboards.py"))
    found = {}
    for title in script["DASHBOARDS"]:
        assert script["path_of"](title).read_text() == script["dashboard"](title)
        found[title] = json.loads(script["dashboard"](title))
    return found


def _expressions() -> list[str]:
    found = []
    for dashboard in _dashboards().values():
        panels = dashboard["panels"]
        assert isinstance(panels, list)
        found += [target["expr"] for panel in panels for target in panel["targets"]]
    return [
        expr.replace("$__rate_interval", "20s").replace('model=~"$model"', 'model=~".*"')
        for expr in found
    ]


def test_dashboards_are_what_their_script_writes() -> None:
    """Each dashboard is the script's, has an id of its own, and panels with queries."""
    dashboards = _dashboards()
    assert len({dashboard["uid"] for dashboard in dashboards.values()}) == len(dashboards) == 5


@needs_prometheus
def test_alerts_fire_and_clear() -> None:
    """promtool: the rules are well formed; each alert fires at its fault and clears after it."""
    for arguments in (["check", "rules", "rules.yml"], ["test", "rules", "rules_test.yml"]):
        done = subprocess.run(
            ["promtool", *arguments], cwd=_RULES, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@needs_prometheus
def test_every_dashboard_query_has_an_answer(tmp_path: Path) -> None:
    """A real Prometheus scrapes a real gateway, and every query of every dashboard has data."""
    shutil.copytree(_ROOT / "model_repository/digits", tmp_path / "repository/digits")
    encoded = io.BytesIO()
    Image.new("RGB", (28, 28)).save(encoded, "PNG")
    image = {"image": base64.b64encode(encoded.getvalue()).decode()}
    port = _free_port()
    log = (tmp_path / "prometheus.log").open("w")
    with running_gateway(tmp_path, "--demo") as gateway, log:
        (tmp_path / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            f"rule_files: [{_RULES}/rules.yml]\n"
            "scrape_configs: [{job_name: gateway, static_configs: "
            f"[{{targets: ['{gateway.url.removeprefix('http://')}']}}]}}]\n"
        )
        prometheus = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={tmp_path}/prometheus.yml",
                f"--storage.tsdb.path={tmp_path}/tsdb",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            missing = _until_answered(gateway.client, image, f"http://127.0.0.1:{port}")
        finally:
            prometheus.terminate()
            prometheus.wait()
    assert missing == []
    warnings = [
        line
        for line in (tmp_path / "prometheus.log").read_text().splitlines()
        if ("level=warn" in line or "level=error" in line) and "Received SIGTERM" not in line
    ]
    assert warnings == []


def _until_answered(gateway: httpx.Client, image: dict[str, str], url: str) -> list[str]:
    """Send load until every query has data, for half a minute; return those that have none."""
    missing = _expressions()
    ends_s = time.monotonic() + 30
    with httpx.Client(base_url=url, trust_env=False, timeout=5) as prometheus:
        while missing and time.monotonic() < ends_s:
            for _ in range(5):
                gateway.post("/api/v1/run/digits", json=image)
            gateway.post("/api/v1/run/nobody", json=image)
            with contextlib.suppress(httpx.ConnectError):  # it is still starting
                missing = [expr for expr in missing if not _has_data(prometheus, expr)]
            time.sleep(0.5)  # a part of the time between two scrapes
    return missing


def _has_data(prometheus: httpx.Client, expr: str) -> bool:
    answer = prometheus.get("/api/v1/query", params={"query": expr})
    if answer.status_code == 503:
        return False  # not ready yet
    assert answer.status_code == 200, answer.text
    return bool(answer.json()["data"]["result"])
