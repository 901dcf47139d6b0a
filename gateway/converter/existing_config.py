"""
A config.pbtxt that is there already, perhaps written by hand: is it still right, and what does it
leave out?

It fits a signature if Triton's onnxruntime backend would load the model with it: a dynamic size of
an input may be pinned, a `reshape` may stand between, outputs may be left out. One that fits is
kept, because somebody may have tuned it. One that names no inputs and outputs relies on Triton's
auto-completion, which the embedded server has switched off; the same is done here.

Source: Triton, Model Configuration ("Auto-Generated Model Configuration");
triton-inference-server/onnxruntime_backend, `src/onnxruntime.cc`, release 24.10.
"""

import re
from collections.abc import Mapping, Sequence

from tritonclient.grpc import model_config_pb2 as pb

from gateway.converter.model_config import triton_datatype
from gateway.converter.signature import ModelSignature, TensorSignature

_VERSION_LABELS = re.compile(r"[0-9]+/labels\.txt")


def fits(config: pb.ModelConfig, signature: ModelSignature) -> bool:
    """Whether a model of this signature loads with the configuration."""
    batches = config.max_batch_size > 0
    if batches and not signature.batchable:
        return False
    inputs = {tensor.name: tensor for tensor in signature.inputs}
    outputs = {tensor.name: tensor for tensor in signature.outputs}
    listed = {tensor.name for tensor in config.input if not tensor.optional}
    return (
        listed == set(inputs)
        and len(config.output) > 0
        and _all_fit([t for t in config.input if not t.optional], inputs, batches, pinned=True)
        and _all_fit(config.output, outputs, batches, pinned=False)
    )


def complete(written: pb.ModelConfig, generated: pb.ModelConfig) -> pb.ModelConfig:
    """Fill in what `written` leaves to auto-completion; a copy."""
    completed = pb.ModelConfig()
    completed.CopyFrom(written)
    if not (completed.backend or completed.platform):
        completed.backend = generated.backend
    if not completed.input and not completed.output:
        completed.input.extend(generated.input)
        completed.output.extend(generated.output)
        completed.max_batch_size = completed.max_batch_size or generated.max_batch_size
    return completed


def with_labels(config: pb.ModelConfig, label_filename: str, *, output: str) -> pb.ModelConfig:
    """
    Return a copy whose labels are those of one version.

    Args:
        config: A configuration that may name another version's labels, which may be removed.
        label_filename: The version's own, relative to the model's directory; "" if it has none.
            Labels that lie elsewhere, as somebody put them there, then stay.
        output: The output that is labelled.
    """
    changed = pb.ModelConfig()
    changed.CopyFrom(config)
    for tensor in changed.output:
        if _VERSION_LABELS.fullmatch(tensor.label_filename):
            tensor.label_filename = ""
        if label_filename and tensor.name == output:
            tensor.label_filename = label_filename
    return changed


def _all_fit(
    listed: Sequence[pb.ModelInput | pb.ModelOutput],
    tensors: Mapping[str, TensorSignature],
    batches: bool,
    *,
    pinned: bool,
) -> bool:
    return all(
        tensor.name in tensors and _fits(tensor, tensors[tensor.name], batches, pinned=pinned)
        for tensor in listed
    )


def _fits(
    listed: pb.ModelInput | pb.ModelOutput, tensor: TensorSignature, batches: bool, *, pinned: bool
) -> bool:
    if listed.data_type != triton_datatype(tensor):
        return False
    shape = tuple(listed.reshape.shape if listed.HasField("reshape") else listed.dims)
    if not tensor.shape:
        return all(size == 1 for size in shape)
    if batches:
        shape = (-1, *shape)
    return len(shape) == len(tensor.dims) and all(
        said == real or (pinned and real == -1)
        for said, real in zip(shape, tensor.dims, strict=True)
    )
