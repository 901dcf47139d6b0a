"""Deployment files against the real thing: promtool, a Prometheus that scrapes a gateway."""

import base64
import contextlib
import io
import json
import re
import runpy
import subprocess
from pathlib import Path

from PIL import Image

from testbed.gateway_process import running_gateway
from testbed.running_prometheus import needs_prometheus, running_prometheus, until

_ROOT = Path(__file__).parents[2]
_RULES = _ROOT / "deploy/prometheus"


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


def test_every_rule_is_documented_and_tried() -> None:
    """docs/metrics.md has each alert; the rules' own test has each of them fire."""
    alerts = set(re.findall(r"alert: (\w+)", (_RULES / "rules.yml").read_text()))
    text = (_ROOT / "docs/metrics.md").read_text()
    assert alerts == set(re.findall(r"^\| `([A-Z][a-z]\w+)` \|", text, re.MULTILINE))
    assert f"value: {len(alerts)}}}" in (_RULES / "rules_test.yml").read_text()


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


@needs_prometheus
def test_every_dashboard_query_has_an_answer(tmp_path: Path) -> None:
    """A real Prometheus scrapes a real gateway, and every query of every dashboard has data."""
    encoded = io.BytesIO()
    Image.new("RGB", (28, 28)).save(encoded, "PNG")
    image = {"image": base64.b64encode(encoded.getvalue()).decode()}
    missing = _expressions()
    with (
        running_gateway(tmp_path, "--demo") as gateway,
        running_prometheus(tmp_path, [gateway.url]) as prometheus,
    ):

        def all_answered() -> bool:
            for _ in range(5):
                gateway.client.post("/api/v1/run/digits", json=image)
            gateway.client.post("/api/v1/run/nobody", json=image)
            missing[:] = [expr for expr in missing if not prometheus.has_data(expr)]
            return not missing

        with contextlib.suppress(AssertionError):
            until(all_answered, within_s=30, what="every query has data")
        assert missing == []
        assert prometheus.warnings() == []
