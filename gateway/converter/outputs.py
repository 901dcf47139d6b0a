"""Put the output that holds the scores first, where an export has it elsewhere."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from gateway.converter.errors import ModelInvalid, SignatureUnsupported


@contextlib.contextmanager
def with_output_first(model: Path, output: str) -> Iterator[Path]:
    """
    Give a model whose first output is `output`: itself, or a temporary file.

    Args:
        model: A file with its weights inside.
        output: The name of one of its outputs.

    Raises:
        ModelInvalid: It cannot be read.
        SignatureUnsupported: It has no such output; the text names those that it has.
    """
    try:
        loaded = onnx.load(model, load_external_data=False)
    except DecodeError as error:
        raise ModelInvalid("Not an ONNX model, or a truncated one.") from error
    outputs = loaded.graph.output
    names = [each.name for each in outputs]
    if output not in names:
        raise SignatureUnsupported(
            f"The model has no output {output!r}; it has {', '.join(map(repr, names))}."
        )
    if names[0] == output:
        yield model
        return
    # The others keep their order.
    outputs.sort(key=lambda each: each.name != output)
    with tempfile.TemporaryDirectory() as folder:
        reordered = Path(folder, model.name)
        reordered.write_bytes(loaded.SerializeToString(deterministic=True))
        yield reordered
