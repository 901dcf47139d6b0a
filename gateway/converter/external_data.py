"""
Find references to other files in an ONNX model.

A tensor may name a file, relative or absolute, that holds its values. Whoever opens such a model
reads that file, which makes an upload a way to read the server's disk. The search therefore follows
the protobuf's own structure instead of a list of places to look: nested graphs, functions, sparse
tensors, training information and whatever a later release adds are covered alike.

Source: ONNX, External Data.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message
from onnx import TensorProto

from gateway.converter.errors import ExternalDataForbidden


def refuse_external_data(model: Message) -> None:
    """
    Check that every tensor of the model carries its own values. Opens no file.

    Raises:
        ExternalDataForbidden: One does not; the text names it.
    """
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise ExternalDataForbidden(
                f"Tensor {tensor.name!r} keeps its values in another file. Save the model with "
                "its weights inside: onnx.save(onnx.load('model.onnx'), 'whole.onnx', "
                "save_as_external_data=False); from torch: torch.onnx.export(…, "
                "external_data=False). The command line does so by itself where both files lie "
                "in one directory."
            )


def external_files(model: Message) -> set[str]:
    """Name the files in which tensors keep their values, as the model names them."""
    return {
        entry.value
        for tensor in _tensors(model)
        for entry in tensor.external_data
        if entry.key == "location"
    }


def _tensors(message: Message) -> Iterator[Any]:
    """Walk all tensors below `message`. As deep as protobuf parses: 100 levels."""
    pending: list[Message] = [message]
    while pending:
        current = pending.pop()
        if isinstance(current, TensorProto):
            yield current
            continue
        for field, value in current.ListFields():
            if field.message_type is not None:
                pending.extend([value] if isinstance(value, Message) else value)
