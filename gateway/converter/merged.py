"""
A model that keeps its weights in a file beside it, as one file: torch's exporter writes `x.onnx`
and `x.onnx.data`. For files of one's own machine only; an upload is no reason to open a file.

Read is what the graph names, in the model's own directory: no other directory, no links, and no
more than a model may have.

Source: ONNX, External Data.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import load_external_data_for_model

from gateway.converter.errors import ExternalDataForbidden, ModelInvalid
from gateway.converter.external_data import external_files, refuse_external_data

_DATA_FILES = ("{}.data", "{}_data")
_MOST_BYTES = (1 << 31) - 1


def data_files(model: Path) -> list[Path]:
    """List the files beside a model that exporters put its weights into, of those that exist."""
    beside = (model.with_name(form.format(model.name)) for form in _DATA_FILES)
    return [path for path in beside if path.is_file()]


@contextlib.contextmanager
def in_one_file(model: Path) -> Iterator[Path]:
    """
    Give a model as one file: itself, or a temporary one with the weights that lie beside it.

    Raises:
        ExternalDataForbidden: It names a file that is not an own one beside it.
        ModelInvalid: It cannot be read, or is too large for one file.
    """
    if not data_files(model):
        yield model
        return
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, model.name)
        whole.write_bytes(_merge(model))
        yield whole


def _merge(path: Path) -> bytes:
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise ModelInvalid("Not an ONNX model, or a truncated one.") from error
    total = path.stat().st_size
    for name in external_files(model):
        file = path.parent / Path(name).name
        if file.name != name or file.is_symlink() or not file.is_file():
            raise ExternalDataForbidden(
                f"The model keeps values in {name[:200]!r}, which is no file of its own beside it."
            )
        total += file.stat().st_size
    if total > _MOST_BYTES:
        raise ModelInvalid("With its weights the model is larger than 2 GiB, the limit of a file.")
    load_external_data_for_model(model, str(path.parent))
    refuse_external_data(model)
    return bytes(model.SerializeToString())
