"""A real embedded Triton for tests: an empty repository, and a gRPC client with the secret."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton_grpc
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gateway.triton.embedded import EmbeddedListener, EmbeddedOptions, EmbeddedTriton
from gateway.triton.endpoint import TritonEndpoint

DTYPES = {"f4": "FP32", "f2": "FP16", "f8": "FP64", "i8": "INT64", "i4": "INT32", "u1": "UINT8"}
DTYPES |= {"i1": "INT8", "u2": "UINT16", "b1": "BOOL"}


class RunningTriton:
    """The server, its repository, and the calls that tests make."""

    def __init__(self, embedded: EmbeddedTriton, repository: Path) -> None:
        self.embedded = embedded
        self.repository = repository
        self._grpc: tuple[TritonEndpoint, Any] | None = None

    @property
    def endpoint(self) -> TritonEndpoint:
        """Where it answers now."""
        assert self.embedded.endpoint is not None
        return self.embedded.endpoint

    async def grpc(self) -> Any:
        """The aio client of the present endpoint."""
        endpoint = self.endpoint
        if self._grpc is None or self._grpc[0] != endpoint:
            await self.close()
            self._grpc = endpoint, triton_grpc.InferenceServerClient(endpoint.grpc_url)
        return self._grpc[1]

    async def close(self) -> None:
        """Close the client."""
        if self._grpc is not None:
            await self._grpc[1].close()
        self._grpc = None

    def add(self, name: str, model: bytes, version: int = 1) -> Path:
        """Put a graph into the repository; return its file."""
        path = self.repository / name / str(version) / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(model)
        return path

    async def load(self, name: str, config: Mapping[str, Any] | None = None) -> None:
        """Load with this configuration, or with that on disk."""
        text = None if config is None else json.dumps(config)
        client = await self.grpc()
        await client.load_model(name, config=text, headers=self.endpoint.admin_metadata)

    async def unload(self, name: str) -> None:
        """Unload all versions."""
        client = await self.grpc()
        await client.unload_model(name, headers=self.endpoint.admin_metadata)

    async def index(self) -> dict[tuple[str, int], tuple[str, str]]:
        """Return (state, reason) by (model, version) of what was ever loaded."""
        client = await self.grpc()
        listing = await client.get_model_repository_index(headers=self.endpoint.admin_metadata)
        return {
            (model.name, int(model.version)): (model.state, model.reason)
            for model in listing.models
            if model.state
        }

    async def infer(
        self,
        name: str,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[str] = (),
        version: str = "",
        parameters: Mapping[str, int | bool] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Run one request; return {output: array}."""
        tensors = []
        for tensor_name, array in inputs.items():
            tensor = triton_grpc.InferInput(
                tensor_name, list(array.shape), DTYPES[array.dtype.str[1:]]
            )
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        wanted = [triton_grpc.InferRequestedOutput(output) for output in outputs] or None
        client = await self.grpc()
        answer = await client.infer(
            name,
            tensors,
            model_version=version,
            outputs=wanted,
            parameters=parameters,
            headers=self.endpoint.admin_metadata,
        )
        names = [output.name for output in answer.get_response().outputs]
        return {output: answer.as_numpy(output) for output in names}


@asynccontextmanager
async def running_triton(
    directory: Path, listener: EmbeddedListener | None = None, **options: Any
) -> AsyncIterator[RunningTriton]:
    """Start a server below `directory`; stop it at the end."""
    repository = directory / "models"
    repository.mkdir(exist_ok=True)
    embedded = EmbeddedTriton(
        EmbeddedOptions(repository=repository, data_dir=directory / "var", **options), listener
    )
    running = RunningTriton(embedded, repository)
    await embedded.start()
    try:
        yield running
    finally:
        await running.close()
        await embedded.stop(idle=True)


def tiny_classifier(classes: int = 5, seed: int = 0) -> bytes:
    """Return a graph with x: FP32 [N, H, W, 3] and y: FP32 [N, classes], a softmax."""
    weights = np.random.default_rng(seed).normal(size=(3, classes)).astype(np.float32) / 50
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["y"], axis=1),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(weights, "weights")],
    )
    opset = helper.make_opsetid("", 13)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return bytes(model.SerializeToString())


def matrix_products(count: int, side: int) -> bytes:
    """
    Return a graph that takes time, which threads can share out: x: FP32 [1], y: FP32 [], 1 / side
    for a one; in between so many products of matrices.
    """
    nodes = [helper.make_node("Mul", ["x", "w"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{n}", "w"], [f"h{n + 1}"]) for n in range(count)]
    nodes.append(helper.make_node("ReduceMax", [f"h{count}"], ["y"], axes=[0, 1], keepdims=0))
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(np.full((side, side), 1 / side, np.float32), "w")],
    )
    opset = helper.make_opsetid("", 13)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return bytes(model.SerializeToString())


def matrix_products_config(**parameters: int) -> dict[str, Any]:
    """Return the configuration of `matrix_products`: one instance, "__" a dot in parameters."""
    return {
        "backend": "onnxruntime",
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [1]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [1]}],
        "instance_group": [{"count": 1, "kind": "KIND_AUTO"}],
        "parameters": {
            key.replace("__", "."): {"string_value": str(value)}
            for key, value in parameters.items()
        },
    }


def tiny_config(classes: int = 5, **changes: Any) -> dict[str, Any]:
    """Return the configuration of `tiny_classifier`: batches of up to 8, one instance."""
    return {
        "backend": "onnxruntime",
        "max_batch_size": 8,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, -1, 3]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [classes]}],
        "instance_group": [{"count": 1, "kind": "KIND_AUTO"}],
        **changes,
    }
