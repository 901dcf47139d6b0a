"""What is no model is called by its name, with the cure."""

import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gateway.converter.errors import ModelInvalid
from gateway.converter.onnx_signature import read_graph
from tests.model_family import FAMILY


def _zip(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return buffer.getvalue()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.onnx"))
    return buffer.getvalue()


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"\n <!DOCTYPE html><html>", "an HTML page"),
        (gzip.compress(b"model", mtime=0), "a gzip archive"),
        (lzma.compress(b"model"), "an xz archive"),
        (_tar(), "a tar archive"),
        (b"/annex/objects/SHA256E-s1--ab.onnx\n", "git annex get"),
        (b"GGUF\x03\x00\x00\x00" + bytes(40), "a language model"),
        (_zip("archive/data.pkl", "archive/version"), r"PyTorch checkpoint.*torch\.onnx\.export"),
        (_npz(), "a NumPy archive"),
        (_zip("metadata.json", "config.json", "model.weights.h5"), "a Keras model.*tf2onnx"),
        (_zip("model.onnx"), "a zip archive"),
        (b"\x18\x00\x00\x00ORTM" + bytes(40), "ORT format"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(40), "TensorFlow Lite"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
        ((64).to_bytes(8, "little") + b'{"w":{"dtype":"F32"}}', "safetensors"),
        (pickle.dumps({"w": 1}), "a Python pickle"),
        (b"\x08\x01\x12\x10" + bytes(40), "TensorFlow SavedModel"),
        (b"\x0a\x10\x0a\x01x\x12\x0bPlaceholder" + bytes(40), "a TensorFlow graph"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "an image"),
        (b'{"model": 1}', "JSON"),
        (b"\x00\x01\x02", "Not an ONNX model"),
    ],
)
def test_a_file_that_is_no_model_is_named(content: bytes, told: str, tmp_path: Path) -> None:
    """By its first bytes, and with what to do."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelInvalid, match=told):
        read_graph(path)


@pytest.mark.parametrize("case", FAMILY, ids=lambda case: case.id)
def test_no_model_is_taken_for_something_else(case: object, tmp_path: Path) -> None:
    """Every model of the family is read."""
    path = tmp_path / "model.onnx"
    path.write_bytes(case.make().SerializeToString())  # type: ignore[attr-defined]
    assert read_graph(path).graph.node
