"""
What a model takes and answers, in Triton's terms.

A signature says nothing about how a model computes; everything that has to be known to configure,
call and compare versions is here, and `read_signature` of `onnx_signature.py` finds it in a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from gateway.converter.errors import SignatureUnsupported

Shape = tuple[int | None, ...]
"""Sizes by axis, the batch axis included; None is dynamic; () is a scalar."""

_NOT_NUMERIC = frozenset({"BYTES", "BOOL"})


@dataclass(frozen=True, slots=True)
class TensorSignature:
    """
    One input or output.

    Attributes:
        name: The tensor's name in the graph, any text.
        dtype: Triton's spelling on the wire: "FP32", "UINT8", "BYTES".
    """

    name: str
    dtype: str
    shape: Shape

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape with -1 for a dynamic axis, as Triton writes it."""
        return tuple(-1 if size is None else size for size in self.shape)

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name!r} {self.dtype} [{sizes}]"


@dataclass(frozen=True, slots=True)
class ModelSignature:
    """
    All inputs and outputs of a model, in the graph's order.

    Attributes:
        inputs: What a request must bring; initializers listed as inputs are not among them.
        outputs: What the model answers; the first one is the classification.
        ir_version: Version of the ONNX file format.
        opsets: Version of each operator set, by domain; the default domain is "ai.onnx".
    """

    inputs: tuple[TensorSignature, ...]
    outputs: tuple[TensorSignature, ...]
    ir_version: int
    opsets: Mapping[str, int] = field(default_factory=dict)

    @property
    def batchable(self) -> bool:
        """Whether requests may be joined along the first axis: it is dynamic in every tensor."""
        tensors = self.inputs + self.outputs
        return bool(tensors) and all(tensor.shape and tensor.shape[0] is None for tensor in tensors)

    @property
    def classes(self) -> int | None:
        """How many classes the first output tells apart; None if that is not known before a run."""
        match self.outputs[0].shape if self.outputs else ():
            case (_, classes) | (classes,) | (_, classes, 1, 1):
                return classes
            case _:
                return None

    def same_tensors(self, other: Self) -> bool:
        """Whether one configuration and one kind of request fits both."""
        return self.inputs == other.inputs and self.outputs == other.outputs

    def to_json(self) -> dict[str, Any]:
        """Give a JSON object that `from_json` reads back."""
        return {
            "inputs": [_tensor_to_json(tensor) for tensor in self.inputs],
            "outputs": [_tensor_to_json(tensor) for tensor in self.outputs],
            "ir_version": self.ir_version,
            "opsets": dict(self.opsets),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(
            inputs=tuple(_tensor_from_json(tensor) for tensor in stored["inputs"]),
            outputs=tuple(_tensor_from_json(tensor) for tensor in stored["outputs"]),
            ir_version=stored["ir_version"],
            opsets=dict(stored["opsets"]),
        )

    def __str__(self) -> str:
        inputs = ", ".join(map(str, self.inputs)) or "none"
        outputs = ", ".join(map(str, self.outputs)) or "none"
        return f"inputs: {inputs}; outputs: {outputs}"


def takes_raw_pixels(image: TensorSignature) -> bool:
    """Whether an input takes one RGB image as it is: [N, H, W, 3] or [H, W, 3], of numbers."""
    match image.shape:
        case (None | 1, height, _, channels) | (height, _, channels):
            # An axis of any size is that of the channels only if the first one cannot be.
            last = channels == 3 or (channels is None and height not in {1, 3})
            return last and image.dtype not in _NOT_NUMERIC
        case _:
            return False


def check_classifier(signature: ModelSignature) -> None:
    """
    Check that the model turns one image into scores by class.

    That is: one numeric input of rank 4 (a batch of images) or 3 (one image), and a numeric first
    output [N, C], [C] or [N, C, 1, 1]. A batch axis is dynamic or 1, since an image comes alone.

    Raises:
        SignatureUnsupported: It does something else; the text shows the signature.
    """
    if len(signature.inputs) != 1:
        raise _refused(f"one input is needed, there are {len(signature.inputs)}", signature)
    if not signature.outputs:
        raise _refused("there is no output", signature)
    image, scores = signature.inputs[0], signature.outputs[0]
    for tensor in (image, scores):
        if tensor.dtype in _NOT_NUMERIC:
            raise _refused(f"{tensor.name!r} does not hold numbers", signature)
    match image.shape:
        case (None | 1, _, _, _) | (_, _, _):
            pass
        case (int(batch), _, _, _):
            raise _refused(
                f"the batch is fixed at {batch}, and an image comes alone: export the model with a "
                "dynamic batch axis, or with 1",
                signature,
            )
        case _:
            raise _refused("the input is not an image: [1, …] of rank 4, or rank 3", signature)
    match scores.shape:
        case (None | 1, _) | (_,) | (None | 1, _, 1, 1):
            pass
        case _:
            raise _refused(
                "the first output is not [N, C], [C] or [N, C, 1, 1] (what finds or reads things "
                "in an image is served by Triton alone, with a repository of its own)",
                signature,
            )


def _refused(reason: str, signature: ModelSignature) -> SignatureUnsupported:
    return SignatureUnsupported(f"Not an image classifier: {reason}. The model has {signature}")


def _tensor_to_json(tensor: TensorSignature) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _tensor_from_json(stored: Mapping[str, Any]) -> TensorSignature:
    return TensorSignature(stored["name"], stored["dtype"], tuple(stored["shape"]))
