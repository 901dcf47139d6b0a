"""Our onnxruntime backend inside a real Triton: what loads, what answers, what fails and how."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException

from tests.eventually import eventually
from tests.running_triton import RunningTriton, tiny_classifier, tiny_config

IMAGE = np.ones((1, 4, 4, 3), np.float32)


def graph(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    initializers: Sequence[TensorProto] = (),
) -> bytes:
    made = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def tensor(name: str, shape: Sequence[str | int], dtype: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def identity(dtype: int, shape: Sequence[str | int]) -> bytes:
    node = helper.make_node("Identity", ["x"], ["y"])
    return graph([node], [tensor("x", shape, dtype)], [tensor("y", shape, dtype)])


def config(
    x: Sequence[int], y: Sequence[int], dtype: str = "FP32", batch: int = 8, **changes: Any
) -> dict[str, Any]:
    return {
        "backend": "onnxruntime",
        "max_batch_size": batch,
        "input": [{"name": "x", "data_type": f"TYPE_{dtype}", "dims": list(x)}],
        "output": [{"name": "y", "data_type": f"TYPE_{dtype}", "dims": list(y)}],
        "instance_group": [{"count": 1, "kind": "KIND_AUTO"}],
        **changes,
    }


def parameters(**values: str) -> dict[str, Any]:
    return {key.replace("__", "."): {"string_value": value} for key, value in values.items()}


def accelerator(device: str, name: str) -> dict[str, Any]:
    return {"execution_accelerators": {f"{device}_execution_accelerator": [{"name": name}]}}


DYNAMIC = identity(TensorProto.FLOAT, ["N", "W"])
FIXED = identity(TensorProto.FLOAT, ["N", 3])
ONE = identity(TensorProto.FLOAT, [1, 3])
SCALAR = identity(TensorProto.FLOAT, [])
EXTRA_INPUT = [
    {"name": "x", "data_type": "TYPE_FP32", "dims": [3]},
    {"name": "z", "data_type": "TYPE_FP32", "dims": [3]},
]
SEQUENCE = graph(
    [
        helper.make_node("SequenceConstruct", ["x"], ["s"]),
        helper.make_node("Identity", ["x"], ["y"]),
    ],
    [tensor("x", ["N", 3])],
    [tensor("y", ["N", 3]), helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)],
)
INITIALIZER_INPUT = graph(
    [helper.make_node("Add", ["x", "w"], ["y"])],
    [tensor("x", ["N", 3]), tensor("w", [3])],
    [tensor("y", ["N", 3])],
    [numpy_helper.from_array(np.ones(3, np.float32), "w")],
)
OPTIONAL_W: list[dict[str, Any]] = [
    {"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 3]},
    {"name": "w", "data_type": "TYPE_FP32", "dims": [3], "optional": True},
]

ACCEPTED = {
    "dynamic-axis-fixed-by-config": (DYNAMIC, config([3], [-1])),
    "exact": (FIXED, config([3], [3])),
    "no-batching-full-dims": (ONE, config([1, 3], [1, 3], batch=0)),
    "scalar-as-ones": (SCALAR, config([1], [1], batch=0)),
    "initializer-input-unlisted": (INITIALIZER_INPUT, config([3], [3])),
    "initializer-input-optional": (
        INITIALIZER_INPUT,
        config([3], [-1, 3], batch=0) | {"input": OPTIONAL_W},
    ),
    "unknown-parameter": (FIXED, config([3], [3], parameters=parameters(whatever="x"))),
    "all-parameters": (
        FIXED,
        config(
            [3],
            [3],
            parameters=parameters(
                intra_op_thread_count="1",
                inter_op_thread_count="1",
                execution_mode="0",
                enable_mem_arena="0",
                enable_mem_pattern="0",
                session__intra_op__allow_spinning="0",
            ),
            optimization={"graph": {"level": 1}},
        ),
    ),
    "kind-model": (FIXED, config([3], [3], instance_group=[{"count": 1, "kind": "KIND_MODEL"}])),
    "reshape": (
        ONE,
        config([3], [3])
        | {
            "max_batch_size": 0,
            "input": [
                {"name": "x", "data_type": "TYPE_FP32", "dims": [3], "reshape": {"shape": [1, 3]}}
            ],
            "output": [
                {"name": "y", "data_type": "TYPE_FP32", "dims": [3], "reshape": {"shape": [1, 3]}}
            ],
        },
    ),
}

REFUSED = {
    "output-dims": (FIXED, config([3], [4]), "model expects 2 dimensions"),
    "output-dynamic-where-fixed": (FIXED, config([3], [-1]), "model expects 2 dimensions"),
    "output-fixed-where-dynamic": (DYNAMIC, config([-1], [3]), "model expects 2 dimensions"),
    "input-dims": (FIXED, config([4], [3]), "model expects 2 dimensions"),
    "input-dynamic-where-fixed": (FIXED, config([-1], [3]), "model expects 2 dimensions"),
    "rank": (FIXED, config([3, 3], [3]), "configuration specifies 3 dimensions"),
    "dtype": (FIXED, config([3], [3], "FP16"), "TYPE_FP16, the model says TYPE_FP32"),
    "unknown-output": (
        FIXED,
        config([3], [3], output=[{"name": "q", "data_type": "TYPE_FP32", "dims": [3]}]),
        "unexpected inference output 'q', allowed outputs are: y",
    ),
    "unknown-input": (
        FIXED,
        config([3], [3], input=[{"name": "q", "data_type": "TYPE_FP32", "dims": [3]}]),
        "unexpected inference input 'q', allowed inputs are: x",
    ),
    "number-of-inputs": (
        FIXED,
        config([3], [3], input=EXTRA_INPUT),
        "expects 2 inputs, model provides 1",
    ),
    "no-input": (FIXED, config([3], [3], input=[]), "expects 0 inputs, model provides 1"),
    "no-output": (FIXED, config([3], [3], output=[]), "lists no outputs"),
    "fixed-batch-axis": (ONE, config([3], [3]), "the first dimension must be -1"),
    "scalar-batched": (SCALAR, config([1], [1]), "at least 1 dimension"),
    "scalar-dims": (SCALAR, config([2], [2], batch=0), "each must be 1"),
    "sequence-output": (SEQUENCE, config([3], [3]), "Unsupported ONNX Type"),
    "initializer-input-required": (
        INITIALIZER_INPUT,
        config([3], [3], input=[{"name": "w", "data_type": "TYPE_FP32", "dims": [3]}]),
        "has an initializer",
    ),
    "optional-batched": (
        INITIALIZER_INPUT,
        config([3], [3]) | {"input": [{**OPTIONAL_W[0], "dims": [3]}, OPTIONAL_W[1]]},
        "optional inputs are not supported",
    ),
    "strings": (
        identity(TensorProto.STRING, ["N", 3]),
        config([3], [3], "STRING"),
        "TYPE_STRING is not supported",
    ),
    "bad-threads": (
        FIXED,
        config([3], [3], parameters=parameters(intra_op_thread_count="many")),
        "'intra_op_thread_count' value 'many'",
    ),
    "bad-mode": (
        FIXED,
        config([3], [3], parameters=parameters(execution_mode="2")),
        "'execution_mode' must be 0 or 1",
    ),
    "unknown-accelerator": (
        FIXED,
        config([3], [3], optimization=accelerator("cpu", "abacus")),
        "unknown Execution Accelerator 'abacus'",
    ),
    "not-onnx": (b"not a graph", config([3], [3]), "[Pp]rotobuf"),
}


@pytest.mark.parametrize("case", ACCEPTED)
async def test_accepts(triton: RunningTriton, case: str) -> None:
    """A configuration that the C++ backend takes loads here, and answers."""
    model, accepted = ACCEPTED[case]
    triton.add(case, model)
    await triton.load(case, accepted)
    batched = accepted["max_batch_size"] > 0
    shape = {"scalar-as-ones": (1,), "reshape": (3,)}.get(case, (2, 3) if batched else (1, 3))
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    answer = await triton.infer(case, {"x": array})
    added = 1 if case.startswith("initializer") else 0
    np.testing.assert_array_equal(answer["y"], array + added)
    await triton.unload(case)


@pytest.fixture(scope="module")
async def refusals(triton: RunningTriton) -> dict[str, BaseException | None]:
    """Return what came of loading each of REFUSED, at once: a failed load takes a second."""

    async def load(case: str) -> None:
        model, refused, _ = REFUSED[case]
        triton.add(case, model)
        await triton.load(case, refused)

    results = await asyncio.gather(*(load(case) for case in REFUSED), return_exceptions=True)
    return dict(zip(REFUSED, results, strict=True))


@pytest.mark.parametrize("case", REFUSED)
async def test_refuses(
    triton: RunningTriton, refusals: dict[str, BaseException | None], case: str
) -> None:
    """A configuration that the C++ backend refuses does not load here, and the reason is given."""
    assert re.search(REFUSED[case][2], str(refusals[case]))
    state, why = (await triton.index())[case, 1]
    assert state == "UNAVAILABLE"
    assert why


@pytest.mark.parametrize(
    ("name", "onnx", "numpy"),
    [
        ("FP16", TensorProto.FLOAT16, "f2"),
        ("FP64", TensorProto.DOUBLE, "f8"),
        ("INT64", TensorProto.INT64, "i8"),
        ("INT8", TensorProto.INT8, "i1"),
        ("UINT8", TensorProto.UINT8, "u1"),
        ("BOOL", TensorProto.BOOL, "b1"),
    ],
)
async def test_carries(triton: RunningTriton, name: str, onnx: int, numpy: str) -> None:
    """Every numeric datatype goes in and out exactly."""
    model = f"carries_{name}"
    triton.add(model, identity(onnx, ["N", 3]))
    await triton.load(model, config([3], [3], name))
    array = np.array([[0, 1, 2], [3, 100, 1]]).astype(numpy)
    answer = (await triton.infer(model, {"x": array}))["y"]
    assert answer.dtype == array.dtype
    np.testing.assert_array_equal(answer, array)
    await triton.unload(model)


async def test_merges_a_batch(triton: RunningTriton) -> None:
    """Requests at once run as few batches, and each gets its own rows back."""
    triton.add("merges", FIXED)
    delay = {"max_queue_delay_microseconds": 500_000}
    # Without the arena, memory that was given back too early does not stay as it was.
    no_arena = parameters(enable_mem_arena="0")
    await triton.load("merges", config([3], [3], dynamic_batching=delay, parameters=no_arena))
    arrays = [np.full((rows, 3), rows * 10 + n, np.float32) for n, rows in enumerate([1, 2, 1, 3])]
    answers = await asyncio.gather(*(triton.infer("merges", {"x": array}) for array in arrays))
    for array, answer in zip(arrays, answers, strict=True):
        np.testing.assert_array_equal(answer["y"], array)
    client = await triton.grpc()
    executions = 0

    async def all_counted() -> bool:
        """Triton counts a run a little after it has answered."""
        nonlocal executions
        headers = triton.endpoint.admin_metadata
        said = await client.get_inference_statistics("merges", headers=headers)
        statistics = said.model_stats[0]
        executions = statistics.execution_count
        return bool(statistics.inference_count == 7)

    await eventually(all_counted)
    assert executions < len(arrays)
    await triton.unload("merges")


async def test_one_bad_request_of_a_batch(triton: RunningTriton) -> None:
    """A request that the graph cannot run fails alone, as the caller's fault."""
    lookup = graph(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        [tensor("x", ["N", 1], TensorProto.INT64)],
        [tensor("y", ["N", 1], TensorProto.FLOAT)],
        [numpy_helper.from_array(np.arange(10, dtype=np.float32), "table")],
    )
    triton.add("lookup", lookup)
    delay = {"max_queue_delay_microseconds": 100_000}
    wanted = config([1], [1], "INT64", dynamic_batching=delay)
    wanted["output"][0]["data_type"] = "TYPE_FP32"
    await triton.load("lookup", wanted)
    answers = await asyncio.gather(
        *(triton.infer("lookup", {"x": np.array([[index]])}) for index in (3, 99, 7)),
        return_exceptions=True,
    )
    good, bad, also_good = answers
    assert isinstance(good, dict)
    assert isinstance(also_good, dict)
    assert (good["y"].item(), also_good["y"].item()) == (3, 7)
    assert isinstance(bad, InferenceServerException)
    assert "INVALID_ARGUMENT" in str(bad.status())
    assert "Traceback" not in str(bad)
    await triton.unload("lookup")


async def test_requested_outputs(triton: RunningTriton) -> None:
    """Only the outputs that were asked for are answered."""
    two = graph(
        [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Abs", ["x"], ["b"])],
        [tensor("x", ["N", 2])],
        [tensor("a", ["N", 2]), tensor("b", ["N", 2])],
    )
    triton.add("two", two)
    outputs = [{"name": name, "data_type": "TYPE_FP32", "dims": [2]} for name in "ab"]
    await triton.load("two", config([2], [2], output=outputs))
    array = np.array([[1, -2]], np.float32)
    assert set(await triton.infer("two", {"x": array})) == {"a", "b"}
    only = await triton.infer("two", {"x": array}, outputs=["b"])
    assert set(only) == {"b"}
    np.testing.assert_array_equal(only["b"], [[1, 2]])
    await triton.unload("two")


async def test_large_tensors_are_exact(triton: RunningTriton) -> None:
    """Megabytes go through unharmed, more than the shared memory starts with."""
    triton.add("large", identity(TensorProto.FLOAT, ["N", "H", "W", 3]))
    await triton.load("large", config([-1, -1, 3], [-1, -1, 3]))
    array = np.random.default_rng(0).normal(size=(2, 500, 700, 3)).astype(np.float32)
    np.testing.assert_array_equal((await triton.infer("large", {"x": array}))["y"], array)
    await triton.unload("large")


async def test_serves_from_disk(triton: RunningTriton) -> None:
    """Without an override, the config.pbtxt in the repository is what is served."""
    path = triton.add("on_disk", tiny_classifier())
    (path.parents[1] / "config.pbtxt").write_text(
        'backend: "onnxruntime"\nmax_batch_size: 8\n'
        'input { name: "x" data_type: TYPE_FP32 dims: [-1, -1, 3] }\n'
        'output { name: "y" data_type: TYPE_FP32 dims: [5] }\n'
        "instance_group { count: 1 kind: KIND_AUTO }\n"
    )
    await triton.load("on_disk")
    assert (await triton.infer("on_disk", {"x": IMAGE}))["y"].shape == (1, 5)
    await triton.load("on_disk", tiny_config())
    await triton.unload("on_disk")
