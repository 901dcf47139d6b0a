"""
One answer of several: the rows of each output one after the other, in the order of the parts.

Source: Triton, Binary Tensor Data Extension (values stand behind the JSON in the order of the
outputs).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson

from gateway.errors import ImageMismatch
from gateway.inference.tensor_answer import TensorAnswer
from gateway.triton.connections import HttpResponse
from gateway.triton.v2_protocol import INFERENCE_HEADER_LENGTH

_SIZE = "binary_data_size"


def joined(answers: Sequence[TensorAnswer]) -> TensorAnswer:
    """
    Put answers of one version together.

    Args:
        answers: At least one; to requests for the same outputs in the same form.

    Raises:
        ImageMismatch: Their outputs have no rows, or rows of different shapes.
    """
    first = answers[0]
    if len(answers) == 1:
        return first
    outputs, values = [], list[memoryview]()
    for parts in zip(*(answer.outputs() for answer in answers), strict=True):
        outputs.append(_joined_output([said for said, _ in parts]))
        values += (part for _, part in parts)
    written = orjson.dumps({**first.said(), "outputs": outputs})
    body, headers = b"".join((written, *values)), dict(first.response.headers)
    if first.has_values:
        headers[INFERENCE_HEADER_LENGTH] = str(len(written))
    return replace(first, response=HttpResponse(first.response.status, headers, body))


def _joined_output(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first, shapes = parts[0], [part["shape"] for part in parts]
    if not all(shape and shape[1:] == shapes[0][1:] for shape in shapes):
        raise ImageMismatch(
            f"The output {first['name']!r} has another shape for each image, so that they cannot "
            "be answered together."
        )
    whole = {**first, "shape": [sum(shape[0] for shape in shapes), *shapes[0][1:]]}
    if "data" in first:
        whole["data"] = [value for part in parts for value in part["data"]]
    else:
        size_bytes = sum(part["parameters"][_SIZE] for part in parts)
        whole["parameters"] = {**first["parameters"], _SIZE: size_bytes}
    return whole
