"""A published file that is gone: does what the refusal advises lead to an answer?"""

import tempfile
from pathlib import Path

from gateway.demo import DEMO_MODEL, FIRST_VERSION
from testbed.gateway_process import running_gateway


def measure() -> dict[str, object]:
    """Remove the file, load, do as told, load again."""
    with tempfile.TemporaryDirectory() as place, running_gateway(Path(place)) as gateway:
        name = DEMO_MODEL
        gateway.register(name, FIRST_VERSION.read_bytes())
        (gateway.folder / f"repository/{name}/1/model.onnx").unlink()
        first = gateway.client.post("/api/v1/load", params={"name": name})
        again = gateway.register(name, FIRST_VERSION.read_bytes())
        second = gateway.client.post("/api/v1/load", params={"name": name})
        return {
            "load": first.status_code,
            "told": first.json()["detail"],
            "registered again": again["message"],
            "load after that": second.status_code,
        }
