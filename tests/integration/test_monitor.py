"""The watch over replicas, on a real Triton of its own."""

import json
from pathlib import Path

import numpy as np
import psutil

from gateway.triton.actions import DesiredModel
from gateway.triton.probe import Probe
from gateway.triton.reconciler import Reconciler
from tests.eventually import eventually
from tests.hostile_models import LOOPING
from tests.running_triton import running_triton, tiny_classifier, tiny_config
from tests.watching import watching


async def test_a_version_that_hangs_holds_up_no_load(tmp_path: Path) -> None:
    """While a probe waits for an answer that never comes, other models are loaded as ever."""
    config = {
        "backend": "onnxruntime",
        "input": [{"name": "image", "data_type": "TYPE_FP32", "dims": [-1, -1, -1, 3]}],
        "output": [{"name": "scores", "data_type": "TYPE_FP32", "dims": [-1, 3]}],
        "instance_group": [{"count": 1, "kind": "KIND_AUTO"}],
    }
    probe = Probe("image", "FP32", np.ones((1, 2, 2, 3), np.float32), "scores")
    desired = {"hangs": DesiredModel("hangs", json.dumps(config), frozenset({1}))}
    reconciler = Reconciler(lambda: desired, load_timeout_s=30)
    async with (
        running_triton(tmp_path) as triton,
        watching(reconciler, probes=lambda: {("hangs", 1): probe}, probe_interval_s=0.1) as (
            monitor,
            _,
        ),
    ):
        triton.add("hangs", LOOPING.make())
        triton.add("later", tiny_classifier())
        replica = monitor.watch("one", triton.endpoint)
        await eventually(lambda: replica.serves(("hangs", 1)))
        stub = psutil.Process(triton.embedded.pid).children()[0]
        loaded_at_s = sum(stub.cpu_times()[:2])
        await eventually(lambda: sum(stub.cpu_times()[:2]) > loaded_at_s + 0.5)
        desired["later"] = DesiredModel("later", json.dumps(tiny_config()), frozenset({1}))
        await eventually(lambda: replica.serves(("later", 1)), within_s=8)
