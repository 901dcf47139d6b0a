"""Traces: the gateway's span and Triton's, in the caller's trace."""

import base64
import io
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.gateway_process import running_gateway

_TRACE = "0af7651916cd43dd8448eb211c80319c"


class _Collector(ThreadingHTTPServer):
    """An OTLP collector: keeps what the gateway (protobuf) and Triton (JSON) send."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: dict[str, bytes] = {"json": b"", "protobuf": b""}
        self.complete = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, _Collector)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = "json" if "json" in self.headers["Content-Type"] else "protobuf"
        self.server.received[kind] += body
        if _TRACE.encode() in self.server.received["json"] and (
            bytes.fromhex(_TRACE) in self.server.received["protobuf"]
        ):
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
    shutil.copytree(
        Path(__file__).parents[2] / "model_repository/digits", tmp_path / "repository/digits"
    )
    encoded = io.BytesIO()
    Image.new("RGB", (28, 28)).save(encoded, "PNG")
    image = base64.b64encode(encoded.getvalue()).decode()
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "LOG_FORMAT": "json"}
    parent = {"traceparent": f"00-{_TRACE}-b7ad6b7169203331-01"}
    with running_gateway(tmp_path, "--demo", environment=environment) as gateway:
        run = gateway.client.post("/api/v1/run/digits", json={"image": image}, headers=parent)
        assert run.status_code == 200
        gateway.client.post("/api/v1/run/nobody", json={"image": image}, headers=parent)
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        text = gateway.client.get("/metrics", headers=accept).text
        assert collector.complete.wait(30), {k: len(v) for k, v in collector.received.items()}
    assert b"InferRequest" in collector.received["json"]
    assert b"POST run_model" in collector.received["protobuf"]
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # untyped library
    exemplars = {
        sample.exemplar.labels["trace_id"]
        for family in families
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert _TRACE in exemplars
    logged = [line for line in gateway.output if "model_not_loaded" in line]
    assert logged
    assert all(_TRACE in line for line in logged)
