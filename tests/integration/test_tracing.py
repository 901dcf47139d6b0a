"""Traces: the gateway's span and Triton's, in the caller's trace."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from PIL import Image
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from testbed.gateway_process import running_gateway

_TRACE, _PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class _Collector(ThreadingHTTPServer):
    """An OTLP collector: keeps what the gateway (protobuf) and Triton (JSON) send."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: dict[str, list[bytes]] = {"json": [], "protobuf": []}
        self.complete = threading.Event()

    def gateway_spans(self) -> dict[str, list[tuple[str, str]]]:
        """What the gateway sent: (span, parent) in hexadecimal, by name."""
        found: dict[str, list[tuple[str, str]]] = {}
        for body in self.received["protobuf"]:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        ids = span.span_id.hex(), span.parent_span_id.hex()
                        found.setdefault(span.name, []).append(ids)
        return found

    def triton_spans(self) -> list[dict[str, Any]]:
        """What Triton sent."""
        return [
            span
            for body in self.received["json"]
            for resource in json.loads(body)["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, _Collector)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = "json" if "json" in self.headers["Content-Type"] else "protobuf"
        self.server.received[kind].append(body)
        received = {kind: b"".join(bodies) for kind, bodies in self.server.received.items()}
        if _TRACE.encode() in received["json"] and bytes.fromhex(_TRACE) in received["protobuf"]:
            self.server.complete.set()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[_Collector]:
    server = _Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_one_trace_reaches_from_the_caller_into_triton(
    tmp_path: Path, collector: _Collector
) -> None:
    """Both processes send spans of the trace that the caller's traceparent names."""
    encoded = io.BytesIO()
    Image.new("RGB", (28, 28)).save(encoded, "PNG")
    image = base64.b64encode(encoded.getvalue()).decode()
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "LOG_FORMAT": "json"}
    parent = {"traceparent": f"00-{_TRACE}-{_PARENT}-01"}
    with running_gateway(tmp_path, "--demo", environment=environment) as gateway:
        run = gateway.client.post("/api/v1/run/digits", json={"image": image}, headers=parent)
        assert run.status_code == 200
        gateway.client.post("/api/v1/run/nobody", json={"image": image}, headers=parent)
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        text = gateway.client.get("/metrics", headers=accept).text
        assert collector.complete.wait(30), {k: len(v) for k, v in collector.received.items()}
    runs = collector.gateway_spans()["POST run_model"]
    assert {parent for _, parent in runs} == {_PARENT}
    joined = [span for span in collector.triton_spans() if span["traceId"] == _TRACE]
    (inference,) = [span for span in joined if span["name"] == "InferRequest"]
    # Of the two runs, the one that reached Triton.
    assert inference["parentSpanId"] in {span for span, _ in runs}
    # What Triton did for it stands below it.
    known = {span["spanId"] for span in joined}
    assert all(span["parentSpanId"] in known for span in joined if span is not inference)
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # untyped library
    exemplars = {
        sample.exemplar.labels["trace_id"]
        for family in families
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert _TRACE in exemplars
    assert _TRACE in gateway.line_with("model_not_loaded")
    logged = [line for line in gateway.output if "model_not_loaded" in line]
    assert all(_TRACE in line for line in logged)
