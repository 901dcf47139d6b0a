"""Our onnxruntime backend inside a real Triton: what loads, what answers, what fails and how."""

import numpy as np

from tests.running_triton import RunningTriton, tiny_classifier, tiny_config


async def test_serves(triton: RunningTriton) -> None:
    """A graph with a fitting configuration loads and answers."""
    triton.add("serves", tiny_classifier())
    await triton.load("serves", tiny_config())
    answer = await triton.infer("serves", {"x": np.ones((2, 4, 4, 3), np.float32)})
    assert answer["y"].shape == (2, 5)
    np.testing.assert_allclose(answer["y"].sum(axis=1), 1, rtol=1e-6)
