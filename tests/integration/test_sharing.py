"""
Shared memory with a real Triton: the same answers by either way, whatever is given up, forgotten or
too small.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gateway.triton.client import TritonClient
from gateway.triton.errors import TritonRejected
from gateway.triton.shared_memory import Region
from gateway.triton.slots import PAGE_BYTES
from gateway.triton.tensor import Canvas, InputTensor
from tests.eventually import eventually
from tests.model_family import FAMILY, ModelCase
from tests.running_triton import RunningTriton

REGION_BYTES = 64 * PAGE_BYTES
TIMEOUT_S = 5.0
SIDE = 16
CASES = [case for case in FAMILY if case.id in {"nchw-fixed-size", "uint8", "fp16", "name-unicode"}]


@pytest.fixture
async def client(triton: RunningTriton) -> AsyncIterator[TritonClient]:
    """A client that shares memory with the server."""
    client = TritonClient(triton.endpoint)
    await client.share(REGION_BYTES, timeout_s=TIMEOUT_S)
    assert client.region is not None
    yield client
    await client.close()


@pytest.fixture(scope="module")
async def mean(triton: RunningTriton) -> AsyncIterator["Model"]:
    """A quick model that answers the mean colour."""
    model = await _load_mean(triton, "sharing-mean", work=1)
    yield model
    await triton.unload(model.name)


def _region(client: TritonClient) -> Region | None:
    return client.region


async def _regions(triton: RunningTriton) -> set[str]:
    grpc = await triton.grpc()
    status = await grpc.get_system_shared_memory_status(headers=triton.endpoint.admin_metadata)
    return set(status.regions)


async def _unregister(triton: RunningTriton, name: str = "") -> None:
    grpc = await triton.grpc()
    await grpc.unregister_system_shared_memory(name, headers=triton.endpoint.admin_metadata)


def _drawn(client: TritonClient, array: NDArray[Any]) -> InputTensor:
    """Put an array where a request would draw it."""
    canvas = Canvas(client.region)
    tensor = canvas.tensor(array)
    canvas.release()
    assert tensor.slot is not None
    return tensor


@dataclass(frozen=True)
class Model:
    """A loaded model with one image for an input."""

    name: str
    dtype: str = "UINT8"
    input_name: str = "image"
    output_name: str = "scores"

    async def ask(self, client: TritonClient, tensor: InputTensor) -> NDArray[Any]:
        return await client.infer(
            self.name,
            1,
            input_name=self.input_name,
            input_dtype=self.dtype,
            tensor=tensor,
            output_name=self.output_name,
        )


async def _load(triton: RunningTriton, case: ModelCase) -> Model:
    given, answered = case.inputs[0], case.outputs[0]
    name = f"sharing-{case.id}"
    if not (triton.repository / name).exists():
        triton.add(name, case.make().SerializeToString())
    config = {
        "backend": "onnxruntime",
        "max_batch_size": 8,
        "input": [_described(given.name, given.dtype, given.shape)],
        "output": [_described(answered.name, answered.dtype, answered.shape)],
        "instance_group": [{"count": 1, "kind": "KIND_AUTO"}],
    }
    await triton.load(name, config)
    return Model(name, given.dtype, given.name, answered.name)


def _described(name: str, dtype: str, shape: tuple[int | None, ...]) -> dict[str, Any]:
    sides = [-1 if side is None else side for side in shape[1:]]
    return {"name": name, "data_type": f"TYPE_{dtype}", "dims": sides}


def _mean_after_work(work: int) -> bytes:
    """Return a graph that answers each image's mean colour, exactly, after `work` products."""
    size = 320
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("ReduceMax", ["mean"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "zero"], ["nothing"]),
        helper.make_node("Add", ["weights", "nothing"], ["h0"]),
        *(helper.make_node("MatMul", [f"h{n}", "weights"], [f"h{n + 1}"]) for n in range(work)),
        helper.make_node("ReduceMax", [f"h{work}"], ["worked"], keepdims=0),
        helper.make_node("Mul", ["worked", "zero"], ["worked_out"]),
        helper.make_node("Add", ["mean", "worked_out"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mean_after_work",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])],
        [
            numpy_helper.from_array(np.full((size, size), 1 / size, np.float32), "weights"),
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
        ],
    )
    opset = helper.make_opsetid("", 13)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return bytes(model.SerializeToString())


async def _load_mean(triton: RunningTriton, name: str, work: int) -> Model:
    if not (triton.repository / name).exists():
        triton.add(name, _mean_after_work(work))
    await triton.load(
        name,
        {
            "backend": "onnxruntime",
            "max_batch_size": 4,
            "input": [_described("image", "UINT8", (None, None, None, 3))],
            "output": [_described("scores", "FP32", (None, 3))],
            "instance_group": [{"count": 1, "kind": "KIND_AUTO"}],
            "parameters": {"intra_op_thread_count": {"string_value": "1"}},
        },
    )
    return Model(name)


def _flat(colour: int, side: int = SIDE) -> NDArray[np.uint8]:
    return np.full((1, side, side, 3), (colour % 256, colour // 256, 7), np.uint8)


async def test_both_ways_give_the_same_scores(triton: RunningTriton, client: TritonClient) -> None:
    """Shared or sent, of each dtype and layout: the same scores to the bit, and no slot is left."""
    assert len(CASES) == 4
    for case in CASES:
        model = await _load(triton, case)
        (array,) = case.sample(seed=3).values()
        tensor = _drawn(client, array)
        shared = await model.ask(client, tensor)
        sent = await model.ask(client, InputTensor(array))
        assert shared.dtype == sent.dtype, case.id
        np.testing.assert_array_equal(shared, sent, err_msg=case.id)
        assert shared.size == 5
        tensor.release()
        await triton.unload(model.name)
    assert client.region is not None
    assert client.region.slots.taken_bytes == 0


async def test_the_values_are_not_sent(client: TritonClient, mean: Model) -> None:
    """What Triton reads is the slot: values that are changed in place there are what it answers."""
    tensor = _drawn(client, _flat(1))
    for colour in (1, 50, 200):
        tensor.array[...] = colour
        assert (await mean.ask(client, tensor))[0].tolist() == [colour] * 3
    tensor.release()


async def test_a_refused_request_holds_no_slot(client: TritonClient, mean: Model) -> None:
    """An input that the model does not take is refused, and its slot is free again."""
    tensor = _drawn(client, np.zeros((1, SIDE, SIDE, 4), np.uint8))
    with pytest.raises(TritonRejected):
        await mean.ask(client, tensor)
    tensor.release()
    assert client.region is not None
    assert client.region.slots.taken_bytes == 0


async def test_a_given_up_request_keeps_its_slot_until_triton_is_done(
    triton: RunningTriton, client: TritonClient
) -> None:
    """Past its deadline: the slot is nobody else's before Triton has answered, then it is free."""
    model = await _load_mean(triton, "sharing-slow", work=400)
    region = client.region
    assert region is not None
    tensor = _drawn(client, _flat(1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await model.ask(client, tensor)
    tensor.release()
    assert region.slots.taken_bytes == PAGE_BYTES
    another = region.take(REGION_BYTES - PAGE_BYTES)
    assert another is not None
    assert another.offset >= PAGE_BYTES
    another.release()
    assert region.slots.taken_bytes == PAGE_BYTES, "Triton was faster than the test"
    await eventually(lambda: region.slots.taken_bytes == 0)
    await triton.unload(model.name)


async def test_each_gets_its_own_answer_while_others_give_up(
    triton: RunningTriton, client: TritonClient
) -> None:
    """Many at once in few slots, every third given up: no answer is that of another's pixels."""
    model = await _load_mean(triton, "sharing-many", work=10)
    region, rng = client.region, np.random.default_rng(0)
    assert region is not None
    shared = 0

    async def one(number: int) -> None:
        nonlocal shared
        side = int(rng.integers(8, 90))
        canvas = Canvas(region)
        drawn = canvas.allocate(side * side * 3).reshape(1, side, side, 3)
        drawn[...] = _flat(number)[0, 0, 0]
        tensor = canvas.tensor(drawn)
        shared += tensor.slot is not None
        deadline_s = float(rng.uniform(0.001, 0.2)) if number % 3 == 0 else 30.0
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline_s):
                    scores = await model.ask(client, tensor)
                    assert scores[0].tolist() == [number % 256, number // 256, 7]
        finally:
            tensor.release()

    callers = asyncio.Semaphore(24)

    async def call(number: int) -> None:
        async with callers:
            await one(number)

    await asyncio.gather(*(call(number) for number in range(400)))
    assert 100 < shared < 400, "some in shared memory and some not: else this says little"
    await eventually(lambda: region.slots.taken_bytes == 0)
    await triton.unload(model.name)


async def test_a_forgotten_region_costs_no_request(
    triton: RunningTriton, client: TritonClient, mean: Model
) -> None:
    """Triton does not know the region any more: the requests are sent, then memory is shared."""
    old = client.region
    assert old is not None
    await _unregister(triton, old.name)
    tensors = [_drawn(client, _flat(colour)) for colour in range(1, 9)]
    answers = await asyncio.gather(*(mean.ask(client, tensor) for tensor in tensors))
    assert [int(scores[0, 0]) for scores in answers] == list(range(1, 9))
    assert _region(client) is None
    await client.share(REGION_BYTES, timeout_s=TIMEOUT_S)
    new = client.region
    assert new is not None
    assert new.name != old.name
    assert await _regions(triton) == {new.name}
    # A tensor of the old region is still read where it lies, and does not cost the new one.
    assert int((await mean.ask(client, tensors[3]))[0, 0]) == 4
    assert client.region is new
    for tensor in tensors:
        tensor.release()
    tensor = _drawn(client, _flat(77))
    assert int((await mean.ask(client, tensor))[0, 0]) == 77
    tensor.release()


async def test_a_region_is_shared_once(triton: RunningTriton, client: TritonClient) -> None:
    """Asked again and again, also at the same time, Triton is given one region."""
    region = client.region
    await asyncio.gather(*(client.share(REGION_BYTES, timeout_s=TIMEOUT_S) for _ in range(5)))
    assert client.region is region
    assert region is not None
    assert await _regions(triton) == {region.name}


async def test_a_close_gives_the_memory_back(triton: RunningTriton) -> None:
    """A Triton that outlives the gateway keeps no region of it, unless it may still read there."""
    client = TritonClient(triton.endpoint)
    await client.share(REGION_BYTES, timeout_s=TIMEOUT_S)
    await client.close()
    assert await _regions(triton) == set()
    client = TritonClient(triton.endpoint)
    await client.share(REGION_BYTES, timeout_s=TIMEOUT_S)
    region = client.region
    assert region is not None
    slot = region.take(1)
    assert slot is not None
    await client.close()
    assert await _regions(triton) == {region.name}
    await _unregister(triton, region.name)


async def test_more_memory_than_there_is_costs_no_request(
    triton: RunningTriton, client: TritonClient, mean: Model
) -> None:
    """No room in /dev/shm: logged once, never tried again, and every tensor is sent."""
    other = TritonClient(triton.endpoint)
    await other.share(2**50, timeout_s=TIMEOUT_S)
    assert other.region is None
    await other.share(REGION_BYTES, timeout_s=TIMEOUT_S)
    assert other.region is None
    # Another client's region is not this one's to name.
    tensor = _drawn(client, _flat(9))
    assert int((await mean.ask(other, tensor))[0, 0]) == 9
    tensor.release()
    await other.close()
