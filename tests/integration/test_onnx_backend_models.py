"""A sample of onnx's own backend tests: real CNNs and one operator in sixty, as uploads."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testbed.gateway_process import running_gateway
from testbed.onnx_backend_models import BAD, models, outcome

_CNNS = frozenset({"light_inception_v1", "light_shufflenet", "light_squeezenet"})


def test_what_onnx_tests_itself_with_is_taken_or_refused(tmp_path: Path) -> None:
    """Registered and right, or refused with a code; never a 500; the server is ready at the end."""
    light = [model for model in models("light", 1) if model[1] in _CNNS]
    sample = [*light, *models("disk", 40), *models("node", 60)]
    limits = {"MAX_VALIDATIONS": "2", "MAX_UPLOADS": "8"}
    environment = {**limits, "LOG_LEVEL": "error", "LOG_FORMAT": "console"}
    with running_gateway(tmp_path, environment=environment) as gateway:
        turn = threading.Lock()

        def check(item: tuple[int, tuple[str, str, bytes]]) -> tuple[str, str]:
            index, (_, name, content) = item
            return name, outcome(gateway, f"m{index}", content, turn)

        with ThreadPoolExecutor(3) as threads:
            outcomes = dict(threads.map(check, enumerate(sample)))
        assert gateway.client.get("/readyz").status_code == 200
    assert not {name: result for name, result in outcomes.items() if result in BAD}
    assert {name for name, result in outcomes.items() if result == "registered and right"} >= _CNNS
    assert len(outcomes) > 30
