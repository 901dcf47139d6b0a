"""
From a model file to its configuration, and from there to a repository or a screen: nothing is
written here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from tritonclient.grpc import model_config_pb2 as pb

from gateway.converter import model_config
from gateway.converter.errors import SignatureUnsupported
from gateway.converter.model_config import ConfigOptions
from gateway.converter.onnx_signature import (
    MAX_FILE_BYTES,
    accepts_inputs,
    ends_in_softmax,
    read_graph,
    signature_of,
)
from gateway.converter.signature import ModelSignature
from gateway.converter.uint8_input import GraphDecision, InputPolicy, feed_bytes

LABELS_FILE = "labels.txt"
# A second session holds the weights once more, in each instance: not of models larger than this.
_LATENCY_SESSION_BYTES = 128 * 1024 * 1024
# What the changed graph may be larger by; a file at the very limit is left as it is.
_ROOM_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class PublishingPlan:
    """
    What would be published.

    Attributes:
        graph: The graph, without its weights.
        signature: What it takes and answers.
        config: How it would be served.
        changes: What is other than in the file, a sentence each; none: the file is published.
        kept_graph: Whether the graph would have been changed, but is wished as it is.
    """

    graph: onnx.ModelProto
    signature: ModelSignature
    config: pb.ModelConfig
    changes: tuple[str, ...]
    kept_graph: bool

    @property
    def scores(self) -> str | None:
        """Kind of scores: "probabilities" if it ends in a softmax; None where that is not told."""
        return "probabilities" if ends_in_softmax(self.graph) else None

    @property
    def trial_shape(self) -> tuple[int, ...] | None:
        """The shape of the input that it is warmed up with, which it is known to take."""
        shapes = model_config.warm_up_shapes(self.signature)
        return shapes[self.signature.inputs[0].name] if self.config.model_warmup else None


def plan_version(
    source: Path,
    *,
    name: str,
    version: int,
    options: ConfigOptions,
    policy: InputPolicy,
    labels: Sequence[str] | None = None,
) -> PublishingPlan:
    """
    Read a model and decide how it would be published. Writes nothing.

    Args:
        source: The model file.
        name, version: Under which it would be published.
        options: How to serve it. A warm-up is left out if the graph may not take its shapes.
        policy: When its graph gets a uint8 input.
        labels: One class name for each score, in order.

    Raises:
        NameInvalid, VersionInvalid: The name or the number is not allowed.
        ModelInvalid, ExternalDataForbidden, SignatureUnsupported: The model is refused.
    """
    graph = read_graph(source)
    signature = signature_of(graph)
    if not signature.inputs or not signature.outputs:
        raise SignatureUnsupported(f"A model needs inputs and outputs; this one has {signature}")
    if labels is not None:
        _check_labels(labels, signature)
        options = replace(options, label_filename=f"{version}/{LABELS_FILE}")
    if source.stat().st_size > _LATENCY_SESSION_BYTES:
        options = replace(options, placement=replace(options.placement, latency_threads=None))
    decision = policy.decide(graph, signature.inputs[0])
    changes: tuple[str, ...] = ()
    if decision is GraphDecision.CHANGE and source.stat().st_size <= MAX_FILE_BYTES - _ROOM_BYTES:
        changes = (feed_bytes(graph),)
        signature = signature_of(graph)
    if options.warm_up and _sizes_are_guessed(signature):
        shapes = model_config.warm_up_shapes(signature)
        options = replace(options, warm_up=accepts_inputs(graph, shapes))
    config = model_config.generate_config(name, signature, versions=[version], options=options)
    return PublishingPlan(
        graph, signature, config, changes, kept_graph=decision is GraphDecision.KEEP
    )


def _sizes_are_guessed(signature: ModelSignature) -> bool:
    """Whether a warm-up has to choose the size of more than a batch axis."""
    return any(
        None in (tensor.shape[1:] if len(tensor.shape) == 4 else tensor.shape)
        for tensor in signature.inputs
    )


def _check_labels(labels: Sequence[str], signature: ModelSignature) -> None:
    if signature.classes is not None and len(labels) != signature.classes:
        raise SignatureUnsupported(
            f"There are {len(labels)} labels for {signature.classes} classes. The model has "
            f"{signature}"
        )
    if any(not label or "\n" in label or "\r" in label for label in labels):
        raise SignatureUnsupported("A label is empty or holds a line break.")
