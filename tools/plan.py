"""
From a model file to its configuration, and from there to a repository or a screen: nothing is
written here.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from tools import model_config
from tools.errors import SignatureUnsupported
from tools.model_config import ConfigOptions
from tools.onnx_signature import accepts_inputs, read_graph, signature_of
from tools.signature import ModelSignature

LABELS_FILE = "labels.txt"


def plan_config(
    source: Path,
    *,
    name: str,
    version: int,
    options: ConfigOptions,
    labels: Sequence[str] | None = None,
) -> tuple[ModelSignature, pb.ModelConfig]:
    """
    Read a model and decide how it would be configured. Writes nothing.

    Args:
        source: The model file.
        name, version: Under which it would be published.
        options: How to serve it. A warm-up is left out if the graph may not take its shapes.
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
    if options.warm_up and _sizes_are_guessed(signature):
        shapes = model_config.warm_up_shapes(signature)
        options = replace(options, warm_up=accepts_inputs(graph, shapes))
    config = model_config.generate_config(name, signature, versions=[version], options=options)
    return signature, config


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
