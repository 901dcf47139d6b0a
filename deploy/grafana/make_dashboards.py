"""
Write the dashboards: each panel is one line here. Run it after a change; a test compares.

    python deploy/grafana/make_dashboards.py
"""

import json
from pathlib import Path

_RUN = 'endpoint="run", model=~"$model"'
_BUCKETS = "gateway_request_duration_seconds_bucket"
_QUANTILE = (
    "histogram_quantile({q}, sum by ({by}, le) (rate({metric}{{{match}}}[$__rate_interval])))"
)


def _rate(metric: str, match: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{match}}}[$__rate_interval]))"


def _quantile(q: float, metric: str, match: str, by: str) -> str:
    return _QUANTILE.format(q=q, metric=metric, match=match, by=by)


_TRITON = 'model=~"$model"'
_BY_VERSION = "model, version"
DASHBOARDS: dict[str, list[tuple[str, str, str, str]]] = {
    # By title: panels, each a title, an expression, a legend, a unit.
    "Service": [
        ("Requests", _rate("gateway_requests_total", "", "endpoint"), "{{endpoint}}", "reqps"),
        (
            "Requests by status",
            _rate("gateway_requests_total", "", "status"),
            "{{status}}",
            "reqps",
        ),
        ("Errors by code", _rate("gateway_request_errors_total", "", "code"), "{{code}}", "reqps"),
        ("p99 by endpoint", _quantile(0.99, _BUCKETS, "", "endpoint"), "{{endpoint}}", "s"),
        ("Replicas that can be reached", "gateway_replica_up", "{{replica}}", "short"),
        (
            "Received",
            _rate("gateway_request_body_bytes_total", "", "endpoint"),
            "{{endpoint}}",
            "Bps",
        ),
    ],
    "Model versions": [
        (
            "Runs",
            _rate("gateway_requests_total", _RUN, _BY_VERSION),
            "{{model}}/{{version}}",
            "reqps",
        ),
        ("p50", _quantile(0.5, _BUCKETS, _RUN, _BY_VERSION), "{{model}}/{{version}}", "s"),
        ("p99", _quantile(0.99, _BUCKETS, _RUN, _BY_VERSION), "{{model}}/{{version}}", "s"),
        (
            "Share of runs that succeed",
            _rate("gateway_requests_total", _RUN + ', status="200"', _BY_VERSION)
            + " / "
            + _rate("gateway_requests_total", _RUN, _BY_VERSION),
            "{{model}}/{{version}}",
            "percentunit",
        ),
        (
            "p50 by stage",
            _quantile(
                0.5,
                "gateway_run_stage_duration_seconds_bucket",
                'model=~"$model"',
                "model, version, stage",
            ),
            "{{model}}/{{version}} {{stage}}",
            "s",
        ),
        ("Load time", "gateway_version_load_seconds", "{{model}}/{{version}}", "s"),
    ],
    "Rollout": [
        (
            "Traffic by version",
            _rate("gateway_requests_total", _RUN, "version"),
            "{{version}}",
            "reqps",
        ),
        (
            "Share of runs that succeed",
            _rate("gateway_requests_total", _RUN + ', status="200"', "version")
            + " / "
            + _rate("gateway_requests_total", _RUN, "version"),
            "{{version}}",
            "percentunit",
        ),
        ("p99", _quantile(0.99, _BUCKETS, _RUN, "version"), "{{version}}", "s"),
        ("Should be loaded", "gateway_version_desired", "{{model}}/{{version}}", "short"),
        (
            "Under way",
            'max by (model, phase) (gateway_live_rollouts{model=~"$model"})',
            "{{model}} {{phase}}",
            "short",
        ),
        (
            "Ended in the last hour",
            'max by (model, outcome) (increase(gateway_rollouts_total{model=~"$model"}[1h]))',
            "{{model}} {{outcome}}",
            "short",
        ),
    ],
    "Triton": [
        (
            "Inferences",
            _rate("nv_inference_count", _TRITON, "replica, model, version"),
            "{{replica}} {{model}}/{{version}}",
            "reqps",
        ),
        (
            "Mean size of a batch",
            _rate("nv_inference_count", _TRITON, _BY_VERSION)
            + " / "
            + _rate("nv_inference_exec_count", _TRITON, _BY_VERSION),
            "{{model}}/{{version}}",
            "short",
        ),
        (
            "Mean time in the queue",
            _rate("nv_inference_queue_duration_us", _TRITON, _BY_VERSION)
            + " / "
            + _rate("nv_inference_request_success", _TRITON, _BY_VERSION),
            "{{model}}/{{version}}",
            "µs",
        ),
        (
            "Waiting in Triton",
            "nv_inference_pending_request_count",
            "{{model}}/{{version}}",
            "short",
        ),
        ("CPU", "nv_cpu_utilization", "{{replica}}", "percentunit"),
    ],
    "Saturation": [
        ("In flight by replica", "gateway_replica_in_flight_requests", "{{replica}}", "short"),
        (
            "p99 of waiting for a place",
            _quantile(0.99, "gateway_run_stage_duration_seconds_bucket", 'stage="queue"', "model"),
            "{{model}}",
            "s",
        ),
        (
            "Refused",
            _rate("gateway_requests_total", 'status=~"429|503"', "status") + " or vector(0)",
            "{{status}}",
            "reqps",
        ),
        (
            "Restarts of Triton",
            "increase(gateway_replica_restarts_total[1h])",
            "{{replica}}",
            "short",
        ),
        (
            "Stored metrics lost",
            "increase(gateway_stored_metrics_lost_requests_total[1h])",
            "requests",
            "short",
        ),
    ],
}


def dashboard(title: str) -> str:
    """Write one dashboard as Grafana's JSON."""
    source = {"type": "prometheus", "uid": "prometheus"}
    panels = [
        {
            "id": number + 1,
            "type": "timeseries",
            "title": panel,
            "datasource": source,
            "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
            "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
            "targets": [{"refId": "A", "datasource": source, "expr": expr, "legendFormat": legend}],
        }
        for number, (panel, expr, legend, unit) in enumerate(DASHBOARDS[title])
    ]
    variable = {
        "name": "model",
        "type": "query",
        "datasource": source,
        "query": "label_values(gateway_version_desired, model)",
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "refresh": 2,
        "current": {"text": "All", "value": "$__all"},
    }
    text = json.dumps(
        {
            "uid": f"gateway-{title.lower().replace(' ', '-')}",
            "title": f"Gateway: {title}",
            "tags": ["gateway"],
            "schemaVersion": 39,
            "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"},
            "templating": {"list": [variable]},
            "panels": panels,
        },
        indent=2,
        ensure_ascii=False,
    )
    return text + "\n"


def path_of(title: str) -> Path:
    """Return a dashboard's file."""
    return Path(__file__).parent / "dashboards" / f"{title.lower().replace(' ', '-')}.json"


if __name__ == "__main__":
    for name in DASHBOARDS:
        path_of(name).write_text(dashboard(name))
