"""
Does the first output hold scores? What a model answers with is its author's choice, and the
category is the index of the largest value of the first output, whatever that is. Said at
registration, because afterwards every image is answered with a category that means nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from gateway.converter.onnx_signature import last_operator
from gateway.converter.signature import ModelSignature

Array = npt.NDArray[Any]


def doubts(
    graph: onnx.ModelProto, signature: ModelSignature, answers: Sequence[Sequence[Array]]
) -> list[str]:
    """
    Say what makes it doubtful, a sentence or two each.

    Args:
        graph, signature: Of the model.
        answers: Every output for each of the trial's images.
    """
    name = signature.outputs[0].name
    found: list[str] = []
    first = [outputs[0] for outputs in answers]
    operator = last_operator(graph)
    if operator == "TopK":
        found.append(
            f"The first output {name!r} holds the highest scores in order (TopK), so that every "
            "image is category 00."
        )
    elif first[0].dtype.kind in "iu" or operator == "ArgMax":
        found.append(
            f"The first output {name!r} holds whole numbers, as class numbers are, not scores: the "
            "category would be the place of the largest."
        )
    elif first[0].size == 1:
        found.append(
            f"The first output {name!r} has one column, so that every image is category 00. For "
            "two classes, make it two: concatenate 1 - p and p in the graph."
        )
    better = _looks_like_scores(signature, answers)
    if better is not None and (found or not _distributions(first)):
        found.append(
            f"The output {better!r} looks like the scores. Put it first: gateway register --output "
            f"{better}, or "
            "model = onnx.load('model.onnx'); outputs = model.graph.output; "
            f"outputs.sort(key=lambda o: o.name != {better!r}); onnx.save(model, 'model.onnx')."
        )
    return found


def _looks_like_scores(signature: ModelSignature, answers: Sequence[Sequence[Array]]) -> str | None:
    """Name a later output that holds a distribution over two or more classes."""
    for index, tensor in enumerate(signature.outputs[1:], start=1):
        if _distributions([outputs[index] for outputs in answers]):
            return tensor.name
    return None


def _distributions(arrays: Sequence[Array]) -> bool:
    """Whether each array is probabilities of one image."""
    return all(
        array.dtype.kind == "f"
        and array.size >= 2
        and max(array.shape) == array.size
        and float(array.min()) >= 0
        and bool(np.isclose(float(array.astype(np.float64).sum()), 1.0, atol=1e-2))
        for array in arrays
    )
