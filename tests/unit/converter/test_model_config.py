"""Model configurations: what they say for each signature, and that any name survives."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2 as pb

from gateway.converter.errors import ConfigInvalid, NameInvalid, VersionInvalid
from gateway.converter.existing_config import complete, fits
from gateway.converter.model_config import (
    ConfigOptions,
    Placement,
    generate_config,
    parse,
    render,
    to_json,
    warm_up_shapes,
    with_versions,
)
from gateway.converter.signature import ModelSignature, Shape, TensorSignature
from tests.model_family import FAMILY, ModelCase

PLACEMENT = Placement(instances=2, intra_op_threads=3, latency_threads=4)
OPTIONS = ConfigOptions(placement=PLACEMENT)


def _signature(image: Shape = (None, None, None, 3), scores: Shape = (None, 10)) -> ModelSignature:
    return ModelSignature(
        (TensorSignature("image", "FP32", image),), (TensorSignature("scores", "FP32", scores),), 8
    )


def _config(signature: ModelSignature, options: ConfigOptions = OPTIONS) -> pb.ModelConfig:
    return generate_config("m", signature, versions=[1], options=options)


def test_batching_model_leaves_the_batch_axis_out() -> None:
    """With max_batch_size, dims are the shape behind the batch axis."""
    config = _config(_signature())
    assert config.max_batch_size == 8
    assert list(config.input[0].dims) == [-1, -1, 3]
    assert list(config.output[0].dims) == [10]


@pytest.mark.parametrize(
    ("image", "scores"), [((1, 8, 8, 3), (1, 10)), ((None, 8, 8, 3), (1, 10)), ((8, 8, 3), (10,))]
)
def test_other_models_keep_their_full_shapes(image: Shape, scores: Shape) -> None:
    """Without batching, dims are the whole shape."""
    signature = _signature(image, scores)
    config = _config(signature)
    assert config.max_batch_size == 0
    assert tuple(config.input[0].dims) == signature.inputs[0].dims
    assert tuple(config.output[0].dims) == signature.outputs[0].dims


def test_batching_can_be_refused() -> None:
    """max_batch_size 0 gives the full shapes also where the model could batch."""
    config = _config(_signature(), ConfigOptions(placement=PLACEMENT, max_batch_size=0))
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [-1, -1, -1, 3]


def test_scalar_is_one_axis_of_one() -> None:
    """Triton has no empty dims: a scalar is [1], a batch of scalars is reshaped from it."""
    scalar = _config(_signature(scores=()))
    assert list(scalar.output[0].dims) == [1]
    assert not scalar.output[0].HasField("reshape")
    batched = _config(_signature(scores=(None,)))
    assert list(batched.output[0].dims) == [1]
    assert list(batched.output[0].reshape.shape) == []
    assert batched.output[0].HasField("reshape")


@pytest.mark.parametrize("case", FAMILY, ids=lambda case: case.id)
def test_every_config_bounds_instances_and_threads(case: ModelCase) -> None:
    """Instances, threads and versions are always written, batching or not; no batcher is."""
    config = _config(ModelSignature(case.inputs, case.outputs, 8))
    assert config.backend == "onnxruntime"
    (group,) = config.instance_group
    assert (group.count, group.kind) == (2, pb.ModelInstanceGroup.KIND_AUTO)
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert parameters == {
        "intra_op_thread_count": "3",
        "inter_op_thread_count": "1",
        "latency.intra_op_thread_count": "4",
    }
    assert not config.HasField("dynamic_batching")
    assert list(config.version_policy.specific.versions) == [1]
    (warm_up,) = config.model_warmup
    assert warm_up.batch_size == 1
    assert all(size > 0 for given in warm_up.inputs.values() for size in given.dims)
    assert fits(config, ModelSignature(case.inputs, case.outputs, 8))


def test_batcher_only_where_asked_for_and_possible() -> None:
    """A queue delay switches dynamic batching on, but never for a model that cannot batch."""
    asked = ConfigOptions(placement=PLACEMENT, queue_delay_us=200)
    config = _config(_signature(), asked)
    assert config.dynamic_batching.max_queue_delay_microseconds == 200
    assert not _config(_signature(), replace(asked, max_batch_size=0)).HasField("dynamic_batching")


@pytest.mark.parametrize(
    ("image", "warm"),
    [
        ((None, None, None, 3), (1, 224, 224, 3)),
        ((None, 3, None, None), (1, 3, 224, 224)),
        ((1, 8, None, 3), (1, 8, 224, 3)),
        ((None, None, None, None), (1, 224, 224, 3)),
        ((None, None, 32, 32), (1, 3, 32, 32)),
        ((None, None, 3), (224, 224, 3)),
        ((3, None, None), (3, 224, 224)),
        ((None, 7), (1, 7)),
        ((), ()),
    ],
)
def test_warm_up_is_one_image_of_concrete_size(image: Shape, warm: tuple[int, ...]) -> None:
    """Dynamic sides are 224, a dynamic channel axis is 3, fixed sizes stay."""
    assert warm_up_shapes(_signature(image)) == {"image": warm}


_names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(_names, _names)
def test_any_tensor_name_parses_back(given_name: str, answer_name: str) -> None:
    """Quotes, newlines, backslashes and all of Unicode survive the text, which stays ASCII."""
    signature = ModelSignature(
        (TensorSignature(given_name, "UINT8", (None, 8, 8, 3)),),
        (TensorSignature(answer_name, "FP32", (None, 3)),),
        8,
    )
    config = _config(signature)
    text = render(config)
    assert text.isascii()
    assert parse(text) == config
    assert parse(text).input[0].name == given_name
    assert list(parse(text).model_warmup[0].inputs) == [given_name]
    assert json.loads(to_json(config))["output"][0]["name"] == answer_name


def test_json_has_tritons_own_keys() -> None:
    """The load call takes snake case, as the protobuf has it."""
    document = json.loads(to_json(_config(_signature())))
    assert document["max_batch_size"] == 8
    assert document["version_policy"] == {"specific": {"versions": ["1"]}}


def test_versions_are_replaced_in_a_copy() -> None:
    """with_versions serves just these, sorted and once, and leaves its argument alone."""
    config = _config(_signature())
    changed = with_versions(config, [3, 2, 3])
    assert list(changed.version_policy.specific.versions) == [2, 3]
    assert list(config.version_policy.specific.versions) == [1]
    with pytest.raises(VersionInvalid):
        with_versions(config, [0])


def test_name_is_checked() -> None:
    """A name that a shell might read never reaches a configuration."""
    with pytest.raises(NameInvalid):
        generate_config("$(true)", _signature(), versions=[1], options=OPTIONS)


@pytest.mark.parametrize("text", ["{", "max_batch_size: -", "no_such_field: 1", "name: 'a"])
def test_broken_text_is_refused(text: str) -> None:
    """What Triton could not read is refused with the reason."""
    with pytest.raises(ConfigInvalid, match=r"config\.pbtxt cannot be read"):
        parse(text)


FIXED = ModelSignature(
    (TensorSignature("image", "FP32", (1, 3, 8, 8)),),
    (TensorSignature("scores", "FP32", (1, 10)), TensorSignature("more", "INT64", ())),
    8,
)
HAND_WRITTEN = """
    backend: "onnxruntime"
    input { name: "image" data_type: TYPE_FP32 dims: [3, 8, 8] reshape { shape: [1, 3, 8, 8] } }
    output { name: "scores" data_type: TYPE_FP32 dims: [10] reshape { shape: [1, 10] } }
"""


def test_hand_written_config_may_reshape_and_leave_outputs_out() -> None:
    """It fits if the backend would load the model with it."""
    assert fits(parse(HAND_WRITTEN), FIXED)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"image"', '"picture"'),
        ("TYPE_FP32", "TYPE_UINT8"),
        ("shape: [1, 3, 8, 8]", "shape: [1, 3, 9, 8]"),
        ("shape: [1, 3, 8, 8]", "shape: [1, 3, -1, 8]"),
        ("shape: [1, 10]", "shape: [1, -1]"),
        ('"scores"', '"score"'),
        ('backend: "onnxruntime"', "max_batch_size: 4"),
        ('backend: "onnxruntime"', 'input { name: "b" data_type: TYPE_FP32 dims: [1] }'),
    ],
)
def test_config_that_would_fail_the_load_does_not_fit(old: str, new: str) -> None:
    """Names, datatypes and sizes are compared as the C++ backend compares them."""
    assert not fits(parse(HAND_WRITTEN.replace(old, new)), FIXED)


def test_input_may_be_pinned_and_output_may_not() -> None:
    """A dynamic size of an input may be fixed by the configuration; one of an output may not."""
    signature = _signature(scores=(None, None))
    config = _config(signature)
    config.input[0].dims[:] = [224, 224, 3]
    assert fits(config, signature)
    config.output[0].dims[:] = [10]
    assert not fits(config, signature)


def test_what_is_left_to_auto_completion_is_filled_in() -> None:
    """Only what is missing is taken from the generated configuration."""
    generated = _config(_signature())
    written = parse("instance_group { count: 7 }")
    completed = complete(written, generated)
    assert completed.backend == "onnxruntime"
    assert completed.max_batch_size == 8
    assert completed.input[0] == generated.input[0]
    assert completed.instance_group[0].count == 7
    assert not completed.model_warmup
    assert complete(completed, generated) == completed
