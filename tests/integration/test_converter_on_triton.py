"""The converter and a real Triton: what it writes loads unchanged and answers like onnxruntime."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc.aio as triton_grpc
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from gateway.converter.model_config import ConfigOptions, Placement, parse, to_json, with_versions
from gateway.converter.publish import PublishedVersion, publish_version, read_published
from tests.model_family import FAMILY, ModelCase, classifier_case, model_of
from tests.running_triton import RunningTriton

ONE_THREAD = ConfigOptions(placement=Placement(instances=1, intra_op_threads=1))


def _directly(path: Path, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options)
    return list(session.run(None, feeds))


def _as_published(
    published: PublishedVersion, feeds: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Give inputs the datatypes that the published version takes."""
    return {
        tensor.name: feeds[tensor.name].astype(triton_to_np_dtype(tensor.dtype))
        for tensor in published.signature.inputs
    }


@pytest.mark.parametrize("case", FAMILY, ids=lambda case: case.id)
async def test_family_serves_as_onnxruntime_runs(
    case: ModelCase, triton: RunningTriton, tmp_path: Path
) -> None:
    """
    Each config.pbtxt is accepted unchanged; the answers are those of the file that was given, as
    onnxruntime runs it, bit for bit.
    """
    name = f"family-{case.id}"
    source = case.build(tmp_path / "model.onnx")
    published = await asyncio.to_thread(
        publish_version,
        source,
        repository=triton.repository,
        name=name,
        version=1,
        options=ONE_THREAD,
    )
    await triton.load(name)
    feeds = case.sample()
    answers = await triton.infer(name, _as_published(published, feeds))
    await triton.unload(name)
    for tensor, direct in zip(case.outputs, _directly(source, feeds), strict=True):
        answered = answers[tensor.name]
        np.testing.assert_array_equal(answered.reshape(direct.shape), direct)


async def test_dynamic_batch_takes_many_images_at_once(
    triton: RunningTriton, tmp_path: Path
) -> None:
    """A model that batches answers a request of eight, and refuses nine: max_batch_size."""
    case = classifier_case("batches", (None, 8, 8, 3))
    source = case.build(tmp_path / "model.onnx")
    publish_version(
        source, repository=triton.repository, name="batches", version=1, options=ONE_THREAD
    )
    await triton.load("batches")
    images = np.random.default_rng(1).integers(0, 256, (9, 8, 8, 3)).astype(np.uint8)
    answer = await triton.infer("batches", {"image": images[:8]})
    direct = _directly(source, {"image": images[:8].astype(np.float32)})
    np.testing.assert_array_equal(answer["scores"], direct[0])
    with pytest.raises(InferenceServerException, match="batch-size must be <= 8"):
        await triton.infer("batches", {"image": images})
    await triton.unload("batches")


@pytest.mark.parametrize("name", ["name-quotes", "name-newline", "name-unicode", "name-path"])
async def test_any_tensor_name_goes_through_the_load_call(
    name: str, triton: RunningTriton, tmp_path: Path
) -> None:
    """The JSON form of a configuration, which load calls carry, keeps every tensor name too."""
    case = next(case for case in FAMILY if case.id == name)
    model = f"json-{name}"
    published = publish_version(
        case.build(tmp_path / "model.onnx"),
        repository=triton.repository,
        name=model,
        version=1,
        options=ONE_THREAD,
    )
    client = await triton.grpc()
    await client.load_model(
        model, config=to_json(parse(published.config_text)), headers=triton.endpoint.admin_metadata
    )
    answer = await triton.infer(model, _as_published(published, case.sample()))
    assert list(answer) == [case.outputs[0].name]
    await triton.unload(model)


async def test_labels_are_served(triton: RunningTriton, tmp_path: Path) -> None:
    """Triton finds the class names in the version's directory."""
    case = classifier_case("labelled", (None, None, None, 3), classes=3)
    publish_version(
        case.build(tmp_path / "model.onnx"),
        repository=triton.repository,
        name="labelled",
        version=1,
        options=ONE_THREAD,
        labels=["ant", "bée", "cow"],
    )
    await triton.load("labelled")
    image = case.sample()["image"]
    given = triton_grpc.InferInput("image", list(image.shape), "UINT8")
    given.set_data_from_numpy(image.astype(np.uint8))
    client = await triton.grpc()
    wanted = triton_grpc.InferRequestedOutput("scores", class_count=3)
    answer = await client.infer(
        "labelled", [given], outputs=[wanted], headers=triton.endpoint.admin_metadata
    )
    labels = {entry.decode().split(":")[2] for entry in answer.as_numpy("scores").ravel()}
    await triton.unload("labelled")
    assert labels == {"ant", "bée", "cow"}


async def test_next_version_leaves_the_others_alone(triton: RunningTriton, tmp_path: Path) -> None:
    """Publishing and loading a second version with labels does not reload the first."""
    name = "two-versions"
    source = classifier_case("c", (None, None, None, 3), seed=1).build(tmp_path / "1.onnx")
    first = publish_version(
        source, repository=triton.repository, name=name, version=1, options=ONE_THREAD
    )
    client = await triton.grpc()
    headers = triton.endpoint.admin_metadata

    async def load(text: str, versions: list[int]) -> None:
        config = to_json(with_versions(parse(text), versions))
        await client.load_model(name, config=config, headers=headers)

    async def first_has_run(times: int) -> None:
        # Triton counts a run a little after it has answered.
        async with asyncio.timeout(10):
            while True:
                statistics = await client.get_inference_statistics(name, "1", headers=headers)
                if statistics.model_stats[0].inference_count == times:
                    return

    await load(first.config_text, [1])
    image = np.ones((1, 4, 4, 3), np.uint8)
    await triton.infer(name, {"image": image}, version="1")
    # The warm-up and this one. A reloaded version starts to count anew.
    await first_has_run(times=2)
    other = classifier_case("c", (None, None, None, 3), seed=2).build(tmp_path / "2.onnx")
    second = publish_version(
        other,
        repository=triton.repository,
        name=name,
        version=2,
        options=ONE_THREAD,
        labels=list("abcde"),
    )
    await load(first.config_text, [1, 2])
    one = await triton.infer(name, {"image": image}, version="1")
    two = await triton.infer(name, {"image": image}, version="2")
    await first_has_run(times=3)
    np.testing.assert_array_equal(
        two["scores"], _directly(other, {"image": image.astype(np.float32)})[0]
    )
    assert not np.array_equal(one["scores"], two["scores"])
    assert "specific {\n    versions: 2\n" in second.config_text
    await triton.unload(name)


async def test_completed_hand_written_config_loads(triton: RunningTriton) -> None:
    """A config.pbtxt that relies on auto-completion loads as `read_published` completes it."""
    case = classifier_case("c", (None, 8, 8, 3))
    case.build(triton.add("by-hand", b""))
    (triton.repository / "by-hand" / "config.pbtxt").write_text(
        'platform: "onnxruntime_onnx"\ninstance_group { count: 1 }\n'
    )
    adopted = read_published(triton.repository, "by-hand", 1)
    client = await triton.grpc()
    await client.load_model(
        "by-hand",
        config=to_json(parse(adopted.config_text)),
        headers=triton.endpoint.admin_metadata,
    )
    feeds = case.sample()
    answer = await triton.infer("by-hand", feeds)
    source = triton.repository / "by-hand" / "1" / "model.onnx"
    np.testing.assert_array_equal(answer["scores"], _directly(source, feeds)[0])
    await triton.unload("by-hand")


def _slow_classifier() -> bytes:
    """Take about 0.1 s of one core for any image: matrices that depend on its mean."""
    side = 1200
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("ReduceMean", ["mean"], ["scalar"], keepdims=0),
        helper.make_node("Expand", ["scalar", "square"], ["m0"]),
        *(helper.make_node("MatMul", [f"m{i}", "m0"], [f"m{i + 1}"]) for i in range(4)),
        helper.make_node("ReduceMean", ["m4"], ["work"], keepdims=0),
        helper.make_node("Mul", ["work", "zero"], ["nothing"]),
        helper.make_node("Add", ["mean", "nothing"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])],
        [
            numpy_helper.from_array(np.array([side, side]), "square"),
            numpy_helper.from_array(np.zeros((), np.float32), "zero"),
        ],
    )
    serialized: bytes = model_of(graph).SerializeToString()
    return serialized
