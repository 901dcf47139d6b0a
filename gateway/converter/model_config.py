"""
Triton's model configuration (config.pbtxt) for a signature, made from Triton's own protobuf and
never pasted together: whatever a tensor is called, the text parses back to the same name.

What it always says, and why:

- the backend by name, so that one file serves the embedded Python-based backend and the C++ one of
  NVIDIA's container, and KIND_AUTO: the GPU where there is one;
- the number of instances (Triton's default on a CPU is two) and of threads (onnxruntime's default
  is every core, for each instance), also for a request that is alone; that is the embedded
  backend's, the C++ one ignores what it does not know;
- no dynamic batching, unless it was measured to be a gain: with a queue policy, Triton's batcher
  can sleep for half a second while requests wait (docs/decisions/0004). How many may wait is
  bounded by the gateway;
- a warm-up, so that the first caller does not pay for the first run;
- exactly which versions are served: Triton's default is the highest number only.

Inputs and outputs repeat the graph's shapes to the letter, because the C++ backend compares them: a
fixed size of an input and every size of an output must be equal.

Source: Triton, Model Configuration; triton-inference-server/onnxruntime_backend,
`src/onnxruntime.cc` (ValidateInputs, ValidateOutputs), release 24.10.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as pb

from gateway.converter.errors import ConfigInvalid
from gateway.converter.names import check_model_name, check_version
from gateway.converter.placement import Placement, placement_for_machine
from gateway.converter.signature import ModelSignature, Shape, TensorSignature

__all__ = [
    "ConfigOptions",
    "Placement",
    "generate_config",
    "largest_batch",
    "model_name",
    "parse",
    "placement_for_machine",
    "render",
    "to_json",
    "triton_datatype",
    "warm_up_shapes",
    "with_versions",
]

BACKEND = "onnxruntime"
_WARM_UP_SIDE = 224
_CHANNEL_COUNTS = frozenset({1, 3, 4})


@dataclass(frozen=True, slots=True)
class ConfigOptions:
    """
    What the signature does not decide.

    Attributes:
        placement: Instances and threads.
        max_batch_size: Largest batch, where the model can batch at all; 0: never batch.
        queue_delay_us: Have Triton join requests into batches, and let each wait so long for
            others, microseconds. 0 joins only those that are waiting anyway; None joins none.
        warm_up: Run once while loading.
        label_filename: File of class names for the first output, relative to the model's directory.
    """

    placement: Placement = field(default_factory=placement_for_machine)
    max_batch_size: int = 8
    queue_delay_us: int | None = None
    warm_up: bool = True
    label_filename: str | None = None


def generate_config(
    name: str, signature: ModelSignature, *, versions: Sequence[int], options: ConfigOptions
) -> pb.ModelConfig:
    """
    Generate the configuration of a model.

    It batches exactly when the first axis of every tensor is dynamic; `dims` then leave that axis
    out. Any other model keeps its full shapes and runs one request at a time.

    Args:
        name: The model's name, which is its directory's.
        signature: Its inputs and outputs.
        versions: The versions to serve.
        options: Everything else.

    Raises:
        NameInvalid, VersionInvalid: The name or a number is not allowed.
    """
    batches = signature.batchable and options.max_batch_size > 0
    placement = options.placement
    parameters = {
        "intra_op_thread_count": _parameter(placement.intra_op_threads),
        "inter_op_thread_count": _parameter(1),
    }
    if placement.latency_threads is not None:
        parameters["latency.intra_op_thread_count"] = _parameter(placement.latency_threads)
    config = pb.ModelConfig(
        name=check_model_name(name),
        backend=BACKEND,
        max_batch_size=options.max_batch_size if batches else 0,
        input=[pb.ModelInput(**_tensor(tensor, batches)) for tensor in signature.inputs],
        output=[pb.ModelOutput(**_tensor(tensor, batches)) for tensor in signature.outputs],
        instance_group=[
            pb.ModelInstanceGroup(count=placement.instances, kind=pb.ModelInstanceGroup.KIND_AUTO)
        ],
        parameters=parameters,
    )
    if batches and options.queue_delay_us is not None:
        config.dynamic_batching.max_queue_delay_microseconds = options.queue_delay_us
    if options.label_filename and config.output:
        config.output[0].label_filename = options.label_filename
    if options.warm_up:
        config.model_warmup.append(_warm_up(signature, batches))
    return with_versions(config, versions)


def warm_up_shapes(signature: ModelSignature) -> dict[str, tuple[int, ...]]:
    """
    Choose the shape that each input is warmed up with, the batch axis included: one image, dynamic
    sides 224, a dynamic channel axis 3.
    """
    return {tensor.name: _concrete(tensor.shape) for tensor in signature.inputs}


def with_versions(config: pb.ModelConfig, versions: Sequence[int]) -> pb.ModelConfig:
    """
    Return a copy that serves just these versions.

    Raises:
        VersionInvalid: One is not a version number.
    """
    numbers = sorted({check_version(version) for version in versions})
    changed = pb.ModelConfig()
    changed.CopyFrom(config)
    changed.version_policy.CopyFrom(
        pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=numbers))
    )
    return changed


def render(config: pb.ModelConfig) -> str:
    """Write a configuration as the text of a config.pbtxt: ASCII, whatever the names hold."""
    text: str = text_format.MessageToString(config, as_utf8=False)
    return text


def parse(text: str) -> pb.ModelConfig:
    """
    Read the text of a config.pbtxt.

    Raises:
        ConfigInvalid: Triton could not read it either; the text tells line and column.
    """
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except (text_format.ParseError, UnicodeEncodeError) as error:
        raise ConfigInvalid(f"config.pbtxt cannot be read: {error}") from error


@lru_cache(maxsize=4096)
def model_name(text: str) -> str:
    """
    Return the name that the text of a config.pbtxt gives its Triton model; "" if it gives none.

    Raises:
        ConfigInvalid: It cannot be read.
    """
    return str(parse(text).name)


@lru_cache(maxsize=4096)
def largest_batch(text: str) -> int:
    """
    Return the largest batch that the text of a config.pbtxt allows; 0 if it never batches.

    Raises:
        ConfigInvalid: It cannot be read.
    """
    return int(parse(text).max_batch_size)


def to_json(config: pb.ModelConfig) -> str:
    """Write a configuration as the JSON that Triton's load call takes in place of the file."""
    text: str = json_format.MessageToJson(config, preserving_proto_field_name=True, indent=None)
    return text


def triton_datatype(tensor: TensorSignature) -> int:
    """Give the number of the tensor's datatype in Triton's protobuf (`DataType`)."""
    name = "STRING" if tensor.dtype == "BYTES" else tensor.dtype
    value: int = pb.DataType.Value(f"TYPE_{name}")
    return value


def _tensor(tensor: TensorSignature, batches: bool) -> dict[str, object]:
    fields: dict[str, object] = {"name": tensor.name, "data_type": triton_datatype(tensor)}
    dims = tensor.dims[1:] if batches else tensor.dims
    if dims:
        return fields | {"dims": dims}
    # Triton cannot say "no axes". For a scalar the onnxruntime backend takes one axis of one; a
    # tensor that has nothing but its batch axis is reshaped to that.
    return fields | {"dims": (1,)} | ({"reshape": pb.ModelTensorReshape()} if batches else {})


def _parameter(value: int) -> pb.ModelParameter:
    return pb.ModelParameter(string_value=str(value))


def _warm_up(signature: ModelSignature, batches: bool) -> pb.ModelWarmup:
    shapes: Mapping[str, tuple[int, ...]] = warm_up_shapes(signature)
    # batch_size is 1 without batching too: Triton skips a sample of batch size 0.
    warm_up = pb.ModelWarmup(name="one_image", batch_size=1, count=1)
    for tensor in signature.inputs:
        shape = shapes[tensor.name]
        dims = (shape[1:] if batches else shape) or (1,)
        warm_up.inputs[tensor.name].CopyFrom(
            pb.ModelWarmup.Input(data_type=triton_datatype(tensor), dims=dims, zero_data=True)
        )
    return warm_up


def _concrete(shape: Shape) -> tuple[int, ...]:
    concrete = [_WARM_UP_SIDE if size is None else size for size in shape]
    if len(shape) != 3 and shape and shape[0] is None:
        concrete[0] = 1
    if len(shape) >= 3:
        channels = _channel_axis(shape)
        if shape[channels] is None:
            concrete[channels] = 3
    return tuple(concrete)


def _channel_axis(shape: Shape) -> int:
    """Find the axis of the channels of an image: first or last; last where both might be."""
    first, last = len(shape) - 3, len(shape) - 1
    if shape[last] in _CHANNEL_COUNTS:
        return last
    if shape[first] in _CHANNEL_COUNTS or (shape[first] is None and shape[last] is not None):
        return first
    return last
