"""What our backend does for one request and not for another, because the gateway says so."""

import asyncio
from pathlib import Path

import numpy as np
import psutil
import pytest

from gateway.triton.client import TritonClient
from gateway.triton.tensor import InputTensor
from tests.running_triton import RunningTriton, matrix_products, matrix_products_config

ONE = np.ones(1, np.float32)
SIDE = 768
# What the parameter was called in version 0.1.
FORMER = "lone__intra_op_thread_count"


def _helpers_s(model: str) -> float:
    """Read how much time the threads of a model's process took, all but its first."""
    (process,) = (
        process
        for process in psutil.Process().children(recursive=True)
        if process.name().startswith("triton_python") and any(model in w for w in process.cmdline())
    )
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    runs = (Path(task, "schedstat") for task in tasks if task.name != str(process.pid))
    return sum(int(run.read_text().split()[0]) for run in runs) / 1e9


@pytest.mark.parametrize("parameter", ["latency__intra_op_thread_count", FORMER])
async def test_an_uncontended_request_has_more_threads(
    triton: RunningTriton, parameter: str
) -> None:
    """The second session's threads work on a request that is alone, under either name, no other."""
    name = parameter.partition("__")[0]
    triton.add(name, matrix_products(8, SIDE))
    await triton.load(name, matrix_products_config(intra_op_thread_count=1, **{parameter: 2}))
    await triton.infer(name, {"x": ONE})  # the first request warms both
    answers, took_s = {}, {}
    for alone in (False, True):
        before_s = _helpers_s(name)
        for _ in range(5):
            answer = await triton.infer(name, {"x": ONE}, parameters={"uncontended": alone})
            answers[alone] = answer["y"]
        took_s[alone] = _helpers_s(name) - before_s
    assert took_s[True] > 5 * took_s[False]
    np.testing.assert_array_equal(answers[True], answers[False])


@pytest.mark.parametrize("threads", [1, 0])
async def test_no_second_session_that_would_be_the_same(
    triton: RunningTriton, threads: int
) -> None:
    """With as many threads as any request has, 0 being all cores, one session serves both."""
    name = f"same-{threads}"
    triton.add(name, matrix_products(1, SIDE))
    await triton.load(
        name,
        matrix_products_config(
            intra_op_thread_count=threads, latency__intra_op_thread_count=threads or 2
        ),
    )
    answer = await triton.infer(name, {"x": ONE}, parameters={"uncontended": True})
    np.testing.assert_allclose(answer["y"], 1 / SIDE, rtol=1e-3)


async def test_a_client_says_which_of_its_requests_is_alone(triton: RunningTriton) -> None:
    """Of several at once only the first is alone when it is sent; one at a time, all are."""
    triton.add("said", matrix_products(8, SIDE))
    await triton.load(
        "said", matrix_products_config(intra_op_thread_count=1, latency__intra_op_thread_count=2)
    )
    client = TritonClient(triton.endpoint)

    async def ask() -> None:
        await client.infer(
            "said",
            1,
            input_name="x",
            input_dtype="FP32",
            tensor=InputTensor(ONE),
            output_name="y",
        )

    await ask()  # the first request warms both
    began_s = _helpers_s("said")
    for _ in range(5):
        await ask()
    alone_s = _helpers_s("said") - began_s
    for _ in range(5):
        await asyncio.gather(ask(), ask(), ask(), ask(), ask())
    crowded_s = _helpers_s("said") - began_s - alone_s
    await client.close()
    # Five of the twenty-five were alone when they were sent.
    assert 0.3 * alone_s < crowded_s < 2.5 * alone_s
