"""
Triton's config.pbtxt for a signature, made from Triton's own protobuf and never pasted together.

What it always says, and why: the backend by name (the same file serves the embedded Python-based
backend and the C++ one of the NGC image); how many instances and threads (the defaults
oversubscribe a small machine); a bounded queue; a warm-up, so that the first caller does not pay
for it; and just which versions are served.

Source: Triton, Model Configuration; onnxruntime_backend (load checks).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as pb

from tools.errors import ModelInvalid
from tools.onnx_signature import ModelSignature, Shape, TensorSignature

_WARMUP_SIDE = 224


@dataclass(frozen=True, slots=True)
class Placement:
    """How a model uses the machine: instances side by side, threads inside each."""

    instances: int
    intra_op_threads: int


def placement_for_machine(cores: int | None = None) -> Placement:
    """
    Share the cores out: instances × threads = cores. One thread each measures best for throughput
    without losing latency to oversubscription, up to four instances; more cores become threads.
    """
    cores = cores or len(os.sched_getaffinity(0))
    instances = min(cores, 4)
    return Placement(instances, max(1, cores // instances))


@dataclass(frozen=True, slots=True)
class ConfigOptions:
    """
    What the signature does not decide.

    Attributes:
        placement: Instances and threads.
        max_batch_size: Largest batch where the model can batch at all.
        max_queue_size: Requests that may wait for the model on one replica.
        queue_timeout_us: A request that waited longer is refused.
        label_filename: Triton's file of class names, if there is one.
    """

    placement: Placement = field(default_factory=placement_for_machine)
    max_batch_size: int = 8
    max_queue_size: int = 256
    queue_timeout_us: int = 30_000_000
    label_filename: str | None = None


def generate_config(
    name: str, signature: ModelSignature, *, versions: Sequence[int], options: ConfigOptions
) -> pb.ModelConfig:
    """
    Generate the config of a model.

    Batching is on exactly when the first axis of every tensor is open; then `dims` leave it out. A
    model with a fixed batch keeps its full shapes and is never given two requests at once.

    Args:
        name: The model's name, which is its directory's.
        signature: Its tensors.
        versions: The versions to serve.
        options: Everything else.
    """
    batches = signature.batchable and options.max_batch_size > 0
    config = pb.ModelConfig(
        name=name,
        backend="onnxruntime",
        max_batch_size=options.max_batch_size if batches else 0,
        input=[
            pb.ModelInput(name=t.name, data_type=_data_type(t), dims=_dims(t, batches))
            for t in signature.inputs
        ],
        output=[
            pb.ModelOutput(name=t.name, data_type=_data_type(t), dims=_dims(t, batches))
            for t in signature.outputs
        ],
        instance_group=[
            pb.ModelInstanceGroup(
                count=options.placement.instances, kind=pb.ModelInstanceGroup.KIND_AUTO
            )
        ],
        parameters={
            "intra_op_thread_count": _parameter(str(options.placement.intra_op_threads)),
            "inter_op_thread_count": _parameter("1"),
        },
        model_warmup=[_warmup(signature, batches)],
        # Also without batching: it is this scheduler that bounds the queue.
        dynamic_batching=pb.ModelDynamicBatching(
            default_queue_policy=pb.ModelQueuePolicy(
                timeout_action=pb.ModelQueuePolicy.REJECT,
                default_timeout_microseconds=options.queue_timeout_us,
                max_queue_size=options.max_queue_size,
            )
        ),
    )
    if options.label_filename and config.output:
        config.output[0].label_filename = options.label_filename
    return with_versions(config, versions)


def with_versions(config: pb.ModelConfig, versions: Sequence[int]) -> pb.ModelConfig:
    """Return a copy that serves just these versions."""
    changed = pb.ModelConfig()
    changed.CopyFrom(config)
    changed.version_policy.CopyFrom(
        pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=sorted(versions)))
    )
    return changed


def render(config: pb.ModelConfig) -> str:
    """Write a config as the text of a config.pbtxt."""
    text: str = text_format.MessageToString(config)
    return text


def parse(text: str) -> pb.ModelConfig:
    """
    Read the text of a config.pbtxt.

    Raises:
        ModelInvalid: It is none.
    """
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        raise ModelInvalid(f"config.pbtxt cannot be read: {error}") from error


def to_json(config: pb.ModelConfig) -> str:
    """Write a config as the JSON that Triton's load call takes in place of the file."""
    text: str = json_format.MessageToJson(config, preserving_proto_field_name=True, indent=None)
    return text


def _dims(tensor: TensorSignature, batches: bool) -> list[int]:
    sizes = tensor.shape[1:] if batches else tensor.shape
    # A config cannot say "no axes"; a scalar is one axis of one.
    return [-1 if size is None else size for size in sizes] or [1]


def _data_type(tensor: TensorSignature) -> int:
    name = "TYPE_STRING" if tensor.dtype == "BYTES" else f"TYPE_{tensor.dtype}"
    value: int = pb.DataType.Value(name)
    return value


def _parameter(text: str) -> pb.ModelParameter:
    return pb.ModelParameter(string_value=text)


def _warmup(signature: ModelSignature, batches: bool) -> pb.ModelWarmup:
    warmup = pb.ModelWarmup(name="first_request", batch_size=1, count=1)
    for tensor in signature.inputs:
        shape = tensor.shape[1:] if batches else tensor.shape
        warmup.inputs[tensor.name].CopyFrom(
            pb.ModelWarmup.Input(
                data_type=_data_type(tensor), dims=_concrete(shape, batches), zero_data=True
            )
        )
    return warmup


def _concrete(shape: Shape, batches: bool) -> list[int]:
    """Choose a size for every open axis: one image, sides of 224, three channels at the end."""
    chosen = [_WARMUP_SIDE if size is None else size for size in shape]
    if not batches and shape and shape[0] is None:
        chosen[0] = 1
    if len(shape) >= 3 and shape[-1] is None and shape[1 if not batches else 0] is None:
        chosen[-1] = 3
    return chosen or [1]
